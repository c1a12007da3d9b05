-- name: read_summary
-- The tick is found by what it calls, so that one that somebody scheduled by hand counts too. One that goes on is
-- as good as new, since a tick may stay for long.
WITH tick AS (
    SELECT jobid FROM cron.job
     WHERE active AND command ~* '^\s*CALL\s+reconciler\.tick\s*\(' AND database = current_database()
), newest AS (
    SELECT r.start_time, r.status, r.job_pid
      FROM cron.job_run_details r
     WHERE r.jobid IN (SELECT jobid FROM tick) AND r.start_time IS NOT NULL
       AND r.runid > (SELECT coalesce(max(runid), 0) - 20000 FROM cron.job_run_details)
     ORDER BY r.runid DESC LIMIT 1
)
SELECT (SELECT count(*) FROM tick)::integer AS ticks,
       (SELECT CASE WHEN newest.status NOT IN ('succeeded', 'failed')
                     AND EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = newest.job_pid) THEN 0
                    ELSE extract(epoch FROM clock_timestamp() - newest.start_time) END::double precision
          FROM newest)                                                                        AS tick_age,
       (SELECT count(*) FROM reconciler.alert_deliveries WHERE status = 'pending')::integer AS deliveries_waiting,
       clock_timestamp() AS now;
