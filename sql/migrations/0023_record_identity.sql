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

CREATE FUNCTION reconciler.is_home() RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
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
    IF reconciler.judge_home() = 'copy' THEN
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

-- Log that the entry of a job came in vain, because this is a copy. Returns why; null at home.
CREATE FUNCTION reconciler.skip_in_copy(job_name text, trigger text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    definition reconciler.definitions;
    reason text;
BEGIN
    IF reconciler.judge_home() <> 'copy' THEN
        RETURN NULL;
    END IF;
    reason := reconciler.describe_copy();
    SELECT * INTO definition FROM reconciler.definitions d
     WHERE d.name = skip_in_copy.job_name AND d.kind IN ('job', 'worker');
    -- Whose it is not gets the answer only.
    IF FOUND AND pg_has_role(session_user, reconciler.find_role(definition.username, definition.spec)::name, 'MEMBER')
    THEN
        PERFORM reconciler.log_skip(definition, NULL::reconciler.starts, coalesce(trigger, 'manual'), reason);
    END IF;
    RETURN reason;
END
$$;

-- Entries of mode direct, which call nothing of ours and so know no guard.
CREATE FUNCTION reconciler.list_direct_entries() RETURNS TABLE (jobid bigint, name text, command text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT d.jobid, d.name, d.command FROM reconciler.definitions d
     WHERE d.jobid IS NOT NULL AND d.spec ->> 'mode' = 'direct' AND reconciler.is_runtime()
$$;

-- As before, and nowhere but at home.
CREATE OR REPLACE FUNCTION reconciler.take_lock(
    job_name text, lock_key bigint, shared boolean, is_free boolean DEFAULT false
) RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    old reconciler.cron_execution_log;
    connected_at timestamptz;
    queued bigint;
BEGIN
    -- Whatever starts, starts here.
    PERFORM reconciler.require_home();
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

-- As before; in a copy it fails, so that pg_cron's own record says so too.
CREATE OR REPLACE PROCEDURE reconciler.run_job(job_name text, trigger text DEFAULT NULL)
LANGUAGE plpgsql
AS $$
DECLARE
    run_id          bigint;
    outcome         text;
    error_sqlstate  text;
    error_message   text;
    is_wanted       boolean := true;
    in_copy         text;
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
    COMMIT;
    -- Two of a role with another isolation would get an error instead of an answer.
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    IF trigger = 'schedule' THEN
        is_wanted := reconciler.take_fire(job_name);
    END IF;
    IF is_wanted THEN
        in_copy := reconciler.skip_in_copy(job_name, trigger);
    END IF;
    -- Taken before it begins: what is broken off now counts as missed, and never as not yet begun.
    COMMIT;
    IF NOT is_wanted THEN
        RETURN;
    ELSIF in_copy IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'RC001', MESSAGE = in_copy,
            HINT = 'Nothing of it runs here. To let it: reconciler target claim.';
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
