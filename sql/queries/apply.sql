-- name: try_apply_lock
-- One apply at a time in a database; the number is arbitrary and has no other use.
SELECT pg_try_advisory_xact_lock(7411530208936421);

-- name: require_apply_lock
-- The same in a script, where nobody looks at what a query returned.
DO $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(7411530208936421) THEN
        RAISE EXCEPTION 'another apply or migrate is working on this target' USING HINT = 'Run the script again later.';
    END IF;
END
$$;

-- name: lock_entries
-- cron.unschedule looks with a newer snapshot than ours and would delete also what changed since we looked;
-- locking or altering an entry that changed fails instead.
SELECT FROM cron.job WHERE jobid = ANY (%(jobids)b::bigint[]) FOR UPDATE;

-- name: touch_entries
-- The same for roles that may not lock.
SELECT cron.alter_job(jobid, active := active) FROM cron.job WHERE jobid = ANY (%(jobids)b::bigint[]);

-- name: unschedule_entries
SELECT cron.unschedule(jobid) FROM unnest(%(jobids)b::bigint[]) AS jobid;

-- name: rename_entries
-- No function of pg_cron renames; this needs UPDATE on cron.job.
UPDATE cron.job j SET jobname = t.name
  FROM unnest(%(jobids)b::bigint[], %(names)b::text[]) AS t (jobid, name)
 WHERE j.jobid = t.jobid;

-- name: alter_entries
-- What is NULL stays. Arrays that may hold nothing but NULL are sent as text (s), the others as binary (b).
SELECT cron.alter_job(jobid, schedule, command, database, username, active)
  FROM unnest(%(jobids)s::bigint[], %(schedules)s::text[], %(commands)s::text[], %(databases)s::text[],
              %(usernames)s::text[], %(actives)s::boolean[])
       AS t (jobid, schedule, command, database, username, active);

-- name: schedule_entries
SELECT cron.schedule_in_database(name, schedule, command, database, username, active)
  FROM unnest(%(names)b::text[], %(schedules)b::text[], %(commands)b::text[], %(databases)b::text[],
              %(usernames)s::text[], %(actives)b::boolean[])
       AS t (name, schedule, command, database, username, active);

-- name: schedule_entries_plainly
SELECT cron.schedule(name, schedule, command)
  FROM unnest(%(names)b::text[], %(schedules)b::text[], %(commands)b::text[]) AS t (name, schedule, command);

-- name: insert_revision
-- Under which name an owner applies is noted, and the database's present name with it.
WITH place AS (
    UPDATE reconciler.identity i
       SET targets = i.targets || jsonb_build_object(%(owner)s::text, %(target)s::text), database = current_database()
     WHERE (i.targets ->> %(owner)s::text, i.database) IS DISTINCT FROM (%(target)s::text, current_database()::text)
)
INSERT INTO reconciler.revisions (previous, owner, target, actor, commit, release, summary, changes)
SELECT coalesce(max(id), 0), %(owner)s, %(target)s, %(actor)s, %(commit)s, %(release)s, %(summary)s::json,
       %(changes)s::json
  FROM reconciler.revisions
RETURNING id;

-- name: delete_definitions
-- Rows of queues and workers go with their definition; a one-time job that still waits is cancelled, also one that
-- waits to be tried again.
WITH gone AS (
    DELETE FROM reconciler.definitions WHERE name = ANY (%(names)b::text[]) RETURNING name
)
UPDATE reconciler.jobs j
   SET status = 'cancelled', completed_at = now(), once = false
  FROM gone
 WHERE j.job_name = gone.name AND j.once
   AND (j.status = 'pending' OR EXISTS (SELECT FROM reconciler.starts s WHERE s.queued_job_id = j.id));

-- name: transfer_definitions
-- To another owner, whose revision this is; all else stays.
UPDATE reconciler.definitions SET owner = %(to)s, revision = %(revision)s, updated_at = now()
 WHERE name = ANY (%(names)b::text[]);

-- name: rename_definitions
-- Where a one-time job of the new name has run already, the one that waits under the old name never will.
WITH renamed AS (
    UPDATE reconciler.definitions d SET name = t.after, lock_key = reconciler.make_lock_key(t.after)
      FROM unnest(%(before)b::text[], %(after)b::text[]) AS t (before, after)
     WHERE d.name = t.before
    RETURNING t.before, t.after
), targets AS (
    SELECT r.before, r.after,
           EXISTS (SELECT FROM reconciler.jobs j WHERE j.job_name = r.after AND j.once) AS taken
      FROM renamed r
)
UPDATE reconciler.jobs j
   SET job_name = t.after, once = j.once AND NOT t.taken,
       status = CASE WHEN j.once AND t.taken AND j.status = 'pending' THEN 'cancelled' ELSE j.status END,
       completed_at = CASE WHEN j.once AND t.taken AND j.status = 'pending' THEN now() ELSE j.completed_at END
  FROM targets t
 WHERE j.job_name = t.before;

