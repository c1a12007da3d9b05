-- Where a target is at home. A copy of a database carries its jobs along; until somebody claims it, none of them runs
-- there. What is compared comes from the server itself: its system identifier, which initdb makes, and the database's
-- oid. A copy of the server's files has both, so nothing here can tell it from the original.

CREATE TABLE reconciler.identity (
    is_only           boolean     PRIMARY KEY DEFAULT true CHECK (is_only),
    -- Null where nobody may ask for it.
    system_identifier bigint,
    database_oid      oid         NOT NULL,
    database          text        NOT NULL,
    table_oids        oid[]       NOT NULL,
    server_major      integer     NOT NULL,
    -- The name under which each owner applied last, or claimed.
    targets           jsonb       NOT NULL DEFAULT '{}',
    recorded_at       timestamptz NOT NULL DEFAULT now(),
    recorded_by       text        NOT NULL DEFAULT session_user
);
COMMENT ON TABLE reconciler.identity IS 'Where this database was when it was claimed; anywhere else it is a copy';

CREATE FUNCTION reconciler.read_system_identifier() RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT c.system_identifier FROM pg_control_system() AS c);
EXCEPTION WHEN insufficient_privilege OR undefined_function THEN
    RETURN NULL;
END
$$;

-- pg_upgrade keeps them. A restored dump has others; even on a new server, where numbers begin anew, it makes tables in
-- another order than the migrations did.
CREATE FUNCTION reconciler.list_table_oids() RETURNS oid[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY['reconciler.migrations'::regclass::oid, 'reconciler.definitions'::regclass::oid,
                 'reconciler.cron_execution_log'::regclass::oid]
$$;

-- home, upgraded (by pg_upgrade: at home, and to be recorded anew), or copy.
CREATE FUNCTION reconciler.judge_home() RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known  reconciler.identity;
    system bigint := reconciler.read_system_identifier();
    here   oid := (SELECT d.oid FROM pg_database d WHERE d.datname = current_database());
    major  integer;
BEGIN
    SELECT * INTO known FROM reconciler.identity;
    IF NOT FOUND OR (system = known.system_identifier AND here = known.database_oid) THEN
        RETURN 'home';
    ELSIF reconciler.list_table_oids() <> known.table_oids OR system = known.system_identifier THEN
        RETURN 'copy';
    ELSIF num_nulls(system, known.system_identifier) > 0 THEN
        RETURN CASE WHEN here = known.database_oid THEN 'home' ELSE 'copy' END;
    END IF;
    major := current_setting('server_version_num')::integer / 10000;
    -- Up to 14 it gives databases new oids.
    RETURN CASE WHEN major > known.server_major
                 AND (here = known.database_oid OR (major < 15 AND current_database() = known.database))
                THEN 'upgraded' ELSE 'copy' END;
END
$$;

-- Every run asks: the usual answer is found here, by as little as can be.
CREATE FUNCTION reconciler.is_home() RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM reconciler.identity i
         WHERE i.system_identifier = (pg_control_system()).system_identifier
           AND i.database_oid = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
        OR reconciler.judge_home() <> 'copy';
EXCEPTION WHEN insufficient_privilege OR undefined_function THEN
    RETURN reconciler.judge_home() <> 'copy';
END
$$;
COMMENT ON FUNCTION reconciler.is_home() IS
    'Whether jobs may run here; false in a copy of the database that nobody has claimed';

CREATE FUNCTION reconciler.describe_copy() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('this database is a copy of %s, recorded on %s UTC, which nobody has claimed', i.database,
                  to_char(i.recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'))
      FROM reconciler.identity i
$$;

-- True, or an error.
CREATE FUNCTION reconciler.require_home() RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT reconciler.is_home() THEN
        RAISE EXCEPTION USING ERRCODE = 'RC001', MESSAGE = reconciler.describe_copy(),
            HINT = 'Nothing of it runs here. To let it: reconciler target claim.';
    END IF;
    RETURN true;
END
$$;

-- Record that the database is at home where it is now; with the name that an owner has for the target. Who may is
-- who may write the table.
CREATE FUNCTION reconciler.record_identity(owner text DEFAULT NULL, target text DEFAULT NULL) RETURNS void
LANGUAGE sql
AS $$
    INSERT INTO reconciler.identity AS i
           (system_identifier, database_oid, database, table_oids, server_major, targets)
    SELECT reconciler.read_system_identifier(), d.oid, d.datname, reconciler.list_table_oids(),
           pg_catalog.current_setting('server_version_num')::integer / 10000,
           CASE WHEN owner IS NULL THEN '{}' ELSE pg_catalog.jsonb_build_object(owner, target) END
      FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
        ON CONFLICT (is_only) DO UPDATE
       SET system_identifier = excluded.system_identifier, database_oid = excluded.database_oid,
           database = excluded.database, table_oids = excluded.table_oids, server_major = excluded.server_major,
           targets = i.targets || excluded.targets, recorded_at = pg_catalog.now(), recorded_by = session_user
$$;

SELECT reconciler.record_identity();
UPDATE reconciler.identity SET targets = coalesce(
    (SELECT jsonb_object_agg(last.owner, last.target)
       FROM (SELECT DISTINCT ON (r.owner) r.owner, r.target FROM reconciler.revisions r
              ORDER BY r.owner, r.id DESC) AS last), '{}');

-- ------------------------------------------------------------------------------------------ runs and the tick

-- Entries of mode direct, which call nothing of ours and so know no guard.
CREATE FUNCTION reconciler.list_direct_entries() RETURNS TABLE (jobid bigint, name text, command text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT d.jobid, d.name, d.command FROM reconciler.definitions d
     WHERE d.jobid IS NOT NULL AND d.spec ->> 'mode' = 'direct' AND reconciler.is_runtime()
$$;

-- As before, without what is retired (0022), and nothing starts in a copy.
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
    IF NOT reconciler.is_home() THEN
        -- What was put off stays as it is, until somebody claims the copy.
        verdict := CASE WHEN start.id IS NULL THEN 'skip' ELSE 'gone' END;
        reason := reconciler.describe_copy();
        IF start.id IS NULL THEN
            PERFORM reconciler.log_skip(definition, start, trigger, reason);
        END IF;
        RETURN;
    END IF;
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

-- As before; in a copy it fails, so that pg_cron's own record says so too.
CREATE OR REPLACE PROCEDURE reconciler.run_job(job_name text, trigger text DEFAULT NULL)
LANGUAGE plpgsql
AS $$
DECLARE
    run_id          bigint;
    outcome         text;
    error_sqlstate  text;
    error_message   text;
    is_wanted       boolean;
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
    IF trigger = 'schedule' THEN
        COMMIT;
        -- Two of a role with another isolation would get an error instead of an answer.
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        is_wanted := reconciler.take_fire(job_name);
        -- Taken before it begins: what is broken off now counts as missed, and never as not yet begun.
        COMMIT;
        IF NOT is_wanted THEN
            RETURN;
        END IF;
    END IF;
    CALL reconciler.carry_out(job_name, trigger, NULL, run_id, outcome, error_sqlstate, error_message);
    IF run_id IS NULL THEN
        PERFORM reconciler.require_home();
    END IF;
    IF outcome NOT IN ('succeeded', 'running') THEN
        -- Again, so that pg_cron's own record of the run says failed too.
        RAISE EXCEPTION USING ERRCODE = coalesce(error_sqlstate, 'P0001'), MESSAGE = error_message,
            DETAIL = pg_catalog.format('Run %s of the job %s %s; reconciler.cron_execution_log has the details.',
                                       run_id, job_name, outcome);
    END IF;
END
$$;
