-- What people ask for: run now, cancel, pause, resume.

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
    SELECT * INTO definition FROM reconciler.definitions d WHERE d.name = find_managed.job_name AND d.kind = 'job';
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
    SELECT * INTO run FROM reconciler.cron_execution_log l WHERE l.id = cancel_run.run_id FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no run %', run_id
            USING ERRCODE = 'undefined_object', HINT = 'reconciler runs lists them.';
    END IF;
    PERFORM reconciler.require_control(run.job_name, run.role);
    IF run.status <> 'running' THEN
        RETURN run.status;
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