-- name: put_definitions
-- Of resources without an entry; a role that may not use pg_cron can do this. Workers that were made in SQL, and jobs
-- of the service, get the owner who declares them.
INSERT INTO reconciler.definitions AS d (name, kind, owner, spec, digest, protect, source, lock_key, revision)
SELECT t.name, t.kind, %(owner)s, t.spec::json, t.digest, t.protect, t.source, reconciler.make_lock_key(t.name),
       %(revision)s
  FROM unnest(%(names)b::text[], %(kinds)b::text[], %(specs)b::text[], %(digests)b::text[],
              %(protects)b::boolean[], %(sources)b::text[])
       AS t (name, kind, spec, digest, protect, source)
    ON CONFLICT (name) DO UPDATE
   SET kind = excluded.kind, owner = excluded.owner, spec = excluded.spec, digest = excluded.digest,
       protect = excluded.protect, source = excluded.source, revision = excluded.revision, updated_at = now(),
       jobid = NULL, schedule = NULL, command = NULL, database = NULL, username = NULL, active = NULL
 WHERE d.owner = excluded.owner OR (d.owner, d.kind) IN (('sql', 'worker'), ('api', 'job'));

-- name: put_definitions_with_entries
-- The jobid of an entry that was just made is looked up by pg_cron's own key, name and role.
INSERT INTO reconciler.definitions AS d
       (name, kind, owner, spec, digest, protect, source, lock_key, revision,
        jobid, schedule, command, database, username, active)
SELECT t.name, t.kind, %(owner)s, t.spec::json, t.digest, t.protect, t.source, reconciler.make_lock_key(t.name),
       %(revision)s, coalesce(t.jobid, j.jobid), t.schedule, t.command, t.database, t.username, t.active
  FROM unnest(%(names)b::text[], %(kinds)b::text[], %(specs)b::text[], %(digests)b::text[],
              %(protects)b::boolean[], %(sources)b::text[], %(jobids)s::bigint[], %(schedules)b::text[],
              %(commands)b::text[], %(databases)b::text[], %(usernames)b::text[], %(actives)b::boolean[])
       AS t (name, kind, spec, digest, protect, source, jobid, schedule, command, database, username, active)
  LEFT JOIN cron.job j ON t.jobid IS NULL AND j.jobname = t.name AND j.username = t.username
    ON CONFLICT (name) DO UPDATE
   SET kind = excluded.kind, owner = excluded.owner, spec = excluded.spec, digest = excluded.digest,
       protect = excluded.protect, source = excluded.source, revision = excluded.revision, updated_at = now(),
       jobid = excluded.jobid, schedule = excluded.schedule, command = excluded.command,
       database = excluded.database, username = excluded.username, active = excluded.active
 WHERE d.owner = excluded.owner OR (d.owner, d.kind) IN (('sql', 'worker'), ('api', 'job'));

-- name: restore_definitions
-- Declared again, or brought back; before their rows are put, which depend on it.
UPDATE reconciler.definitions SET retired_at = NULL, retired_until = NULL WHERE name = ANY (%(names)b::text[]);

-- name: retire_definitions
-- Who stirs in its grace gets no longer one.
UPDATE reconciler.definitions d
   SET retired_at = coalesce(d.retired_at, now()),
       retired_until = coalesce(d.retired_until, now() + reconciler.read_duration(t.grace)),
       active = CASE WHEN d.active IS NOT NULL THEN false END, revision = %(revision)s, updated_at = now()
  FROM unnest(%(names)b::text[], %(graces)s::text[]) AS t (name, grace)
 WHERE d.name = t.name;

-- name: put_entries
-- Of what is retired, as they stand now. Where a role may not alter entries, one that stands still is a new one.
UPDATE reconciler.definitions d
   SET jobid = coalesce(t.jobid, j.jobid), schedule = t.schedule, command = t.command, database = t.database,
       username = t.username, active = t.active
  FROM unnest(%(names)b::text[], %(jobnames)b::text[], %(jobids)s::bigint[], %(schedules)b::text[],
              %(commands)b::text[], %(databases)b::text[], %(usernames)b::text[], %(actives)b::boolean[])
       AS t (name, jobname, jobid, schedule, command, database, username, active)
  LEFT JOIN cron.job j ON t.jobid IS NULL AND j.jobname = t.jobname AND j.username = t.username
 WHERE d.name = t.name;

