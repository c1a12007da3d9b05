-- What remains of timings: a start that waits for the run before it, and what people look at.

-- As before, and no run starts that waited into a blackout.
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
    lock_key := definition.lock_key;
    shared := policy.concurrency = 'allow';

    IF trigger <> 'manual' THEN
        SELECT * INTO pause FROM reconciler.pauses p
         WHERE p.job_name = definition.name AND (p.until IS NULL OR p.until > clock_timestamp());
        IF FOUND THEN
            reason := format('paused %sby %s%s',
                'until ' || to_char(pause.until AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC ',
                pause.paused_by, ': ' || nullif(pause.reason, ''));
        ELSIF start.id IS NOT NULL AND definition.spec ->> 'active' = 'false' THEN
            reason := 'not active';  -- it was switched off after this was put off until now
        END IF;
        IF reason IS NOT NULL AND start.queued_job_id IS NOT NULL THEN
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

-- As before, with the time at which a job is due instead of its entry's.
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
       CASE WHEN j.active THEN
           reconciler.find_due(t, j.schedule, clock_timestamp(),
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

-- The new columns last.
CREATE OR REPLACE VIEW reconciler.scheduled_jobs AS
SELECT d.name, d.kind, d.owner, d.spec ->> 'description' AS description,
       CASE WHEN d.schedule IS NOT NULL THEN 'schedule' WHEN d.spec ->> 'once' IS NOT NULL THEN 'once'
            WHEN d.spec -> 'after' IS NOT NULL THEN 'after' ELSE 'none' END AS trigger,
       d.schedule, (d.spec ->> 'once')::timestamptz AS run_at,
       CASE WHEN json_typeof(d.spec -> 'after') = 'array'
            THEN ARRAY(SELECT json_array_elements_text(d.spec -> 'after')) END AS after,
       coalesce(d.active, (d.spec ->> 'active')::boolean, true) AS active,
       coalesce(d.username, d.spec ->> 'role',
                (SELECT username FROM reconciler.definitions WHERE name = 'reconciler-runner')) AS role, d.source,
       d.spec ->> 'timezone' AS timezone, (d.spec ->> 'start_at')::timestamptz AS start_at,
       (d.spec ->> 'end_at')::timestamptz AS end_at
  FROM reconciler.definitions d
 WHERE d.kind IN ('job', 'worker');
