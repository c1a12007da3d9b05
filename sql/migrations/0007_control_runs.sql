-- Carry runs out, those that entries fire and those that a runner takes; and what people ask for: run now, cancel,
-- pause, resume.
--
-- The procedures run with the caller's rights, since they commit between the steps, and name everything in full: a body
-- never has more rights than its role.

-- Start, execute, end. outcome is null where nothing was executed. Every step commits; an error of the body is
-- returned, not raised.
CREATE PROCEDURE reconciler.carry_out(
    job_name text, trigger text, start_id bigint,
    INOUT run_id bigint, INOUT outcome text, INOUT error_sqlstate text, INOUT error_message text
)
LANGUAGE plpgsql
AS $$
DECLARE
    run             record;
    answer          record;
    response_status integer;
    is_sent         boolean := false;
    since           timestamptz := pg_catalog.clock_timestamp();
    affected        bigint;
    error_detail    text;
    error_context   text;
    problem         text;
BEGIN
    run_id := NULL;
    outcome := NULL;
    error_sqlstate := NULL;
    error_message := NULL;
    LOOP
        run := reconciler.start_run(job_name, trigger, start_id, since, is_free => true);
        COMMIT;
        EXIT WHEN run.verdict IS DISTINCT FROM 'busy';
        PERFORM pg_catalog.pg_sleep(0.2);
        COMMIT;
    END LOOP;
    IF run.verdict IS DISTINCT FROM 'run' THEN
        RETURN;
    END IF;
    run_id := run.run_id;
    FOR try IN 1..3 LOOP
        problem := NULL;
        BEGIN
            IF outcome IS NULL THEN
                outcome := 'succeeded';
                BEGIN
                    IF run.kind = 'sql' THEN
                        EXECUTE run.body;
                        GET DIAGNOSTICS affected = ROW_COUNT;
                    ELSIF run.kind = 'http' THEN
                        answer := reconciler.send_request(run.run_id, run.token);
                        response_status := answer.status;
                        is_sent := answer.request_id IS NOT NULL;
                        IF answer.problem IS NOT NULL THEN
                            RAISE EXCEPTION USING ERRCODE = 'external_routine_exception', MESSAGE = answer.problem,
                                DETAIL = coalesce(answer.content, '');
                        END IF;
                    ELSE
                        PERFORM reconciler.queue_run(run.run_id, run.token);
                        is_sent := true;
                    END IF;
                    -- What was deferred fails here, where it is caught, and not in COMMIT.
                    SET CONSTRAINTS ALL IMMEDIATE;
                EXCEPTION
                    -- query_canceled is not among OTHERS; neither is assert_failure.
                    WHEN query_canceled THEN
                        outcome := 'cancelled';
                        GET STACKED DIAGNOSTICS error_sqlstate = RETURNED_SQLSTATE, error_message = MESSAGE_TEXT,
                            error_detail = PG_EXCEPTION_DETAIL, error_context = PG_EXCEPTION_CONTEXT;
                    WHEN assert_failure OR OTHERS THEN
                        outcome := 'failed';
                        GET STACKED DIAGNOSTICS error_sqlstate = RETURNED_SQLSTATE, error_message = MESSAGE_TEXT,
                            error_detail = PG_EXCEPTION_DETAIL, error_context = PG_EXCEPTION_CONTEXT;
                END;
            END IF;
            IF outcome = 'succeeded' AND is_sent THEN
                -- After the commit pg_net sends it, and the tick ends the run; or a worker takes it, and does.
                outcome := 'running';
            ELSE
                outcome := reconciler.finish_run(
                    run.run_id, run.token, outcome, affected, error_sqlstate, error_message, error_detail,
                    error_context, response_status);
            END IF;
        EXCEPTION WHEN query_canceled OR assert_failure OR OTHERS THEN
            -- Cancelled at the last moment, or the body left a transaction in which nothing can be written. What
            -- the body did goes with it, so that a success is none.
            problem := SQLERRM;
            IF outcome IN ('succeeded', 'running') THEN
                outcome := CASE SQLSTATE WHEN '57014' THEN 'cancelled' ELSE 'failed' END;
                affected := NULL;
                GET STACKED DIAGNOSTICS error_sqlstate = RETURNED_SQLSTATE, error_message = MESSAGE_TEXT,
                    error_detail = PG_EXCEPTION_DETAIL, error_context = PG_EXCEPTION_CONTEXT;
            END IF;
        END;
        EXIT WHEN problem IS NULL;
        ROLLBACK;
        SET TRANSACTION READ WRITE;
    END LOOP;
    -- Where the end could not be written at all, the tick finds the run without its lock.
    COMMIT;
    IF run.shared THEN
        PERFORM pg_catalog.pg_advisory_unlock_shared(run.lock_key);
    ELSE
        PERFORM pg_catalog.pg_advisory_unlock(run.lock_key);
    END IF;
