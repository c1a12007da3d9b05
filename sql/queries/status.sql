-- name: read_status
-- Managed jobs have our log; direct ones only pg_cron's, which has no index but on runid: the newest are enough.
WITH details AS (
    SELECT DISTINCT ON (jobid) jobid, status, start_time, end_time, return_message
      FROM cron.job_run_details
     WHERE runid > (SELECT coalesce(max(runid), 0) - 20000 FROM cron.job_run_details)
     ORDER BY jobid, runid DESC
)
SELECT d.name, d.kind, d.owner, d.jobid IS NOT NULL AS scheduled, j.schedule, j.active,
       coalesce(l.status, details.status) AS last_status,
       coalesce(l.run_at, details.start_time) AS last_run_at,
       coalesce(l.error_message, CASE WHEN details.status = 'failed' THEN details.return_message END) AS last_error,
       coalesce(l.completed_at, details.end_time) - coalesce(l.run_at, details.start_time) AS last_duration
  FROM reconciler.definitions d
  LEFT JOIN cron.job j ON j.jobid = d.jobid
  LEFT JOIN LATERAL (
       SELECT status, run_at, completed_at, error_message
         FROM reconciler.cron_execution_log
        WHERE job_name = d.name ORDER BY run_at DESC LIMIT 1) l ON true
  LEFT JOIN details ON details.jobid = d.jobid AND l.status IS NULL
 WHERE d.kind IN ('job', 'worker')
 ORDER BY d.owner, d.name;
