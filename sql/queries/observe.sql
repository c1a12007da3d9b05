-- name: observe_facts
-- Catalogs only: neither cron nor reconciler need be there, and no right but CONNECT is needed.
-- current_setting() raises on pg_cron's settings for ordinary roles; pg_settings just leaves them out.
WITH cron AS (
    SELECT c.oid AS job
      FROM pg_namespace n LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'job'
     WHERE n.nspname = 'cron'
), ours AS (
    SELECT n.oid AS schema,
           max(c.oid::bigint) FILTER (WHERE c.relname = 'definitions')::oid AS definitions,
           coalesce(bool_or(c.relname = 'policies'), false) AS has_policies,
           coalesce(bool_or(c.relname = 'timings'), false) AS has_timings,
           coalesce(bool_or(c.relname = 'identity'), false) AS has_identity,
           max(c.oid::bigint) FILTER (WHERE c.relname = 'cron_execution_log')::oid AS log,
           max(c.oid::bigint) FILTER (WHERE c.relname = 'secrets')::oid AS secrets,
           -- What a plan reads, and what an apply writes.
           coalesce(bool_and(has_table_privilege(c.oid, 'SELECT'))
                    FILTER (WHERE c.relname IN ('migrations', 'definitions', 'queues', 'workers', 'jobs', 'policies',
                                                'timings', 'pauses', 'identity')), false) AS readable,
           coalesce(bool_and(has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE')
                             AND has_table_privilege(c.oid, 'DELETE'))
                    FILTER (WHERE c.relname IN ('definitions', 'queues', 'workers', 'jobs', 'policies', 'timings',
                                                'dependencies', 'job_states', 'starts', 'pauses', 'identity')), false)
               AS writable
      FROM pg_namespace n
      LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind = 'r'
     WHERE n.nspname = 'reconciler'
     GROUP BY n.oid
), routines AS (
    SELECT coalesce(bool_or(has_function_privilege(p.oid, 'EXECUTE'))
                    FILTER (WHERE p.proname = 'schedule'), false)             AS schedule,
           coalesce(bool_or(has_function_privilege(p.oid, 'EXECUTE'))
                    FILTER (WHERE p.proname = 'schedule_in_database'), false) AS schedule_in_database,
           coalesce(bool_or(has_function_privilege(p.oid, 'EXECUTE'))
                    FILTER (WHERE p.proname = 'alter_job'), false)            AS alter_job
      FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
     WHERE n.nspname = 'cron'
), me AS (
    SELECT rolsuper AS superuser,
           rolsuper OR pg_has_role('pg_read_all_stats', 'USAGE') AS sees_stats
      FROM pg_roles WHERE rolname = current_user
), launcher AS (
    SELECT count(*) > 0 AS running,
           -- A young launcher is no sign of trouble on a server that has just started.
           min(extract(epoch FROM clock_timestamp() - backend_start))
               FILTER (WHERE pg_postmaster_start_time() < clock_timestamp() - interval '1 minute')::float8 AS age
      FROM pg_stat_activity WHERE backend_type = 'pg_cron launcher'
)
SELECT current_setting('server_version_num')::integer                                   AS server_version,
       current_database()::text                                                         AS database,
       current_user::text                                                               AS role,
       pg_is_in_recovery()                                                              AS in_recovery,
       coalesce((SELECT extversion FROM pg_extension WHERE extname = 'pg_cron'), '')    AS extension,
       coalesce((SELECT default_version FROM pg_available_extensions WHERE name = 'pg_cron'), '')
                                                                                        AS extension_default,
       ARRAY(SELECT extname::text FROM pg_extension
              WHERE extname IN ('http', 'pg_net', 'supabase_vault'))                    AS extensions,
       coalesce((SELECT jsonb_object_agg(substr(name, 6), setting)
                   FROM pg_settings WHERE name LIKE 'cron.%'), '{}')                    AS settings,
       (SELECT setting ~ '\mpg_cron\M' FROM pg_settings WHERE name = 'shared_preload_libraries')
                                                                                        AS preloaded,
       CASE WHEN me.sees_stats THEN launcher.running END                        AS launcher_running,
       CASE WHEN me.sees_stats THEN launcher.age END                                    AS launcher_age,
       me.superuser                                                                     AS superuser,
       CASE WHEN cron.job IS NULL THEN true ELSE NOT row_security_active(cron.job) END  AS sees_all,
       cron.job IS NOT NULL AND has_schema_privilege('cron', 'USAGE')
           AND has_table_privilege(cron.job, 'SELECT')                                  AS use_cron,
       routines.schedule                                                                AS schedule,
       routines.schedule_in_database                                                    AS schedule_in_database,
       routines.alter_job                                                               AS alter_job,
       cron.job IS NOT NULL AND has_table_privilege(cron.job, 'UPDATE')                 AS update_entries,
       has_database_privilege(current_database(), 'CREATE')                             AS create_schema,
       ours.definitions IS NOT NULL AND ours.writable                                   AS write_definitions,
       ours.definitions IS NOT NULL                                                     AS has_definitions,
       coalesce(ours.has_policies, false)                                               AS has_policies,
       coalesce(ours.has_timings, false)                                                AS has_timings,
       coalesce(ours.has_identity, false)                                               AS has_identity,
       ours.log IS NOT NULL AND has_table_privilege(ours.log, 'SELECT')                 AS sees_runs,
       now()                                                                            AS now,
       ours.secrets IS NOT NULL AND has_table_privilege(ours.secrets, 'SELECT')
           AND NOT row_security_active(ours.secrets)                                    AS sees_secrets,
       coalesce(ours.readable, false)
           AND has_schema_privilege(ours.schema, 'USAGE')                               AS read_definitions
  FROM me, launcher, routines
  LEFT JOIN cron ON true
  LEFT JOIN ours ON true;