END
$$;

CREATE PROCEDURE reconciler.run_job(job_name text, trigger text DEFAULT NULL)
LANGUAGE plpgsql
AS $$
DECLARE
    run_id          bigint;
    outcome         text;
    error_sqlstate  text;
    error_message   text;
BEGIN
    -- Inside somebody's transaction this fails at once, before a lock is taken that a rollback would not release.
    COMMIT;
    -- pg_cron names its connections; its background workers have no name, but a type of their own.
    IF trigger IS NOT NULL THEN
        NULL;
    ELSIF pg_catalog.current_setting('application_name') = 'pg_cron' THEN
        trigger := 'schedule';
    ELSIF pg_catalog.current_setting('application_name') = '' AND EXISTS (
        SELECT FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) AS a
         WHERE a.backend_type = 'pg_cron')
    THEN
        trigger := 'schedule';
    END IF;
    CALL reconciler.carry_out(job_name, trigger, NULL, run_id, outcome, error_sqlstate, error_message);
    IF outcome NOT IN ('succeeded', 'running') THEN
        -- Again, so that pg_cron's own record of the run says failed too.
        RAISE EXCEPTION USING ERRCODE = coalesce(error_sqlstate, 'P0001'), MESSAGE = error_message,
            DETAIL = pg_catalog.format('Run %s of the job %s %s; reconciler.cron_execution_log has the details.',
                                       run_id, job_name, outcome);
    END IF;
END
$$;

-- The next start that is due and whose job runs as the role that asks.
CREATE FUNCTION reconciler.next_start(OUT start_id bigint, OUT is_awaited boolean, within interval DEFAULT '0')
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    now timestamptz := clock_timestamp();
BEGIN
    -- What another lane has in its hands is left to it.
    SELECT s.id INTO start_id
      FROM reconciler.starts s JOIN reconciler.definitions d ON d.name = s.job_name
     WHERE s.due_at <= now AND reconciler.find_role(d.username, d.spec) = session_user
           -- What was missed is made up for in its order, also by several lanes.
       AND NOT (s.trigger = 'catch_up' AND (
               EXISTS (SELECT FROM reconciler.starts e
                        WHERE e.job_name = s.job_name AND e.trigger = 'catch_up' AND e.scheduled_at < s.scheduled_at)
               OR EXISTS (SELECT FROM reconciler.cron_execution_log l
                           WHERE l.status = 'running' AND l.job_name = s.job_name)))
     ORDER BY s.due_at, s.id LIMIT 1 FOR UPDATE OF s SKIP LOCKED;
    is_awaited := start_id IS NULL AND within > '0' AND (
        EXISTS (SELECT FROM reconciler.starts s WHERE s.due_at <= now + within)
        OR EXISTS (SELECT FROM reconciler.cron_execution_log l WHERE l.status = 'running' AND NOT l.handed_over));
END
$$;

-- Carry out the starts that are due, one after the other. Each lane of each role is an entry of its own.
CREATE PROCEDURE reconciler.runner(stay interval DEFAULT '0')
LANGUAGE plpgsql
AS $$
DECLARE
    began           timestamptz := pg_catalog.clock_timestamp();
    next            record;
    run_id          bigint;
    outcome         text;
    error_sqlstate  text;
    error_message   text;
