-- name: find_jobs
SELECT d.name, d.kind, coalesce(d.spec ->> 'mode', 'managed') AS mode,
       reconciler.find_role(d.username, d.spec) AS role, d.spec::text AS document, d.source
  FROM reconciler.definitions d
 WHERE d.name = ANY (%(names)s) AND d.kind IN ('job', 'worker');

-- name: find_applied_runners
-- As last applied; for roles from which row-level security may hide the entries.
SELECT d.name, d.schedule
  FROM reconciler.definitions d
 WHERE d.active AND d.username = %(role)s AND d.command ~* '^\s*CALL\s+reconciler\.runner\s*\('
 ORDER BY d.name;

-- name: find_runners
SELECT coalesce(j.jobname::text, ''), j.schedule
  FROM cron.job j
 WHERE j.active AND j.username = %(role)s AND j.database = current_database()
   AND j.command ~* '^\s*CALL\s+reconciler\.runner\s*\('
 ORDER BY j.jobname;

-- name: request_run
SELECT reconciler.request_run(%(name)s);

-- name: find_start
-- Where a request stands: whether it still waits, and the run that came of it.
SELECT (SELECT s.due_at FROM reconciler.starts s WHERE s.id = %(start_id)s) AS due_at,
       (SELECT max(l.id) FROM reconciler.cron_execution_log l WHERE l.start_id = %(start_id)s) AS run_id;

-- name: run_here
CALL reconciler.run_job(%(name)s, 'manual');

-- name: find_run_here
SELECT max(l.id) FROM reconciler.cron_execution_log l
 WHERE l.job_name = %(name)s AND l.backend_pid = pg_backend_pid() AND l.run_at >= %(since)s;

-- name: read_clock
SELECT clock_timestamp(), session_user::text;

-- name: pause_job
SELECT reconciler.pause_job(%(name)s, coalesce(%(until)s, clock_timestamp() + %(for)s), %(reason)s);

-- name: read_pauses
SELECT p.job_name, p.until FROM reconciler.pauses p WHERE p.job_name = ANY (%(names)s);

-- name: resume_job
SELECT reconciler.resume_job(%(name)s);

-- name: find_runs
SELECT l.id, l.job_name, l.status FROM reconciler.cron_execution_log l WHERE l.id = ANY (%(ids)s);

-- name: cancel_run
SELECT reconciler.cancel_run(%(id)s);