-- name: observe_migrations
SELECT number, checksum FROM reconciler.migrations ORDER BY number;

-- name: observe_identity
SELECT reconciler.judge_home(), i.targets, i.recorded_at, i.recorded_by,
       i.system_identifier, i.database, i.database_oid::bigint, i.server_major,
       reconciler.read_system_identifier(), d.datname::text, d.oid::bigint,
       current_setting('server_version_num')::integer / 10000
  FROM reconciler.identity i JOIN pg_database d ON d.datname = current_database();

-- name: observe_definitions
SELECT name, kind, owner, spec::text, digest = encode(sha256(convert_to(spec::text, 'UTF8')), 'hex'),
       jobid, schedule, command, database, username, active, protect, source, d.retired_until
  -- The column of the outer row is meant where an earlier release made the table.
  FROM (SELECT NULL::timestamptz AS retired_until) AS none
 CROSS JOIN LATERAL (
       SELECT name, kind, owner, spec, digest, jobid, schedule, command, database, username, active, protect, source,
              retired_until
         FROM reconciler.definitions) AS d;

-- name: observe_queues
-- What declared queues have to do; counting ends at a thousand, in the order of an index, so that a million that wait
-- are not looked at. What is held (active = false) is a declared job's and goes with it.
SELECT d.name, ready.jobs + ordered.jobs, running.jobs, dead.jobs
  FROM reconciler.definitions d
 CROSS JOIN LATERAL (
       SELECT count(*) AS jobs FROM (
              SELECT FROM reconciler.jobs j
               WHERE j.queue = d.name AND j.status = 'pending' AND j.ordering_key IS NULL AND j.handler IS NOT NULL
                 AND j.active
               ORDER BY j.priority DESC, j.run_at, j.id LIMIT 1000) AS found) AS ready
 CROSS JOIN LATERAL (
       SELECT count(*) AS jobs FROM (
              SELECT FROM reconciler.jobs j
               WHERE j.queue = d.name AND j.status = 'pending' AND j.ordering_key IS NOT NULL
                 AND j.handler IS NOT NULL AND j.active
               ORDER BY j.ordering_key, j.run_at, j.id LIMIT 1000) AS found) AS ordered
 CROSS JOIN LATERAL (
       SELECT count(*) AS jobs FROM (
              SELECT FROM reconciler.jobs j WHERE j.queue = d.name AND j.status = 'running' LIMIT 1000) AS found
       ) AS running
 CROSS JOIN LATERAL (
       SELECT count(*) AS jobs FROM (
              SELECT FROM reconciler.jobs j WHERE j.queue = d.name AND j.status = 'failed'
               ORDER BY j.completed_at LIMIT 1000) AS found
       ) AS dead
 WHERE d.kind = 'queue' AND (ready.jobs > 0 OR ordered.jobs > 0 OR running.jobs > 0 OR dead.jobs > 0);

-- name: observe_entries
-- jobname is of type name in pg_cron 1.3 and 1.4, of type text since 1.5.
SELECT jobid, jobname::text, schedule, command, database, username, active FROM cron.job;

