-- name: find_runtime
SELECT to_regnamespace('reconciler') IS NOT NULL, to_regclass('reconciler.run_history') IS NOT NULL;

-- name: may_read_cron
-- Whether the records of pg_cron are there, and may be read. Without the right on a schema nothing in it can be named.
SELECT CASE WHEN has_schema_privilege(to_regnamespace('cron'), 'USAGE')
            THEN coalesce(has_table_privilege(to_regclass('cron.job_run_details'), 'SELECT'), false)
            ELSE false END;

-- name: is_known
-- A job that is no longer declared still has its runs.
SELECT EXISTS (SELECT FROM reconciler.definitions WHERE name = %(name)s)
    OR EXISTS (SELECT FROM reconciler.cron_execution_log WHERE job_name = %(name)s);

-- name: list_names
SELECT name FROM reconciler.definitions WHERE kind IN ('job', 'worker');

-- name: list_runs
-- Newest first, through the primary key. What is older than the window (with an hour for clocks that were set) is
-- not read; a row without a backend began long before it was written.
SELECT 'log' AS source, l.id, l.job_name AS name, l.run_at, l.completed_at, l.status, l.trigger, l.attempt, l.chain_id,
       l.rows_affected, l.error_message, l.error_sqlstate, l.role, l.backend_pid,
       CASE WHEN l.status = 'running' AND l.handed_over THEN reconciler.describe_queued(l.queued_job_id) END AS note
  FROM reconciler.cron_execution_log l
 WHERE l.id > coalesce((SELECT o.id FROM reconciler.cron_execution_log o
                         WHERE o.run_at < coalesce(%(since_at)s::timestamptz, now() - %(since)s::interval)
                                          - interval '1 hour'
                           AND o.backend_pid <> 0
                         ORDER BY o.id DESC LIMIT 1), 0)
   AND l.run_at >= coalesce(%(since_at)s::timestamptz, now() - %(since)s::interval, '-infinity')
   AND (%(statuses)s::text[] IS NULL OR l.status = ANY (%(statuses)s::text[]))
   AND (%(log_id)s::bigint IS NULL OR l.id < %(log_id)s::bigint)
 ORDER BY l.id DESC
 LIMIT %(limit)s;

-- name: list_runs_of
SELECT 'log' AS source, l.id, l.job_name AS name, l.run_at, l.completed_at, l.status, l.trigger, l.attempt, l.chain_id,
       l.rows_affected, l.error_message, l.error_sqlstate, l.role, l.backend_pid,
       CASE WHEN l.status = 'running' AND l.handed_over THEN reconciler.describe_queued(l.queued_job_id) END AS note
  FROM reconciler.cron_execution_log l
 WHERE l.job_name = %(name)s
   AND l.run_at >= coalesce(%(since_at)s::timestamptz, now() - %(since)s::interval, '-infinity')
   AND (%(statuses)s::text[] IS NULL OR l.status = ANY (%(statuses)s::text[]))
   AND (%(log_id)s::bigint IS NULL
        OR l.run_at <= %(log_at)s::timestamptz AND (l.run_at, l.id) < (%(log_at)s::timestamptz, %(log_id)s::bigint))
 ORDER BY l.run_at DESC, l.id DESC
 LIMIT %(limit)s;