-- name: clear_rows
-- What a resource leaves behind that was declared anew as something else.
WITH queues AS (
    DELETE FROM reconciler.queues
     WHERE name = ANY (%(names)b::text[]) AND name NOT IN (SELECT name FROM reconciler.declared_queues)
), workers AS (
    DELETE FROM reconciler.workers
     WHERE name = ANY (%(names)b::text[]) AND name NOT IN (SELECT name FROM reconciler.declared_workers)
), timings AS (
    DELETE FROM reconciler.timings
     WHERE name = ANY (%(names)b::text[]) AND name NOT IN (SELECT name FROM reconciler.declared_timings)
), policies AS (
    DELETE FROM reconciler.policies p
     WHERE p.name = ANY (%(names)b::text[])
       AND NOT EXISTS (SELECT FROM reconciler.definitions d
                        WHERE d.name = p.name AND d.kind IN ('job', 'worker')
                          AND coalesce(d.spec ->> 'mode', 'managed') = 'managed')
    RETURNING p.name
), states AS (
    DELETE FROM reconciler.job_states s USING policies p WHERE s.name = p.name
), starts AS (
    DELETE FROM reconciler.starts s USING policies p WHERE s.job_name = p.name
), pauses AS (
    DELETE FROM reconciler.pauses s USING policies p WHERE s.job_name = p.name
)
UPDATE reconciler.jobs
   SET status = 'cancelled', completed_at = now(), once = false
 WHERE job_name = ANY (%(names)b::text[]) AND once AND status = 'pending'
   AND job_name NOT IN (SELECT job_name FROM reconciler.declared_jobs);

-- name: put_queues
INSERT INTO reconciler.queues AS q
SELECT * FROM reconciler.declared_queues WHERE name = ANY (%(names)b::text[])
    ON CONFLICT (name) DO UPDATE
   SET mode = excluded.mode, max_attempts = excluded.max_attempts, backoff_initial = excluded.backoff_initial,
       backoff_factor = excluded.backoff_factor, backoff_max = excluded.backoff_max,
       concurrency = excluded.concurrency, rate_count = excluded.rate_count, rate_per = excluded.rate_per,
       retention = excluded.retention, lease = excluded.lease, timeout = excluded.timeout,
       keep_failed = excluded.keep_failed, held_by = excluded.held_by;

-- name: put_workers
INSERT INTO reconciler.workers AS w
SELECT * FROM reconciler.declared_workers WHERE name = ANY (%(names)b::text[])
    ON CONFLICT (name) DO UPDATE
   SET queue = excluded.queue, url = excluded.url, secret = excluded.secret, status = excluded.status,
       job_limit = excluded.job_limit, timeout = excluded.timeout;

-- name: put_once_jobs
-- A one-time job that runs, or has run, is never touched. What its handler may take and how often it is tried goes
-- along, as queue_run has it for jobs that recur.
INSERT INTO reconciler.jobs_open AS j
       (job_name, once, run_at, active, handler, queue, payload, ordering_key, max_attempts, timeout)
SELECT d.job_name, true, d.run_at, d.active, d.handler, d.queue, d.payload,
       CASE WHEN (reconciler.find_queue(d.queue)).mode = 'blocking' THEN '' END,
       CASE WHEN d.handler IS NOT NULL AND s.spec -> 'on_failure' IS NOT NULL THEN p.retries + 1 END,
       CASE WHEN d.handler IS NOT NULL THEN p.timeout END
  FROM reconciler.declared_jobs d
  JOIN reconciler.definitions s ON s.name = d.job_name
  LEFT JOIN reconciler.declared_policies p ON p.name = d.job_name
 WHERE d.job_name = ANY (%(names)b::text[])
   AND NOT EXISTS (SELECT FROM reconciler.jobs_finished f WHERE f.job_name = d.job_name AND f.once)
    ON CONFLICT (job_name) WHERE once DO UPDATE
   SET run_at = excluded.run_at, active = excluded.active, handler = excluded.handler, queue = excluded.queue,
       payload = excluded.payload, ordering_key = excluded.ordering_key, max_attempts = excluded.max_attempts,
       timeout = excluded.timeout
 WHERE j.status = 'pending';

