-- name: disable_jit
-- Compiling the query takes longer than executing it for 10,000 jobs.
SET LOCAL jit = off;

-- name: read_status
-- Managed jobs have our log; direct ones only pg_cron's, which has no index but on runid: the newest are enough.
-- Whatever is read of a job's runs comes through the index on (job_name, run_at), twenty rows at the most.
WITH declared AS MATERIALIZED (
    SELECT d.name, d.kind, d.owner, d.jobid, coalesce(d.spec ->> 'mode', '') = 'direct' AS is_direct,
           coalesce(d.spec ->> 'timezone', '') AS timezone, d.spec -> 'after' AS after,
           (d.spec ->> 'once')::timestamptz AS once_at, d.retired_until
      FROM reconciler.definitions d
     WHERE d.kind IN ('job', 'worker')
), newest AS MATERIALIZED (
    SELECT r.jobid, r.start_time, r.end_time - r.start_time AS duration,
           CASE WHEN r.status IN ('succeeded', 'failed') THEN r.status ELSE 'running' END AS status,
           CASE WHEN r.status = 'failed' THEN rtrim(r.return_message, E'\n') END AS error,
           row_number() OVER (PARTITION BY r.jobid ORDER BY r.runid DESC) AS place
      FROM cron.job_run_details r
      JOIN declared a ON a.jobid = r.jobid AND a.is_direct
     WHERE r.runid > (SELECT coalesce(max(runid), 0) - 20000 FROM cron.job_run_details)
), details AS (
    SELECT n.jobid,
           max(n.status) FILTER (WHERE n.place = 1)     AS status,
           max(n.start_time) FILTER (WHERE n.place = 1) AS run_at,
           max(n.duration) FILTER (WHERE n.place = 1)   AS duration,
           max(n.error) FILTER (WHERE n.place = 1)      AS error,
           max(n.start_time) FILTER (WHERE n.place = 1 AND n.status = 'running') AS running_since,
           array_agg(n.status ORDER BY n.place) FILTER (WHERE n.place <= 20) AS statuses,
           array_agg(extract(epoch FROM n.duration)::double precision ORDER BY n.place) FILTER (WHERE n.place <= 20) AS seconds,
           -- The newest failures, down to the newest success.
           count(*) FILTER (WHERE n.status = 'failed' AND n.place < coalesce(good.place, n.place + 1)) AS failures
      FROM newest n
      LEFT JOIN (SELECT jobid, min(place) AS place FROM newest WHERE status = 'succeeded' GROUP BY jobid) AS good
             ON good.jobid = n.jobid
     GROUP BY n.jobid
), running AS (
    SELECT l.job_name, max(l.run_at) AS since,
           -- No worker has begun with any of them.
           bool_and(coalesce(q.status = 'pending', false)) AS is_queued
      FROM reconciler.cron_execution_log l
      LEFT JOIN reconciler.jobs_open q ON l.handed_over AND q.id = l.queued_job_id
     WHERE l.status = 'running' GROUP BY l.job_name
), open_alerts AS (
    SELECT job_name, count(*) AS found, bool_or(kind = 'missed') AS has_missed
      FROM reconciler.alerts WHERE resolved_at IS NULL GROUP BY job_name
)
SELECT a.name, a.kind, a.owner, a.jobid IS NOT NULL AS scheduled, j.schedule, j.active,
       a.jobid IS NOT NULL AND j.jobid IS NULL AND row_security_active('cron.job') AS is_hidden,
       CASE WHEN a.is_direct THEN details.status ELSE last.status END     AS last_status,
       CASE WHEN a.is_direct THEN details.run_at ELSE last.run_at END     AS last_run_at,
       CASE WHEN a.is_direct THEN details.error ELSE last.error END       AS last_error,
       CASE WHEN a.is_direct THEN details.duration ELSE last.duration END AS last_duration,
       CASE WHEN a.retired_until IS NOT NULL THEN NULL
            WHEN o.status = 'pending' AND o.active THEN o.run_at
            -- Not when its entry fires, where that comes more often than the job is due.
            WHEN j.active AND t.name IS NOT NULL THEN reconciler.find_due(t, j.schedule, now(), %(zone)s)
            -- pg_cron counts seconds from the last start.
            WHEN j.active AND j.schedule ~* 'second'
            THEN greatest(reconciler.next_fire(j.schedule, coalesce(last.run_at, details.run_at, now()), 'GMT'), now())
            WHEN j.active THEN reconciler.next_fire(j.schedule, now(), %(zone)s) END AS next_run_at,
       a.timezone,
       CASE WHEN json_typeof(a.after) = 'array'
            THEN ARRAY(SELECT json_array_elements_text(a.after)) ELSE '{}' END AS after,
       a.once_at,
       coalesce(s.consecutive_failures, details.failures, 0)::integer     AS consecutive_failures,
       coalesce(running.since, details.running_since,
                -- A one-time job is in the log when it is over.
                CASE WHEN o.status = 'running' AND o.handler IS NOT NULL THEN o.started_at END) AS running_since,
       coalesce(running.is_queued, false)                                 AS is_queued,
       p.job_name IS NOT NULL AS paused, p.until AS paused_until, coalesce(p.reason, '') AS pause_reason,
       coalesce(p.paused_by, '') AS paused_by, a.retired_until,
       coalesce(open_alerts.found, 0)::integer                            AS open_alerts,
       coalesce(open_alerts.has_missed, false)                            AS has_missed,
       coalesce(CASE WHEN a.is_direct THEN details.statuses ELSE recent.statuses END, '{}') AS recent_statuses,
       coalesce(CASE WHEN a.is_direct THEN details.seconds ELSE recent.seconds END, '{}')   AS recent_seconds
  FROM declared a
  LEFT JOIN cron.job j ON j.jobid = a.jobid
  LEFT JOIN reconciler.timings t ON t.name = a.name
  LEFT JOIN details ON details.jobid = a.jobid
  LEFT JOIN running ON running.job_name = a.name
  LEFT JOIN open_alerts ON open_alerts.job_name = a.name
  LEFT JOIN reconciler.job_states s ON s.name = a.name AND NOT a.is_direct
  LEFT JOIN reconciler.jobs o ON o.job_name = a.name AND o.once
  LEFT JOIN reconciler.pauses p ON p.job_name = a.name AND (p.until IS NULL OR p.until > clock_timestamp())
  LEFT JOIN LATERAL (
       SELECT l.status, l.run_at, l.error_message AS error, l.completed_at - l.run_at AS duration
         FROM reconciler.cron_execution_log l
        WHERE l.job_name = a.name ORDER BY l.run_at DESC LIMIT 1) AS last ON true
  LEFT JOIN LATERAL (
       -- In the order of the index: sorting once more would take longer than all the rest.
       SELECT array_agg(l.status) AS statuses,
              array_agg(extract(epoch FROM l.completed_at - l.run_at)::double precision) AS seconds
         FROM (SELECT status, run_at, completed_at FROM reconciler.cron_execution_log
                WHERE job_name = a.name ORDER BY run_at DESC LIMIT 20) AS l) AS recent ON true
 ORDER BY a.owner, a.name;

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
