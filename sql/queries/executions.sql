-- name: begin
-- Whatever the session's defaults are: the log is written, and what another session has just committed is seen.
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;

-- name: set_transaction
-- The same where psycopg begins the transaction by itself.
SET TRANSACTION ISOLATION LEVEL READ COMMITTED READ WRITE;

-- name: look
SELECT pg_backend_pid() AS pid, session_user::text AS role, clock_timestamp() AS since,
       to_regnamespace('reconciler') IS NOT NULL AS has_schema, p.oid IS NOT NULL AS has_runtime,
       coalesce(has_function_privilege(p.oid, 'EXECUTE'), false) AS may_execute,
       coalesce(has_table_privilege(to_regclass('reconciler.definitions'), 'SELECT'), false) AS may_read
  FROM (SELECT) AS one
  LEFT JOIN pg_proc p ON p.pronamespace = to_regnamespace('reconciler') AND p.proname = 'start_execution';

-- name: find_lock
SELECT pg_backend_pid() AS pid, d.name IS NOT NULL AS is_declared, d.lock_key,
       coalesce(d.spec ->> 'concurrency' = 'allow', false) AS shared
  FROM (SELECT) AS one LEFT JOIN reconciler.definitions d ON d.name = %(name)s;

-- name: try_lock
-- The key is that of the definition where it can be read; the two differ in a copy under another database's name.
SELECT pg_backend_pid() AS pid, k.lock_key, false AS shared,
       CASE WHEN pg_try_advisory_lock(k.lock_key) THEN 'run' ELSE 'busy' END AS verdict
  FROM (SELECT coalesce(%(lock_key)s::bigint, reconciler.make_lock_key(%(name)s)) AS lock_key) AS k;

-- name: unlock
SELECT pg_advisory_unlock(coalesce(%(lock_key)s::bigint, reconciler.make_lock_key(%(name)s)));

-- name: drop_lock
-- What a start took before it failed: session locks outlive a rollback. One call for each time that
-- the lock was taken.
SELECT CASE l.mode WHEN 'ShareLock' THEN pg_advisory_unlock_shared(k.key) ELSE pg_advisory_unlock(k.key) END
  FROM (SELECT coalesce(%(lock_key)s::bigint, reconciler.make_lock_key(%(name)s)) AS key) AS k
  JOIN pg_locks l ON l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.pid = pg_backend_pid()
                 AND l.classid::bigint = (k.key >> 32) & 4294967295 AND l.objid::bigint = k.key & 4294967295;

-- name: start_run
SELECT pg_backend_pid() AS pid, s.run_id, s.token, s.verdict, s.lock_key, s.shared, s.reason
  FROM reconciler.start_run(job_name => %(name)s, trigger => %(trigger)s, since => %(since)s) AS s;

-- name: start_execution
SELECT pg_backend_pid() AS pid, s.run_id, s.token, s.verdict, s.lock_key, s.shared, s.reason
  FROM reconciler.start_execution(name => %(name)s) AS s;

-- name: finish_run
SELECT reconciler.finish_run(
           run_id => %(run_id)s, token => %(token)s, outcome => %(outcome)s, rows_affected => %(rows_affected)s::bigint,
           error_sqlstate => %(sqlstate)s, error_message => %(message)s, error_detail => %(detail)s,
           error_context => %(context)s) AS status;

-- name: release_run
-- Nothing where another backend answers than the one that has the lock.
SELECT reconciler.release_run(lock_key => %(lock_key)s, shared => %(shared)s) WHERE pg_backend_pid() = %(pid)s;

-- name: open_failed_alert
SELECT reconciler.open_alert(
           job_name => p.name, kind => 'failed', run_id => NULL, message => %(message)s,
           details => %(details)s::jsonb, channels => p.channels, remind => p.remind)
  FROM reconciler.policies p WHERE p.name = %(name)s;

-- name: insert_alert
-- Of a name that nobody declared: no good run would ever close it, so it is closed from the beginning.
INSERT INTO reconciler.alerts (job_name, kind, message, details, resolved_at)
VALUES (%(name)s, 'failed', %(message)s, %(details)s::jsonb, clock_timestamp());