-- name: observe_drifted_rows
-- Rows of queues, workers and pending one-time jobs that are not as their definitions say.
SELECT d.name, CASE WHEN q.name IS NOT NULL THEN to_jsonb(q) END, to_jsonb(d)
  FROM reconciler.declared_queues d LEFT JOIN reconciler.queues q ON q.name = d.name
 WHERE q.name IS NULL OR to_jsonb(q) <> to_jsonb(d)
UNION ALL
SELECT d.name, CASE WHEN w.name IS NOT NULL THEN to_jsonb(w) END, to_jsonb(d)
  FROM reconciler.declared_workers d LEFT JOIN reconciler.workers w ON w.name = d.name
 WHERE w.name IS NULL OR to_jsonb(w) <> to_jsonb(d)
UNION ALL
SELECT d.job_name, CASE WHEN j.id IS NOT NULL THEN to_jsonb(j) END, to_jsonb(d)
  FROM reconciler.declared_jobs d LEFT JOIN reconciler.jobs j ON j.job_name = d.job_name AND j.once
 -- A row that is gone may have been cleared away after its run: only one that is still due comes back.
 WHERE (j.id IS NULL AND d.run_at > now()) OR (j.status = 'pending' AND (
       j.run_at, j.active, j.handler, j.queue, j.payload) IS DISTINCT FROM (
       d.run_at, d.active, d.handler, d.queue, d.payload));

-- name: observe_drifted_policies
-- The digest says of most rows that nobody touched them; only the others are compared column by column. Who cannot
-- see the server's zone takes it as it was applied.
WITH doubtful AS MATERIALIZED (
    SELECT d.name, CASE WHEN p.name IS NOT NULL THEN to_jsonb(p) - 'digest' END AS observed,
           coalesce(%(zone)s::text, p.zone, 'GMT') AS zone
      FROM reconciler.definitions d LEFT JOIN reconciler.policies p ON p.name = d.name
     WHERE d.kind IN ('job', 'worker') AND (p.digest IS DISTINCT FROM d.digest OR p.zone <> %(zone)s::text)
       AND (p.name IS NOT NULL OR coalesce(d.spec ->> 'mode', 'managed') = 'managed')
), compared AS (
    SELECT o.name, o.observed, to_jsonb(n) || jsonb_build_object('zone', o.zone) AS applied
      FROM doubtful o JOIN reconciler.declared_policies n ON n.name = o.name
)
SELECT name, observed, applied FROM compared WHERE observed IS DISTINCT FROM applied;

-- name: observe_drifted_timings
-- Few jobs have a row. What is in none of the two is null: a row that is gone, or that nobody declared.
SELECT name, to_jsonb(t) - 'zone' || jsonb_build_object('timezone', t.zone),
       to_jsonb(n) - 'zone' || jsonb_build_object('timezone', n.zone)
  FROM reconciler.timings t FULL JOIN reconciler.declared_timings n USING (name)
 WHERE ROW(t.*) IS DISTINCT FROM ROW(n.*);

-- name: observe_running
-- What waits for a worker may be many: the oldest are enough to know of it.
SELECT job_name, id, run_at FROM reconciler.cron_execution_log WHERE status = 'running' ORDER BY id LIMIT 1000;

-- name: ask_zones
-- Nobody knows how many rows a recursion makes; compiling for the many that are expected takes far longer than it.
SELECT set_config('reconciler.zones', to_json(%(zones)s::text[])::text, true), set_config('jit', 'off', true);

-- name: probe_zones
-- Which of them the server knows, and by which name AT TIME ZONE does: it takes some for abbreviations, which have no
-- summer time. pg_timezone_names would read all the zones there are from the disk; a block returns nothing itself.
DO $$
DECLARE
    asked text;
    place text;
    known jsonb := '{}';
    probe timestamp;
BEGIN
    FOR asked IN SELECT DISTINCT zone FROM json_array_elements_text(current_setting('reconciler.zones')::json) AS zone
    LOOP
        place := CASE upper(asked)
            WHEN 'CET' THEN 'Europe/Brussels' WHEN 'MET' THEN 'Europe/Brussels' WHEN 'EET' THEN 'Europe/Athens'
            WHEN 'WET' THEN 'Europe/Lisbon' WHEN 'EST' THEN 'America/Panama' WHEN 'MST' THEN 'America/Phoenix'
            WHEN 'HST' THEN 'Pacific/Honolulu' ELSE asked END;
        BEGIN
            probe := now() AT TIME ZONE place;
            known := known || jsonb_build_object(asked, place);
        EXCEPTION WHEN invalid_parameter_value THEN
            NULL;
        END;
    END LOOP;
    PERFORM set_config('reconciler.zones', known::text, true);
END
$$;

