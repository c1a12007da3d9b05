-- name: begin
-- One snapshot for all that follows, and a short one: a transaction that stays open holds up vacuum everywhere.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;
SET LOCAL jit = off;
SET LOCAL statement_timeout = '5s';
SET LOCAL lock_timeout = '1s';

-- name: read_server
-- What the role may see decides what is told: what cannot be seen is null, and never 0.
WITH me AS (
    SELECT rolsuper OR pg_has_role('pg_read_all_stats', 'USAGE') AS sees_stats
      FROM pg_roles WHERE rolname = current_user
), cron AS (
    SELECT coalesce(bool_or(has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
                            AND NOT row_security_active(c.oid)), false) AS use_cron
      FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'job'
     WHERE n.nspname = 'cron'
), activity AS (
    -- This transaction has a snapshot, too.
    SELECT bool_or(a.backend_type = 'pg_cron launcher')                                 AS has_launcher,
           max(age(a.backend_xmin)) FILTER (WHERE a.pid <> pg_backend_pid())            AS xmin_age,
           max(extract(epoch FROM clock_timestamp() - a.xact_start))
               FILTER (WHERE a.pid <> pg_backend_pid() AND a.datname = current_database()
                         AND a.backend_type = 'client backend')                         AS transaction_age
      FROM pg_stat_activity a
), slots AS (
    SELECT max(greatest(age(s.xmin), age(s.catalog_xmin))) AS xmin_age FROM pg_replication_slots s
)
SELECT (SELECT coalesce(max(m.number), 0) FROM reconciler.migrations m)                 AS schema_version,
       (SELECT coalesce(max(l.id), 0) FROM reconciler.cron_execution_log l)             AS newest_run,
       pg_snapshot_xmin(pg_current_snapshot())::text::bigint                            AS xmin,
       pg_snapshot_xmax(pg_current_snapshot())::text::bigint                            AS xmax,
       cron.use_cron,
       CASE WHEN me.sees_stats THEN coalesce(activity.has_launcher, false) END          AS has_launcher,
       CASE WHEN me.sees_stats THEN greatest(activity.xmin_age, slots.xmin_age, 0) END  AS xmin_age,
       CASE WHEN me.sees_stats THEN coalesce(activity.transaction_age, 0)::double precision END
                                                                                        AS transaction_age,
       (SELECT coalesce(sum(t.n_dead_tup), 0)::bigint FROM pg_stat_user_tables t
         WHERE t.schemaname = 'reconciler' AND t.relname = 'jobs_open')                 AS dead_open,
       (SELECT coalesce(sum(t.n_dead_tup), 0)::bigint FROM pg_stat_user_tables t
         WHERE t.schemaname = 'reconciler' AND t.relname = 'jobs_finished')             AS dead_finished,
       clock_timestamp()                                                                AS now
  FROM me, cron, activity, slots;

-- name: read_owners
-- Overdue is what has been due for two minutes and is not in the log; the tick looks once a minute.
SELECT d.owner,
       count(*) FILTER (WHERE d.kind = 'job')                                           AS jobs,
       count(*) FILTER (WHERE d.kind = 'worker')                                        AS workers,
       count(*) FILTER (WHERE d.kind = 'queue')                                         AS queues,
       count(*) FILTER (WHERE d.kind = 'channel')                                       AS channels,
       count(p.job_name)                                                                AS paused,
       count(*) FILTER (WHERE s.consecutive_failures > 0 AND d.retired_until IS NULL)   AS failing,
       count(*) FILTER (WHERE s.next_due_at < statement_timestamp() - interval '2 minutes' AND d.active
                          AND d.retired_until IS NULL)                                  AS overdue,
       coalesce(sum(s.missed_runs), 0)::bigint                                          AS missed_runs,
       r.id                                                                             AS revision,
       r.applied_at
  FROM reconciler.definitions d
  LEFT JOIN reconciler.job_states s ON s.name = d.name
  LEFT JOIN reconciler.pauses p ON p.job_name = d.name AND (p.until IS NULL OR p.until > statement_timestamp())
  LEFT JOIN (
       SELECT o.owner, newest.id, newest.applied_at
         FROM (SELECT DISTINCT owner FROM reconciler.definitions) AS o
        CROSS JOIN LATERAL (SELECT r.id, r.applied_at FROM reconciler.revisions r
                             WHERE r.owner = o.owner ORDER BY r.id DESC LIMIT 1) AS newest) AS r ON r.owner = d.owner
 GROUP BY d.owner, r.id, r.applied_at
 ORDER BY d.owner;

