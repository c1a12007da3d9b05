-- Start runs: who may, what stands in the way, the job's lock, and the row that everybody sees.

CREATE FUNCTION reconciler.log_skip(
    definition reconciler.definitions, start reconciler.starts, trigger text, reason text
) RETURNS void
LANGUAGE sql
AS $$
    INSERT INTO reconciler.cron_execution_log
           (job_name, definition_id, completed_at, status, error_message, trigger, role, backend_pid, revision,
            attempt, chain_id, due_at, start_id)
    VALUES (definition.name, definition.id, clock_timestamp(), 'skipped', reason, trigger, session_user,
            pg_backend_pid(), definition.revision, coalesce(start.attempt, 1), start.chain_id, start.scheduled_at,
            start.id)
$$;

-- Take the lock of a job and clear up after runs that lost theirs. Returns why not, or null when it is held.
-- is_free: no other run of the job goes on in this session; one that seems to was broken off outside of its body.
CREATE FUNCTION reconciler.take_lock(
    job_name text, lock_key bigint, shared boolean, is_free boolean DEFAULT false
) RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    old reconciler.cron_execution_log;
    connected_at timestamptz;
    queued bigint;
BEGIN
    IF NOT (CASE WHEN shared THEN pg_try_advisory_lock_shared(lock_key)
                 ELSE pg_try_advisory_lock(lock_key) END) THEN
        RETURN 'already running in backend ' || coalesce(reconciler.find_holder(lock_key)::text, 'unknown');
    END IF;
    IF shared THEN
        RETURN NULL;
    END IF;
    queued := reconciler.find_queued(job_name);
    IF queued IS NOT NULL THEN
        PERFORM pg_advisory_unlock(lock_key);
        RETURN format('queued job %s of it is not finished', queued);
    END IF;
    -- Whoever holds the lock alone knows that no other run of the job goes on in a backend. The newest run is the one
    -- that can have been left; others, from when the job allowed several, are the tick's.
    SELECT * INTO old FROM reconciler.cron_execution_log l
     WHERE l.job_name = take_lock.job_name AND l.status <> 'skipped' ORDER BY l.run_at DESC LIMIT 1;
    IF old.status = 'running' THEN
        IF old.request_id IS NOT NULL THEN
            -- The tick looks for answers; where there is none, the next start does.
            IF reconciler.end_answered(old.id) THEN
                RETURN NULL;
            END IF;
            PERFORM pg_advisory_unlock(lock_key);
            RETURN format('run %s waits for the answer to its request', old.id);
        END IF;
        IF old.handed_over THEN
            PERFORM reconciler.end_handed_over(old.id);
            RETURN NULL;
        END IF;
        IF old.backend_pid = pg_backend_pid() THEN
            SELECT a.backend_start INTO connected_at FROM pg_stat_get_activity(pg_backend_pid()) AS a;
            IF connected_at IS NULL OR old.run_at >= connected_at THEN
                -- A session gets its own lock again and again.
                PERFORM pg_advisory_unlock(lock_key);
                IF NOT is_free THEN
                    RETURN format('already running in this session, as run %s', old.id);
                END IF;
                -- What was broken off may have kept its lock, or not.
                IF reconciler.find_holder(lock_key, pg_backend_pid()) IS NULL
                   AND NOT pg_try_advisory_lock(lock_key) THEN
                    RETURN 'already running in backend ' || coalesce(reconciler.find_holder(lock_key)::text, 'unknown');
                END IF;
            END IF;
        END IF;
        SELECT * INTO old FROM reconciler.cron_execution_log l WHERE l.id = old.id FOR UPDATE;
        IF old.status = 'running' THEN
            PERFORM reconciler.end_run(old, coalesce(old.stop_reason, 'lost'), error_message =>
                format('backend %s went away without ending the run', old.backend_pid));
        END IF;
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION reconciler.start_run(
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

-- The same for work that nobody declared: people's own handlers, under a lock of their own name.
CREATE FUNCTION reconciler.start_execution(
    name text,
    OUT run_id bigint, OUT token bytea, OUT verdict text, OUT lock_key bigint, OUT shared boolean,
    OUT kind text, OUT body text, OUT reason text
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM reconciler.definitions d WHERE d.name = start_execution.name) THEN
        RAISE EXCEPTION '% is declared: start_run starts it', name USING ERRCODE = 'wrong_object_type';
    END IF;
    kind := 'none';
    shared := false;
    lock_key := reconciler.make_lock_key(name);
    reason := reconciler.take_lock(name, lock_key, false);
    verdict := CASE WHEN reason IS NULL THEN 'run' ELSE 'skip' END;
    INSERT INTO reconciler.cron_execution_log AS l
           (job_name, completed_at, status, error_message, trigger, role, backend_pid, lock_key)
    VALUES (name, CASE WHEN reason IS NOT NULL THEN clock_timestamp() END,
            CASE WHEN reason IS NULL THEN 'running' ELSE 'skipped' END, reason, 'manual', session_user,
            pg_backend_pid(), start_execution.lock_key)
    RETURNING l.id INTO run_id;
    IF verdict = 'skip' THEN
        run_id := NULL;
        RETURN;
    END IF;
    token := reconciler.make_token(run_id);
END
$$;

-- Put a queued job for a declared job that a handler does, and hand the run over to it: the run ends when the queued
-- job does. It belongs to a run, so that nobody queues work for others by hand.
CREATE FUNCTION reconciler.queue_run(run_id bigint, token bytea) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    work record;
    queued bigint;
BEGIN
    SELECT d.name, d.spec ->> 'handler' AS handler, coalesce((d.spec -> 'payload')::jsonb, '{}') AS payload,
           coalesce(d.spec ->> 'queue', 'default') AS queue,
           -- The queue's own number of tries where the job says nothing.
           CASE WHEN d.spec -> 'on_failure' IS NOT NULL THEN p.retries + 1 END AS max_attempts, p.timeout
      INTO work
      FROM reconciler.cron_execution_log l
      JOIN reconciler.definitions d ON d.id = l.definition_id
      LEFT JOIN reconciler.policies p ON p.name = d.name
     WHERE l.id = queue_run.run_id AND l.status = 'running' AND NOT l.handed_over
       AND queue_run.token = reconciler.make_token(queue_run.run_id);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'run % is not running here', run_id USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    PERFORM reconciler.check_job(work.handler, work.payload, work.queue, NULL, NULL, NULL, work.max_attempts,
                                 work.timeout, 'custom');
    INSERT INTO reconciler.jobs_open
           (job_name, run_id, handler, queue, payload, max_attempts, timeout, ordering_key, run_at, created_at)
    VALUES (work.name, queue_run.run_id, work.handler, work.queue, work.payload, work.max_attempts, work.timeout,
            reconciler.find_order(work.queue, NULL), clock_timestamp(), clock_timestamp())
    RETURNING id INTO queued;
    -- The limit is the worker's to keep, for each of its tries.
    UPDATE reconciler.cron_execution_log l SET handed_over = true, queued_job_id = queued, deadline_at = NULL
     WHERE l.id = queue_run.run_id;
    PERFORM pg_notify('reconciler_jobs', work.queue);
    RETURN queued;
END
$$;