-- name: observe_clocks
-- From when on the clocks of each zone are how many seconds ahead of UTC. Days are compared that lie five apart, and
-- where the offset differs the first minute is looked for that has the new one, by halves.
WITH RECURSIVE zones AS MATERIALIZED (
    SELECT key AS zone, value AS place FROM jsonb_each_text(current_setting('reconciler.zones')::jsonb)
), bounds AS (
    SELECT make_timestamp(year - 1, 1, 1, 0, 0, 0) AS low, make_timestamp(year + 11, 1, 1, 0, 0, 0) AS high
      FROM (SELECT date_part('year', now() AT TIME ZONE 'UTC')::integer AS year) AS this
), samples AS (
    SELECT zone, place, at, (at AT TIME ZONE 'UTC' AT TIME ZONE place) - at AS ahead,
           lag(at) OVER of_zone AS early,
           lag((at AT TIME ZONE 'UTC' AT TIME ZONE place) - at) OVER of_zone AS before
      FROM zones CROSS JOIN bounds CROSS JOIN LATERAL generate_series(low, high, interval '5 days') AS at
    WINDOW of_zone AS (PARTITION BY zone ORDER BY at)
), halves AS (
    SELECT zone, place, early, at AS late, before, ahead FROM samples WHERE before <> ahead
    UNION ALL
    SELECT zone, place, CASE WHEN is_late THEN early ELSE middle END, CASE WHEN is_late THEN middle ELSE late END,
           before, ahead
      FROM (SELECT h.*, m.middle, (m.middle AT TIME ZONE 'UTC' AT TIME ZONE place) - m.middle <> before AS is_late
              FROM halves h
             CROSS JOIN LATERAL (SELECT date_trunc('minute', early + (late - early) / 2) AS middle) AS m
             WHERE m.middle > h.early) AS split
)
SELECT zone, late AT TIME ZONE 'UTC', extract(epoch FROM ahead)::integer FROM halves
 WHERE late - early <= interval '1 minute'
UNION ALL
SELECT zone, at AT TIME ZONE 'UTC', extract(epoch FROM ahead)::integer FROM samples WHERE early IS NULL
 ORDER BY 1, 2;

-- name: observe_pauses
SELECT job_name, until, reason, paused_by FROM reconciler.pauses
 WHERE until IS NULL OR until > clock_timestamp();

-- name: observe_secrets
-- Names alone: no value leaves its store.
SELECT name FROM reconciler.secrets;

-- name: observe_settled_jobs
SELECT job_name FROM reconciler.jobs WHERE once AND status <> 'pending';

-- name: observe_dangers
-- A COPY counts where it begins a statement, after any comments; one in a string may be taken for it.
-- Roles and databases are looked at once for each pair of them, not for each of many entries.
WITH pairs AS (
    SELECT DISTINCT username, database FROM cron.job
), bad AS (
    SELECT p.username, p.database, danger.code, danger.detail
      FROM pairs p
      LEFT JOIN pg_roles r ON r.rolname = p.username
      LEFT JOIN pg_database b ON b.datname = p.database
     CROSS JOIN LATERAL (VALUES
           ('unknown_role',     r.rolname IS NULL,                       p.username),
           ('no_login',         NOT r.rolcanlogin,                       p.username),
           ('superuser',        r.rolsuper AND EXISTS (
                                    SELECT FROM pg_settings
                                     WHERE name = 'cron.enable_superuser_jobs' AND setting = 'off'),
                                p.username),
           ('unknown_database', b.datname IS NULL OR NOT b.datallowconn, p.database),
           ('no_connect',       NOT has_database_privilege(r.oid, b.oid, 'CONNECT'),
                                p.username || ' in ' || p.database)
           ) AS danger (code, found, detail)
     WHERE danger.found
)
SELECT bad.code, j.jobid, coalesce(j.jobname::text, ''), bad.detail
  FROM bad JOIN cron.job j ON j.username = bad.username AND j.database = bad.database
UNION ALL
SELECT 'copy', jobid, coalesce(jobname::text, ''), ''
  FROM cron.job
 WHERE command ~* '(^|;)(\s|--[^\n]*\n|/\*([^*]|\*+[^*/])*\*+/)*copy\M.*\m(to\s+stdout|from\s+stdin)\M'
UNION ALL
SELECT 'other_node', jobid, coalesce(jobname::text, ''), nodename || ':' || nodeport
  FROM cron.job
 WHERE nodename IN ('localhost', '127.0.0.1', '::1', '') AND nodeport <> current_setting('port')::integer
 ORDER BY 2, 1;
