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

-- As before, and nothing of what is retired starts.
CREATE OR REPLACE FUNCTION reconciler.start_run(
    job_name text, trigger text DEFAULT NULL, start_id bigint DEFAULT NULL, since timestamptz DEFAULT NULL,
    is_free boolean DEFAULT false,
    OUT run_id bigint, OUT token bytea, OUT verdict text, OUT lock_key bigint, OUT shared boolean,
    OUT kind text, OUT body text, OUT reason text
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    definition reconciler.definitions;
    policy reconciler.policies;
    start reconciler.starts;
    pause reconciler.pauses;
    unmet text[];
    role text;
BEGIN
    IF start_id IS NOT NULL THEN
        SELECT * INTO start FROM reconciler.starts s WHERE s.id = start_run.start_id FOR UPDATE SKIP LOCKED;
        IF NOT FOUND OR start.due_at > clock_timestamp() THEN
            verdict := 'gone';
            RETURN;
        END IF;
        job_name := start.job_name;
        trigger := start.trigger;
    ELSIF coalesce(trigger, 'manual') NOT IN ('schedule', 'manual') THEN
        RAISE EXCEPTION 'a run is started by schedule or manual; % comes from reconciler.starts', trigger
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    trigger := coalesce(trigger, 'manual');
    SELECT * INTO definition FROM reconciler.definitions d
     WHERE d.name = start_run.job_name AND d.kind IN ('job', 'worker');
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no job % is declared', job_name
            USING ERRCODE = 'undefined_object', HINT = 'See reconciler.definitions for the names.';
    END IF;
    -- session_user is who connected: inside this function current_user is always the owner.
    role := reconciler.find_role(definition.username, definition.spec);
    IF NOT pg_has_role(session_user, role::name, 'MEMBER') THEN
        RAISE EXCEPTION 'the role % may not run the job %', session_user, job_name
            USING ERRCODE = 'insufficient_privilege', HINT = format('It runs as %s.', role);
    END IF;
    SELECT * INTO policy FROM reconciler.policies p WHERE p.name = definition.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the job % is handed to pg_cron as it is (mode: direct)', job_name
            USING ERRCODE = 'feature_not_supported', HINT = 'Execute its command yourself.';
    END IF;
    kind := CASE WHEN definition.spec ->> 'sql' IS NOT NULL THEN 'sql'
                 WHEN definition.kind = 'worker' OR definition.spec -> 'http' IS NOT NULL THEN 'http'
                 ELSE 'handler' END;
    body := definition.spec ->> 'sql';
    IF definition.retired_until IS NOT NULL AND trigger = 'manual' AND start.id IS NULL THEN
        PERFORM reconciler.refuse_retired(definition);
    END IF;
    lock_key := definition.lock_key;
    shared := policy.concurrency = 'allow';

    IF definition.retired_until IS NOT NULL THEN
        reason := reconciler.describe_retired(definition);
    ELSIF trigger <> 'manual' THEN
        SELECT * INTO pause FROM reconciler.pauses p
         WHERE p.job_name = definition.name AND (p.until IS NULL OR p.until > clock_timestamp());
        IF FOUND THEN
            reason := format('paused %sby %s%s',
                'until ' || to_char(pause.until AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC ',
                pause.paused_by, ': ' || nullif(pause.reason, ''));
        ELSIF start.id IS NOT NULL AND definition.spec ->> 'active' = 'false' THEN
            reason := 'not active';  -- it was switched off after this was put off until now
        END IF;
    END IF;
    IF reason IS NOT NULL AND start.queued_job_id IS NOT NULL THEN
        -- One-time work is kept for when it may start again.
        UPDATE reconciler.starts s SET due_at = least(pause.until, clock_timestamp() + interval '1 minute')
         WHERE s.id = start.id;
        verdict := 'gone';
        RETURN;
    END IF;
    IF reason IS NULL AND trigger = 'schedule' AND policy.after <> '{}' THEN
        unmet := reconciler.find_unmet(definition.name, policy.after);
        IF unmet <> '{}' THEN
            reason := 'waits for ' || array_to_string(unmet, ', ');
            INSERT INTO reconciler.starts (job_name, trigger, due_at, scheduled_at, queued_job_id)
            VALUES (definition.name, 'dependency', 'infinity', start.scheduled_at, start.queued_job_id)
                ON CONFLICT (job_name, trigger, coalesce(scheduled_at, '-infinity')) DO NOTHING;
        END IF;
    END IF;

    -- It was free to start when it began to wait.
    IF reason IS NULL AND trigger = 'schedule' AND start.id IS NULL AND since < clock_timestamp() - interval '1 second'
       AND EXISTS (SELECT FROM reconciler.timings t WHERE t.name = definition.name
                      AND reconciler.find_bar_end(t, clock_timestamp(), policy.zone) IS NOT NULL)
    THEN
        reason := 'it waited until its blackout or its end';
    END IF;

    IF reason IS NULL THEN
        reason := reconciler.take_lock(definition.name, definition.lock_key, shared, is_free);
        IF reason IS NOT NULL AND (start.trigger = 'catch_up' OR start.queued_job_id IS NOT NULL
                                   OR (start.id IS NOT NULL AND policy.concurrency = 'wait')) THEN
            -- It keeps its turn, and the runner is free for others.
            UPDATE reconciler.starts s SET due_at = clock_timestamp() + interval '5 seconds' WHERE s.id = start.id;
            verdict := 'gone';
            RETURN;
        END IF;
        IF reason IS NOT NULL AND policy.concurrency = 'wait' AND reconciler.find_queued(definition.name) IS NOT NULL
        THEN
            -- A worker may take hours for it: the start waits in the table, and no backend does.
            INSERT INTO reconciler.starts (job_name, trigger, due_at)
            VALUES (definition.name, start_run.trigger, clock_timestamp() + interval '5 seconds')
                ON CONFLICT (job_name, trigger, coalesce(scheduled_at, '-infinity')) DO NOTHING;
            reason := reason || CASE WHEN FOUND THEN '; it starts afterwards' ELSE '; another start waits for it' END;
        ELSIF reason IS NOT NULL AND policy.concurrency = 'wait'
           AND clock_timestamp() < since + coalesce(policy.timeout, interval '1 hour') THEN
            verdict := 'busy';
            RETURN;
        END IF;
    END IF;

    IF start.id IS NOT NULL THEN
        DELETE FROM reconciler.starts s WHERE s.id = start.id;
    END IF;
    IF reason IS NOT NULL THEN
        PERFORM reconciler.log_skip(definition, start, trigger, reason);
        verdict := 'skip';
        RETURN;
    END IF;
    IF start.id IS NULL AND trigger = 'schedule' THEN
        -- This run is the new try, and stands for what was put off or missed.
        DELETE FROM reconciler.starts s
         WHERE s.job_name = definition.name AND s.queued_job_id IS NULL
           AND (s.trigger IN ('retry', 'dependency') OR s.trigger = 'catch_up' AND policy.catch_up <> 'all');
    END IF;
    IF start.queued_job_id IS NOT NULL THEN
        UPDATE reconciler.jobs j SET status = 'running', started_at = coalesce(j.started_at, clock_timestamp())
         WHERE j.id = start.queued_job_id AND j.status IN ('pending', 'running');
        IF NOT FOUND THEN
            PERFORM reconciler.release_run(definition.lock_key, shared);
            verdict := 'gone';
            RETURN;
        END IF;
    END IF;
    INSERT INTO reconciler.cron_execution_log AS l
           (job_name, definition_id, trigger, role, backend_pid, revision, attempt, chain_id, due_at, start_id,
            lock_key, deadline_at, queued_job_id)
    VALUES (definition.name, definition.id, trigger, session_user, pg_backend_pid(), definition.revision,
            coalesce(start.attempt, 1), start.chain_id, start.scheduled_at, start.id, definition.lock_key,
            clock_timestamp() + policy.timeout, start.queued_job_id)
    RETURNING l.id INTO run_id;
    token := reconciler.make_token(run_id);
    verdict := 'run';
END
$$;

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
