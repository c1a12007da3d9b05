-- What people look at: how every job fares, and what ran.

-- Failures are rare and asked for: without an index of their own all that went well would be read.
CREATE INDEX cron_execution_log_failed_idx ON reconciler.cron_execution_log (id)
    WHERE status IN ('failed', 'timed_out', 'lost', 'cancelled');

-- What the caller may see of pg_cron's tables; nothing without USAGE on its schema. Functions, since a role without
-- that right can then still create the views and read what is ours. pg_cron's details have no index but on runid:
-- the newest 20,000 are looked at.

CREATE FUNCTION reconciler.list_entries() RETURNS TABLE (jobid bigint, schedule text, active boolean)
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    IF pg_catalog.has_schema_privilege('cron', 'USAGE') THEN
        RETURN QUERY SELECT j.jobid, j.schedule, j.active FROM cron.job j;
    END IF;
END
$$;

CREATE FUNCTION reconciler.list_details() RETURNS TABLE (
    jobid bigint, runid bigint, job_pid integer, username text, status text, return_message text,
    start_time timestamptz, end_time timestamptz
)
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    IF pg_catalog.has_schema_privilege('cron', 'USAGE') THEN
        RETURN QUERY SELECT r.jobid, r.runid, r.job_pid, r.username, r.status, r.return_message, r.start_time,
                            r.end_time
                       FROM cron.job_run_details r
                      WHERE r.runid > (SELECT coalesce(max(n.runid), 0) - 20000 FROM cron.job_run_details n);
    END IF;
END
$$;

-- Managed jobs are counted as their runs end, so the counts outlive the log. Direct ones have pg_cron's own details
-- alone.
CREATE VIEW reconciler.cron_job_health AS
WITH details AS (
    SELECT jobid, count(*) AS total_runs, count(*) FILTER (WHERE status = 'failed') AS failed_runs,
           max(start_time) AS last_run_time,
           (array_agg(status ORDER BY runid DESC))[1] AS last_status,
           (array_agg(CASE WHEN status = 'failed' THEN rtrim(return_message, E'\n') END ORDER BY runid DESC))[1]
               AS last_error,
           (array_agg(end_time - start_time ORDER BY runid DESC))[1] AS last_duration,
           percentile_cont(0.5)  WITHIN GROUP (ORDER BY end_time - start_time)
               FILTER (WHERE status = 'succeeded') AS p50_duration,
           percentile_cont(0.95) WITHIN GROUP (ORDER BY end_time - start_time)
               FILTER (WHERE status = 'succeeded') AS p95_duration,
           -- The newest failures down to the newest success.
           count(*) FILTER (WHERE status = 'failed' AND runid > coalesce(good, 0)) AS consecutive_failures
      FROM (SELECT *, max(runid) FILTER (WHERE status = 'succeeded') OVER (PARTITION BY jobid) AS good
              FROM reconciler.list_details()) AS newest
     WHERE status IN ('succeeded', 'failed')
     GROUP BY jobid
), running AS (
    -- There may be many, each waiting for a worker.
    SELECT DISTINCT ON (l.job_name) l.job_name, l.status, l.run_at, CASE WHEN l.handed_over THEN l.queued_job_id END AS queued
      FROM reconciler.cron_execution_log l WHERE l.status = 'running' ORDER BY l.job_name, l.run_at DESC
)
SELECT d.name, d.kind, d.owner,
       coalesce(j.active, false)                                        AS active,
       pause.job_name IS NOT NULL                                       AS paused,
       pause.until                                                      AS paused_until,
       coalesce(j.schedule, d.schedule)                                 AS schedule,
       coalesce(s.total_runs, details.total_runs, 0)                    AS total_runs,
       coalesce(s.failed_runs, details.failed_runs, 0)                  AS failed_runs,
       coalesce(s.missed_runs, 0)                                       AS missed_runs,
       coalesce(now_running.status, s.last_status, details.last_status) AS last_status,
       coalesce(now_running.run_at, s.last_run_at, details.last_run_time) AS last_run_time,
       coalesce(s.last_error, details.last_error)                       AS last_error,
       coalesce(s.last_duration, details.last_duration)                 AS last_duration,
       CASE WHEN j.active THEN
           reconciler.next_fire(j.schedule, clock_timestamp(), 
               -- The zone in which pg_cron reads schedules, as the last apply saw it.
               coalesce(p.zone, (SELECT zone FROM reconciler.policies LIMIT 1), 'GMT'))
       END                                                              AS next_run_time,
       -- For how long a run has been due that is not in the log.
       CASE WHEN j.active OR j.jobid IS NULL AND d.active THEN
           greatest(clock_timestamp() - s.next_due_at, interval '0')
       END                                                              AS lateness,
       coalesce(usual.p50, details.p50_duration)                        AS p50_duration,
       coalesce(usual.p95, details.p95_duration)                        AS p95_duration,
       coalesce(s.consecutive_failures, details.consecutive_failures, 0) AS consecutive_failures,
       -- What the run that goes on was put on its queue as.
       now_running.queued                                               AS queued_job_id
  FROM reconciler.definitions d
  LEFT JOIN reconciler.list_entries() j ON j.jobid = d.jobid
  LEFT JOIN reconciler.policies p ON p.name = d.name
  LEFT JOIN reconciler.job_states s ON s.name = d.name
  LEFT JOIN reconciler.pauses pause
         ON pause.job_name = d.name AND (pause.until IS NULL OR pause.until > clock_timestamp())
  LEFT JOIN details ON details.jobid = d.jobid AND s.name IS NULL
  LEFT JOIN running now_running ON now_running.job_name = d.name
  LEFT JOIN LATERAL (
       SELECT percentile_cont(0.5)  WITHIN GROUP (ORDER BY l.completed_at - l.run_at) AS p50,
              percentile_cont(0.95) WITHIN GROUP (ORDER BY l.completed_at - l.run_at) AS p95
         FROM (SELECT newest.run_at, newest.completed_at
                 -- A job that does not succeed may have any number of runs.
                 FROM (SELECT n.run_at, n.completed_at, n.status FROM reconciler.cron_execution_log n
                        WHERE n.job_name = d.name ORDER BY n.run_at DESC LIMIT 1000) AS newest
                WHERE newest.status = 'succeeded' ORDER BY newest.run_at DESC LIMIT 100) AS l
       ) AS usual ON s.name IS NOT NULL
 WHERE d.kind IN ('job', 'worker');
