-- What is no longer declared is retired before it is deleted: its entry stands still, and nothing of it starts, until
-- its grace is over. A run that goes on goes on.

ALTER TABLE reconciler.definitions
    ADD COLUMN retired_at    timestamptz,
    ADD COLUMN retired_until timestamptz,
    ADD CHECK ((retired_at IS NULL) = (retired_until IS NULL));
COMMENT ON COLUMN reconciler.definitions.retired_until IS
    'No longer declared, and deleted by the first apply after this; null for what is declared';

-- As before; one-time work of what is retired is held.
CREATE OR REPLACE VIEW reconciler.declared_jobs AS
SELECT name                                                         AS job_name,
       (spec ->> 'once')::timestamptz                               AS run_at,
       coalesce((spec ->> 'active')::boolean, true) AND retired_until IS NULL AS active,
       spec ->> 'handler'                                           AS handler,
       coalesce(spec ->> 'queue', 'default')                        AS queue,
       coalesce((spec -> 'payload')::jsonb, '{}')                   AS payload
  FROM reconciler.definitions
 WHERE kind = 'job' AND (spec ->> 'once') IS NOT NULL;

CREATE FUNCTION reconciler.describe_retired(definition reconciler.definitions) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('retired until %s UTC', to_char(definition.retired_until AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'))
$$;

CREATE FUNCTION reconciler.refuse_retired(definition reconciler.definitions) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'the job % is %', definition.name, reconciler.describe_retired(definition)
        USING ERRCODE = 'object_not_in_prerequisite_state',
              HINT = format('The files no longer declare it; reconciler restore %s brings it back.', definition.name);
END
$$;
REVOKE EXECUTE ON FUNCTION reconciler.describe_retired, reconciler.refuse_retired FROM PUBLIC;

-- As before, without what is retired.
CREATE OR REPLACE FUNCTION reconciler.start_dependents(job_name text) RETURNS void
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    dependent record;
BEGIN
    FOR dependent IN
        SELECT p.name, p.after,
               -- A job of its own time waits, also where this target has no entry for it.
               NOT d.spec::jsonb ?| ARRAY['schedule', 'every', 'daily', 'weekly', 'monthly', 'once'] AS is_triggered
          FROM reconciler.dependencies o
          JOIN reconciler.policies p ON p.name = o.job_name
          JOIN reconciler.definitions d ON d.name = p.name
         WHERE o.after_name = start_dependents.job_name
           AND coalesce((d.spec ->> 'active')::boolean, true) AND d.retired_until IS NULL
         ORDER BY p.name
    LOOP
        CONTINUE WHEN reconciler.find_unmet(dependent.name, dependent.after) <> '{}';
        IF dependent.is_triggered THEN
            INSERT INTO reconciler.starts (job_name, trigger, due_at)
            VALUES (dependent.name, 'dependency', clock_timestamp())
                ON CONFLICT (job_name, trigger, coalesce(scheduled_at, '-infinity')) DO NOTHING;
        ELSE
            UPDATE reconciler.starts s SET due_at = clock_timestamp()
             WHERE s.job_name = dependent.name AND s.trigger = 'dependency' AND s.due_at = 'infinity';
        END IF;
    END LOOP;
END
$$;

-- As before; a request for what is retired is refused.
CREATE OR REPLACE FUNCTION reconciler.request_run(job_name text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    definition reconciler.definitions := reconciler.find_managed(job_name);
    requested bigint;
BEGIN
    IF definition.retired_until IS NOT NULL THEN
        PERFORM reconciler.refuse_retired(definition);
    END IF;
    -- Asking twice before it began is asking once.
    INSERT INTO reconciler.starts AS s (job_name, trigger, due_at)
    VALUES (definition.name, 'manual', clock_timestamp())
        ON CONFLICT (job_name, trigger, coalesce(scheduled_at, '-infinity')) DO UPDATE SET due_at = s.due_at
    RETURNING s.id INTO requested;
    RETURN requested;
END
$$;

-- As before.
CREATE OR REPLACE FUNCTION reconciler.send_reminders() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- A job that is not declared any more, or has another name, will not resolve it, nor will a retired one.
    UPDATE reconciler.alerts a SET resolved_at = clock_timestamp()
     WHERE a.resolved_at IS NULL AND a.kind IN ('failed', 'missed', 'slow', 'lost')
       AND NOT EXISTS (SELECT FROM reconciler.definitions d WHERE d.name = a.job_name
                          AND d.retired_until IS NULL);
    WITH reminded AS (
        UPDATE reconciler.alerts a SET notified_at = clock_timestamp()
         WHERE a.resolved_at IS NULL AND a.channels <> '{}' AND a.notified_at + a.remind <= clock_timestamp()
        RETURNING a.id, a.channels
    )
    INSERT INTO reconciler.alert_deliveries (alert_id, channel, reminder)
    SELECT r.id, channel, 1 + (SELECT coalesce(max(o.reminder), 0) FROM reconciler.alert_deliveries o
                                WHERE o.alert_id = r.id AND o.channel = c.channel)
      FROM reminded r CROSS JOIN unnest(r.channels) AS c (channel)
        ON CONFLICT DO NOTHING;
    IF FOUND THEN
        PERFORM pg_notify('reconciler_alerts', '');
    END IF;
    RETURN NULL;
END
$$;

-- As before, with the end of the grace last; what is retired is neither due nor late.
CREATE OR REPLACE VIEW reconciler.cron_job_health AS
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
       CASE WHEN j.active AND d.retired_until IS NULL THEN
           reconciler.find_due(t, j.schedule, clock_timestamp(),
               -- The zone in which pg_cron reads schedules, as the last apply saw it.
               coalesce(p.zone, (SELECT zone FROM reconciler.policies LIMIT 1), 'GMT'))
       END                                                              AS next_run_time,
       -- For how long a run has been due that is not in the log.
       CASE WHEN (j.active OR j.jobid IS NULL AND d.active) AND d.retired_until IS NULL THEN
           greatest(clock_timestamp() - s.next_due_at, interval '0')
       END                                                              AS lateness,
       coalesce(usual.p50, details.p50_duration)                        AS p50_duration,
       coalesce(usual.p95, details.p95_duration)                        AS p95_duration,
       coalesce(s.consecutive_failures, details.consecutive_failures, 0) AS consecutive_failures,
       -- What the run that goes on was put on its queue as.
       now_running.queued                                               AS queued_job_id,
       d.retired_until
  FROM reconciler.definitions d
  LEFT JOIN reconciler.list_entries() j ON j.jobid = d.jobid
  LEFT JOIN reconciler.policies p ON p.name = d.name
  LEFT JOIN reconciler.timings t ON t.name = d.name
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

-- As before, with the end of the grace last.
CREATE OR REPLACE VIEW reconciler.scheduled_jobs AS
SELECT d.name, d.kind, d.owner, d.spec ->> 'description' AS description,
       CASE WHEN d.schedule IS NOT NULL THEN 'schedule' WHEN d.spec ->> 'once' IS NOT NULL THEN 'once'
            WHEN d.spec -> 'after' IS NOT NULL THEN 'after' ELSE 'none' END AS trigger,
       d.schedule, (d.spec ->> 'once')::timestamptz AS run_at,
       CASE WHEN json_typeof(d.spec -> 'after') = 'array'
            THEN ARRAY(SELECT json_array_elements_text(d.spec -> 'after')) END AS after,
       coalesce(d.active, (d.spec ->> 'active')::boolean, true) AND d.retired_until IS NULL AS active,
       coalesce(d.username, d.spec ->> 'role',
                (SELECT username FROM reconciler.definitions WHERE name = 'reconciler-runner')) AS role, d.source,
       d.spec ->> 'timezone' AS timezone, (d.spec ->> 'start_at')::timestamptz AS start_at,
       (d.spec ->> 'end_at')::timestamptz AS end_at, d.retired_until
  FROM reconciler.definitions d
 WHERE d.kind IN ('job', 'worker');