BEGIN
    COMMIT;
    -- Ended after a minute, so that pg_cron's own record shows that it goes on.
    WHILE pg_catalog.clock_timestamp() < began + interval '1 minute' LOOP
        next := reconciler.next_start(began + stay - pg_catalog.clock_timestamp());
        COMMIT;
        IF next.start_id IS NOT NULL THEN
            CALL reconciler.carry_out(NULL, NULL, next.start_id, run_id, outcome, error_sqlstate, error_message);
            -- The next body must not find what this one left in the session.
            RESET SESSION AUTHORIZATION;
            RESET ROLE;
            RESET ALL;
            DISCARD TEMP;
            DISCARD SEQUENCES;
            DEALLOCATE ALL;
            EXECUTE 'CLOSE ALL';
            UNLISTEN *;
            PERFORM pg_catalog.pg_advisory_unlock_all();
            COMMIT;
        ELSIF next.is_awaited
              -- What fires together with the runner may not have begun yet.
              OR pg_catalog.clock_timestamp() < began + least(stay, interval '5 seconds')
        THEN
            PERFORM pg_catalog.pg_sleep(1);
            COMMIT;
        ELSE
            EXIT;
        END IF;
    END LOOP;
    CALL reconciler.deliver_alerts(began + interval '1 minute');
END
$$;

-- Signal the backend of a run whose row the caller holds: as long as it is held, the run cannot end and its
-- backend cannot be at other work. False where the backend is gone.
CREATE FUNCTION reconciler.stop_run(run reconciler.cron_execution_log, reason text, who text) RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
    IF run.request_id IS NULL AND reconciler.find_holder(run.lock_key, run.backend_pid) IS NULL THEN
        RETURN false;
    END IF;
    IF run.request_id IS NOT NULL THEN
        -- The request is on its way; nobody waits for its answer any more.
        UPDATE reconciler.cron_execution_log l
           SET stop_reason = stop_run.reason, stop_at = clock_timestamp(), stop_by = stop_run.who
         WHERE l.id = run.id;
        PERFORM reconciler.end_run(run, reason, error_message =>
            CASE reason WHEN 'timed_out' THEN 'no answer in time' ELSE 'cancelled by ' || who END);
        RETURN true;
    END IF;
    -- One cancelling is enough: a second one might come when the run has begun to write its end. A body may catch
    -- it; who still runs half a minute later is disconnected.
    IF run.stop_reason IS NOT NULL THEN
        RETURN run.stop_at >= clock_timestamp() - interval '30 seconds' OR pg_terminate_backend(run.backend_pid);
    END IF;
    UPDATE reconciler.cron_execution_log l
       SET stop_reason = stop_run.reason, stop_at = clock_timestamp(), stop_by = stop_run.who
     WHERE l.id = run.id;
    RETURN pg_cancel_backend(run.backend_pid);
EXCEPTION WHEN insufficient_privilege THEN
    RAISE EXCEPTION 'run % of % belongs to the role %, whose backends % may not signal',
        run.id, run.job_name, run.role, current_user
        USING ERRCODE = 'insufficient_privilege',
              HINT = format('As an administrator: GRANT pg_signal_backend TO %I, or GRANT %I TO %I.',
                            current_user, run.role, current_user);
END
$$;