-- name: put_policies
-- A role that cannot see the server's zone leaves it as whoever could has written it.
INSERT INTO reconciler.policies AS p
SELECT n.*, coalesce(%(zone)s::text, old.zone, (SELECT max(zone) FROM reconciler.policies), 'GMT'), d.digest
  FROM reconciler.declared_policies n
  JOIN reconciler.definitions d ON d.name = n.name
  LEFT JOIN reconciler.policies old ON old.name = n.name
 WHERE n.name = ANY (%(names)b::text[])
    ON CONFLICT (name) DO UPDATE
   SET timeout = excluded.timeout, concurrency = excluded.concurrency, catch_up = excluded.catch_up,
       retries = excluded.retries, backoff_initial = excluded.backoff_initial,
       backoff_factor = excluded.backoff_factor, backoff_max = excluded.backoff_max, jitter = excluded.jitter,
       alert_after = excluded.alert_after, alert_on = excluded.alert_on, channels = excluded.channels,
       slow_limit = excluded.slow_limit, slow_factor = excluded.slow_factor, remind = excluded.remind,
       after = excluded.after, zone = excluded.zone, digest = excluded.digest
 WHERE p.digest <> excluded.digest OR p.zone <> excluded.zone;

-- name: put_timings
-- After the policies: the zone may decide whether there is anything to say.
WITH gone AS (
    DELETE FROM reconciler.timings
     WHERE name = ANY (%(names)b::text[]) AND name NOT IN (SELECT name FROM reconciler.declared_timings)
)
INSERT INTO reconciler.timings AS t
SELECT * FROM reconciler.declared_timings WHERE name = ANY (%(names)b::text[])
    ON CONFLICT (name) DO UPDATE
   SET schedule = excluded.schedule, every = excluded.every, anchor = excluded.anchor, zone = excluded.zone,
       ambiguous = excluded.ambiguous, nonexistent = excluded.nonexistent, shift = excluded.shift,
       start_at = excluded.start_at, end_at = excluded.end_at, blackout = excluded.blackout
 WHERE t IS DISTINCT FROM excluded;

-- name: put_zone
-- After a migration: what an earlier release left says nothing of the zone.
UPDATE reconciler.policies SET zone = %(zone)s::text WHERE zone <> %(zone)s::text;

-- name: put_all_timings
-- The zone that was just written decides which jobs have one.
WITH gone AS (
    DELETE FROM reconciler.timings WHERE name NOT IN (SELECT name FROM reconciler.declared_timings)
)
INSERT INTO reconciler.timings SELECT * FROM reconciler.declared_timings ON CONFLICT (name) DO NOTHING;

-- name: put_job_states
-- The next fire is computed anew only where zone, schedule or timing changed: a run that is just being missed is not
-- forgotten because its body was edited. Many jobs share few schedules. pg_cron sees a change a moment after the
-- commit, which is long after now() where an apply is slow: what would be due before that is not to be expected, nor
-- is it begun by an entry that comes later (fired_at).
WITH jobs AS MATERIALIZED (
    SELECT p.name, d.schedule, p.zone, t AS timing, now.basis
      FROM reconciler.policies p
      JOIN reconciler.definitions d ON d.name = p.name
      LEFT JOIN reconciler.timings t ON t.name = p.name
     CROSS JOIN LATERAL (
           SELECT CASE WHEN d.active THEN p.zone || ' ' || d.schedule ||
                       CASE WHEN t.name IS NULL THEN '' ELSE ' ' || reconciler.digest_timing(t) END END AS basis) AS now
      LEFT JOIN reconciler.job_states s ON s.name = p.name
     WHERE s.name IS NULL OR s.basis IS DISTINCT FROM now.basis
), fires AS MATERIALIZED (
    SELECT basis, reconciler.find_due(timing, schedule, clock_timestamp() + interval '5 seconds', zone) AS at
      FROM (SELECT DISTINCT ON (basis) basis, timing, schedule, zone FROM jobs WHERE basis IS NOT NULL) AS different
)
INSERT INTO reconciler.job_states AS s (name, basis, next_due_at, fired_at)
SELECT jobs.name, jobs.basis, fires.at, CASE WHEN (jobs.timing).name IS NOT NULL THEN clock_timestamp() END
  FROM jobs LEFT JOIN fires ON fires.basis = jobs.basis
    ON CONFLICT (name) DO UPDATE
   SET basis = excluded.basis, next_due_at = excluded.next_due_at, fired_at = coalesce(excluded.fired_at, s.fired_at);

-- name: remind_launcher
-- One entry that this role may alter, unchanged; the write alone makes pg_cron look.
SELECT cron.alter_job(jobid, active := active)
  FROM (SELECT j.jobid, j.active FROM reconciler.definitions d JOIN cron.job j ON j.jobid = d.jobid
         WHERE j.username = current_user OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
         ORDER BY j.username = current_user DESC, j.jobid LIMIT 1) AS one;