-- name: read_jobs
-- Counts of managed jobs outlive the log. What is handed to pg_cron as it is has pg_cron's newest records alone, and no
-- count; they are not read where there is no such job.
WITH direct AS MATERIALIZED (
    SELECT d.jobid FROM reconciler.definitions d
     WHERE d.kind = 'job' AND d.spec ->> 'mode' = 'direct' AND d.jobid IS NOT NULL
), details AS (
    SELECT n.jobid, max(n.start_time) AS last_run_at,
           max(n.end_time) FILTER (WHERE n.status = 'succeeded')                        AS last_succeeded_at,
           (array_agg(n.end_time - n.start_time ORDER BY n.runid DESC))[1]              AS last_duration,
           count(*) FILTER (WHERE n.status = 'failed' AND n.runid > coalesce(n.good, 0)) AS failures
      FROM (SELECT r.*, max(r.runid) FILTER (WHERE r.status = 'succeeded') OVER (PARTITION BY r.jobid) AS good
              FROM (SELECT WHERE EXISTS (SELECT FROM direct)) AS has
             CROSS JOIN LATERAL reconciler.list_details() AS r
             WHERE r.jobid IN (SELECT direct.jobid FROM direct) AND r.status IN ('succeeded', 'failed')) AS n
     GROUP BY n.jobid
)
SELECT d.owner, d.name, p.job_name IS NOT NULL                                          AS is_paused,
       s.total_runs, s.failed_runs, s.missed_runs,
       coalesce(s.consecutive_failures, details.failures)                               AS failures,
       coalesce(s.last_run_at, details.last_run_at)                                     AS last_run_at,
       coalesce(s.last_succeeded_at, details.last_succeeded_at)                         AS last_succeeded_at,
       extract(epoch FROM coalesce(s.last_duration, details.last_duration))::double precision AS last_duration,
       CASE WHEN d.active AND d.retired_until IS NULL AND s.next_due_at IS NOT NULL
            THEN greatest(extract(epoch FROM statement_timestamp() - s.next_due_at), 0)::double precision END
                                                                                        AS overdue
  FROM reconciler.definitions d
  LEFT JOIN reconciler.job_states s ON s.name = d.name
  LEFT JOIN details ON details.jobid = d.jobid AND s.name IS NULL
  LEFT JOIN reconciler.pauses p ON p.job_name = d.name AND (p.until IS NULL OR p.until > statement_timestamp())
 WHERE d.kind IN ('job', 'worker')
 ORDER BY d.owner, d.name;

-- name: read_running
SELECT l.id, coalesce(d.owner, '') AS owner, coalesce(d.name, l.job_name) AS name,
       coalesce(l.deadline_at < statement_timestamp(), false) AS is_overdue
  FROM reconciler.cron_execution_log l
  LEFT JOIN reconciler.definitions d ON d.id = l.definition_id
 WHERE l.status = 'running';

-- name: read_log
-- What is new in the log, and what has become of the runs that were not over when it was read last.
SELECT l.id, coalesce(d.owner, '') AS owner, l.status, l.run_at, l.completed_at, l.trigger, l.attempt, l.due_at,
       l.start_id IS NOT NULL AS is_put_off, d.schedule, coalesce(p.zone, 'GMT') AS zone,
       t.schedule IS NOT NULL OR t.every IS NOT NULL AS has_rule, s.fired_at
  FROM (
    (SELECT n.* FROM reconciler.cron_execution_log n WHERE n.id > %(after)s ORDER BY n.id LIMIT %(limit)s)
    UNION ALL
    SELECT o.* FROM reconciler.cron_execution_log o WHERE o.id = ANY (%(ids)s::bigint[])
  ) AS l
  LEFT JOIN reconciler.definitions d ON d.id = l.definition_id
  LEFT JOIN reconciler.policies p ON p.name = d.name
  LEFT JOIN reconciler.timings t ON t.name = d.name
  LEFT JOIN reconciler.job_states s ON s.name = d.name
 ORDER BY l.id;

-- name: read_rest
SELECT (SELECT coalesce(jsonb_object_agg(a.kind, a.found), '{}')
          FROM (SELECT kind, count(*) AS found FROM reconciler.alerts WHERE resolved_at IS NULL GROUP BY kind) AS a)
                                                                                        AS alerts,
       deliveries.waiting AS deliveries_waiting, deliveries.age AS deliveries_age,
       starts.waiting AS starts_waiting, starts.age AS starts_age,
       workers.alive AS workers_alive, workers.slots AS worker_slots,
       claims.held AS claims_held, claims.expired AS claims_expired
  FROM (SELECT count(*) AS waiting,
               coalesce(extract(epoch FROM statement_timestamp() - min(due_at)), 0)::double precision AS age
          FROM reconciler.alert_deliveries
         WHERE status = 'pending' AND due_at <= statement_timestamp()) AS deliveries,
       (SELECT count(*) AS waiting,
               coalesce(extract(epoch FROM statement_timestamp() - min(due_at)), 0)::double precision AS age
          FROM reconciler.starts WHERE due_at <= statement_timestamp()) AS starts,
       (SELECT count(*) AS alive, coalesce(sum(concurrency), 0)::bigint AS slots
          FROM reconciler.pull_workers WHERE seen_at > statement_timestamp() - interval '1 minute') AS workers,
       (SELECT count(*) AS held, count(*) FILTER (WHERE lease_until < statement_timestamp()) AS expired
          FROM reconciler.jobs_open WHERE status = 'running' AND handler IS NOT NULL) AS claims;