-- Who may run a job, or may do all that its owner may, may start, stop and pause it.
CREATE FUNCTION reconciler.require_control(job_name text, role text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT pg_has_role(session_user, role::name, 'MEMBER') AND NOT pg_has_role(session_user, current_user, 'MEMBER')
    THEN
        RAISE EXCEPTION 'the role % may not control the job %', session_user, job_name
            USING ERRCODE = 'insufficient_privilege', HINT = format('It runs as %s.', role);
    END IF;
END
$$;

CREATE FUNCTION reconciler.find_managed(job_name text) RETURNS reconciler.definitions
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    definition reconciler.definitions;
BEGIN
    SELECT * INTO definition FROM reconciler.definitions d
     WHERE d.name = find_managed.job_name AND d.kind IN ('job', 'worker');
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no job % is declared', job_name
            USING ERRCODE = 'undefined_object', HINT = 'reconciler status lists the names.';
    END IF;
    PERFORM reconciler.require_control(
        definition.name, reconciler.find_role(definition.username, definition.spec));
    IF definition.spec ->> 'mode' = 'direct' THEN
        RAISE EXCEPTION 'the job % is handed to pg_cron as it is (mode: direct)', job_name
            USING ERRCODE = 'feature_not_supported',
                  HINT = 'Only managed jobs can be run now or paused; active: false in its file stops it.';
    END IF;
    RETURN definition;
END
$$;

CREATE FUNCTION reconciler.request_run(job_name text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    definition reconciler.definitions := reconciler.find_managed(job_name);
    requested bigint;
BEGIN
    -- Asking twice before it began is asking once.
    INSERT INTO reconciler.starts AS s (job_name, trigger, due_at)
    VALUES (definition.name, 'manual', clock_timestamp())
        ON CONFLICT (job_name, trigger, coalesce(scheduled_at, '-infinity')) DO UPDATE SET due_at = s.due_at
    RETURNING s.id INTO requested;
    RETURN requested;
END
$$;

CREATE FUNCTION reconciler.cancel_run(run_id bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    run reconciler.cron_execution_log;
BEGIN
    SELECT * INTO run FROM reconciler.cron_execution_log l WHERE l.id = cancel_run.run_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no run %', run_id
            USING ERRCODE = 'undefined_object', HINT = 'reconciler runs lists them.';
    END IF;
    PERFORM reconciler.require_control(run.job_name, run.role);
    IF NOT run.handed_over THEN
        SELECT * INTO run FROM reconciler.cron_execution_log l WHERE l.id = cancel_run.run_id FOR UPDATE;
    END IF;
    IF run.status IS DISTINCT FROM 'running' THEN
        RETURN run.status;
    END IF;
    IF run.handed_over THEN
        RETURN reconciler.cancel_handed_over(run);
    END IF;
    IF NOT reconciler.stop_run(run, 'cancelled', session_user) THEN
        PERFORM reconciler.end_run(run, 'lost', error_message =>
            format('backend %s went away without ending the run', run.backend_pid));
        RETURN 'lost';
    END IF;
    RETURN 'cancelling';
END
$$;

CREATE FUNCTION reconciler.pause_job(job_name text, until timestamptz DEFAULT NULL, reason text DEFAULT '')
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    definition reconciler.definitions := reconciler.find_managed(job_name);
BEGIN
    IF until <= clock_timestamp() THEN
        RAISE EXCEPTION 'a pause ends in the future, not at %', until USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO reconciler.pauses AS p (job_name, until, reason)
    VALUES (definition.name, pause_job.until, coalesce(pause_job.reason, ''))
        ON CONFLICT ON CONSTRAINT pauses_pkey DO UPDATE
       SET paused_at = excluded.paused_at, until = excluded.until, reason = excluded.reason,
           paused_by = excluded.paused_by;
END
$$;

CREATE FUNCTION reconciler.resume_job(job_name text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    definition reconciler.definitions := reconciler.find_managed(job_name);
BEGIN
    DELETE FROM reconciler.pauses p WHERE p.job_name = definition.name;
    RETURN FOUND;
END
$$;

-- What no role but the owner calls: the functions above do it for everybody, after they looked who asks.
REVOKE EXECUTE ON FUNCTION
    reconciler.make_token, reconciler.open_alert, reconciler.resolve_alerts, reconciler.start_dependents,
    reconciler.end_run, reconciler.end_queued_job, reconciler.stop_run, reconciler.log_skip, reconciler.take_lock,
    reconciler.start_execution, reconciler.find_managed, reconciler.find_unmet, reconciler.find_slow_limit
FROM PUBLIC;