COMMENT ON VIEW reconciler.cron_job_health IS 'How every job and worker fares';

CREATE VIEW reconciler.run_history AS
SELECT l.job_name AS name, 'log' AS source, l.id AS run_id, l.run_at, l.completed_at,
       l.completed_at - l.run_at AS duration, l.status, l.trigger, l.attempt, l.chain_id, l.rows_affected,
       l.error_message, l.error_sqlstate, l.role, l.backend_pid, l.queued_job_id
  FROM reconciler.cron_execution_log l
UNION ALL
-- Jobs that are handed to pg_cron as they are, in its own words.
SELECT d.name, 'pg_cron', r.runid, r.start_time, r.end_time, r.end_time - r.start_time,
       CASE WHEN r.status IN ('succeeded', 'failed') THEN r.status ELSE 'running' END, 'schedule', 1, NULL, NULL,
       CASE WHEN r.status = 'failed' THEN rtrim(r.return_message, E'\n') END, NULL, r.username, r.job_pid, NULL
  FROM reconciler.definitions d
  JOIN reconciler.list_details() r ON r.jobid = d.jobid
 WHERE d.spec ->> 'mode' = 'direct';
COMMENT ON VIEW reconciler.run_history IS 'Every run: our log for managed jobs, pg_cron''s details for direct ones';

CREATE VIEW reconciler.scheduled_jobs AS
SELECT d.name, d.kind, d.owner, d.spec ->> 'description' AS description,
       CASE WHEN d.schedule IS NOT NULL THEN 'schedule' WHEN d.spec ->> 'once' IS NOT NULL THEN 'once'
            WHEN d.spec -> 'after' IS NOT NULL THEN 'after' ELSE 'none' END AS trigger,
       d.schedule, (d.spec ->> 'once')::timestamptz AS run_at,
       CASE WHEN json_typeof(d.spec -> 'after') = 'array'
            THEN ARRAY(SELECT json_array_elements_text(d.spec -> 'after')) END AS after,
       coalesce(d.active, (d.spec ->> 'active')::boolean, true) AS active,
       coalesce(d.username, d.spec ->> 'role',
                (SELECT username FROM reconciler.definitions WHERE name = 'reconciler-runner')) AS role, d.source
  FROM reconciler.definitions d
 WHERE d.kind IN ('job', 'worker');
COMMENT ON VIEW reconciler.scheduled_jobs IS 'What is declared to run, and when';