-- name: list_direct_runs
-- What pg_cron says of the jobs that are handed to it as they are; its table has no index but on runid, so the newest
-- are looked at.
WITH newest AS (
    SELECT 'pg_cron' AS source, r.runid AS id, d.name, r.start_time AS run_at, r.end_time AS completed_at,
           CASE WHEN r.status IN ('succeeded', 'failed') THEN r.status ELSE 'running' END AS status,
           'schedule' AS trigger, 1 AS attempt, NULL::bigint AS chain_id, NULL::bigint AS rows_affected,
           CASE WHEN r.status = 'failed' THEN rtrim(r.return_message, E'\n') END AS error_message,
           NULL AS error_sqlstate, r.username AS role, r.job_pid AS backend_pid, NULL AS note
      FROM reconciler.definitions d
      JOIN cron.job_run_details r ON r.jobid = d.jobid
     WHERE d.spec ->> 'mode' = 'direct'
       AND CASE WHEN %(name)s::text IS NULL THEN NOT starts_with(d.name, 'reconciler-') ELSE d.name = %(name)s END
       AND r.runid > (SELECT coalesce(max(runid), 0) - 20000 FROM cron.job_run_details)
       AND (%(cron_id)s::bigint IS NULL OR r.runid < %(cron_id)s::bigint)
)
SELECT * FROM newest
 WHERE coalesce(run_at, now()) >= coalesce(%(since_at)s::timestamptz, now() - %(since)s::interval, '-infinity')
   AND (%(statuses)s::text[] IS NULL OR status = ANY (%(statuses)s::text[]))
 ORDER BY id DESC
 LIMIT %(limit)s;

-- name: read_run
SELECT 'log' AS source, l.id, l.job_name AS name, l.run_at, l.completed_at, l.status, l.trigger, l.attempt, l.chain_id,
       l.rows_affected, l.error_message, l.error_sqlstate, l.role, l.backend_pid,
       l.error_detail, l.error_context, l.due_at, l.deadline_at, l.stop_reason, l.stop_at, l.stop_by,
       l.response_status, l.queued_job_id, l.revision, l.start_id,
       CASE WHEN l.status = 'running' AND l.handed_over THEN reconciler.describe_queued(l.queued_job_id) END AS note
  FROM reconciler.cron_execution_log l
 WHERE l.id = %(id)s;

-- name: read_direct_run
SELECT 'pg_cron' AS source, r.runid AS id, coalesce(d.name, j.jobname::text, 'jobid ' || r.jobid) AS name,
       r.start_time AS run_at, r.end_time AS completed_at,
       CASE WHEN r.status IN ('succeeded', 'failed') THEN r.status ELSE 'running' END AS status,
       'schedule' AS trigger, 1 AS attempt, NULL::bigint AS chain_id, NULL::bigint AS rows_affected,
       CASE WHEN r.status = 'failed' THEN rtrim(r.return_message, E'\n') END AS error_message,
       NULL AS error_sqlstate, r.username AS role, r.job_pid AS backend_pid,
       NULL AS error_detail, 'command: ' || r.command AS error_context, NULL::timestamptz AS due_at,
       NULL::timestamptz AS deadline_at, NULL AS stop_reason, NULL::timestamptz AS stop_at, NULL AS stop_by,
       NULL::integer AS response_status, NULL::bigint AS queued_job_id, NULL::bigint AS revision,
       NULL::bigint AS start_id
  FROM cron.job_run_details r
  LEFT JOIN reconciler.definitions d ON d.jobid = r.jobid
  LEFT JOIN cron.job j ON j.jobid = r.jobid
 WHERE r.runid = %(id)s;

-- name: list_attempts
-- A chain begins with its first run, and all others came after it.
SELECT 'log' AS source, l.id, l.job_name AS name, l.run_at, l.completed_at, l.status, l.trigger, l.attempt, l.chain_id,
       l.rows_affected, l.error_message, l.error_sqlstate, l.role, l.backend_pid
  FROM reconciler.cron_execution_log l
 WHERE l.job_name = %(name)s AND (l.id = %(chain_id)s OR l.chain_id = %(chain_id)s)
   AND l.run_at >= coalesce((SELECT f.run_at FROM reconciler.cron_execution_log f WHERE f.id = %(chain_id)s),
                            '-infinity')
 ORDER BY l.id;

-- name: list_starts
-- What waits to be started after a run: a try of the same chain.
SELECT s.trigger, s.due_at, s.attempt
  FROM reconciler.starts s
 WHERE s.job_name = %(name)s AND s.chain_id = %(chain_id)s
 ORDER BY s.due_at;
