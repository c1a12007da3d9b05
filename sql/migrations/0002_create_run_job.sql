-- Execute a managed job under its lock, and log it.
--
-- run_job is a procedure so that it can commit between the steps; for that it may have neither a SET clause nor
-- SECURITY DEFINER, so it runs with the caller's rights and names everything in full. The two functions around the
-- body run with the owner's rights and a pinned search_path. The body never has more rights than its role.

CREATE FUNCTION reconciler.start_run(
    job_name text,
    OUT run_id bigint, OUT lock_key bigint, OUT body text, OUT handler boolean
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    definition reconciler.definitions;
    holder integer;
BEGIN
    SELECT * INTO definition FROM reconciler.definitions d WHERE d.name = start_run.job_name AND d.kind = 'job';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no job % is declared', job_name
            USING ERRCODE = 'undefined_object', HINT = 'See reconciler.definitions for the names.';
    END IF;
    -- session_user is who connected: inside this function current_user is always the owner.
    IF NOT pg_has_role(session_user, coalesce(definition.username, current_user)::name, 'MEMBER') THEN
        RAISE EXCEPTION 'the role % may not run the job %', session_user, job_name
            USING ERRCODE = 'insufficient_privilege',
                  HINT = format('It runs as %s.', coalesce(definition.username, current_user));
    END IF;
    body := definition.spec ->> 'sql';
    handler := definition.spec ->> 'handler' IS NOT NULL;
    IF body IS NULL AND NOT handler THEN
        RAISE EXCEPTION 'the job % has no body that this release executes', job_name
            USING ERRCODE = 'feature_not_supported';
    END IF;
    IF NOT pg_try_advisory_lock(definition.lock_key) THEN
        SELECT l.pid INTO holder
          FROM pg_locks l
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND l.classid::bigint = (definition.lock_key >> 32) & 4294967295
           AND l.objid::bigint = definition.lock_key & 4294967295;
        INSERT INTO reconciler.cron_execution_log
               (job_name, definition_id, completed_at, status, error_message, role, backend_pid, revision)
        VALUES (definition.name, definition.id, clock_timestamp(), 'skipped',
                'already running in backend ' || coalesce(holder::text, 'unknown'),
                session_user, pg_backend_pid(), definition.revision);
        RETURN;
    END IF;
    lock_key := definition.lock_key;
    INSERT INTO reconciler.cron_execution_log (job_name, definition_id, role, backend_pid, revision)
    VALUES (definition.name, definition.id, session_user, pg_backend_pid(), definition.revision)
    RETURNING id INTO run_id;
END
$$;

CREATE FUNCTION reconciler.finish_run(
    run_id bigint, status text, rows_affected bigint,
    error_sqlstate text, error_message text, error_detail text, error_context text
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE reconciler.cron_execution_log l
       SET status         = finish_run.status,
           completed_at   = clock_timestamp(),
           rows_affected  = finish_run.rows_affected,
           error_sqlstate = finish_run.error_sqlstate,
           error_message  = finish_run.error_message,
           error_detail   = nullif(finish_run.error_detail, ''),
           error_context  = nullif(finish_run.error_context, '')
     WHERE l.id = finish_run.run_id AND l.status = 'running' AND l.backend_pid = pg_backend_pid();
    IF NOT FOUND THEN
        RAISE EXCEPTION 'run % is not running in this backend', run_id USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
END
$$;

-- Put a queued job for a declared job that a handler does. It belongs to a run, so that nobody queues work for
-- others by hand.
CREATE FUNCTION reconciler.queue_run(run_id bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    queued bigint;
BEGIN
    INSERT INTO reconciler.jobs (job_name, handler, queue, payload)
    SELECT d.name, d.spec ->> 'handler', coalesce(d.spec ->> 'queue', 'default'),
           coalesce((d.spec -> 'payload')::jsonb, '{}')
      FROM reconciler.cron_execution_log l
      JOIN reconciler.definitions d ON d.id = l.definition_id
     WHERE l.id = queue_run.run_id AND l.status = 'running' AND l.backend_pid = pg_backend_pid()
    RETURNING id INTO queued;
    IF queued IS NULL THEN
        RAISE EXCEPTION 'run % is not running in this backend', run_id USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN queued;
END
$$;

CREATE PROCEDURE reconciler.run_job(job_name text)
LANGUAGE plpgsql
AS $$
DECLARE
    run             record;
    outcome         text := 'succeeded';
    affected        bigint;
    error_sqlstate  text;
    error_message   text;
    error_detail    text;
    error_context   text;
BEGIN
    -- Inside somebody's transaction this fails at once, before a lock is taken that a rollback would not release.
    COMMIT;
    run := reconciler.start_run(job_name);
    COMMIT;
    IF run.run_id IS NULL THEN
        RETURN;
    END IF;
    BEGIN
        IF run.handler THEN
            PERFORM reconciler.queue_run(run.run_id);
            affected := 1;
        ELSE
            EXECUTE run.body;
            GET DIAGNOSTICS affected = ROW_COUNT;
        END IF;
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
    BEGIN
        PERFORM reconciler.finish_run(
            run.run_id, outcome, affected, error_sqlstate, error_message, error_detail, error_context);
    EXCEPTION WHEN query_canceled OR OTHERS THEN
        -- A session lock outlives the error, and the session may live on.
        PERFORM pg_catalog.pg_advisory_unlock(run.lock_key);
        RAISE;
    END;
    COMMIT;
    -- After the commit, so that the next run sees what this one did.
    PERFORM pg_catalog.pg_advisory_unlock(run.lock_key);
    IF outcome <> 'succeeded' THEN
        -- Again, so that pg_cron's own record of the run says failed too.
        RAISE EXCEPTION USING ERRCODE = error_sqlstate, MESSAGE = error_message, DETAIL = pg_catalog.format(
            'Run %s of the job %s %s; reconciler.cron_execution_log has the details.', run.run_id, job_name, outcome);
    END IF;
END
$$;
