-- Push workers: entries that call a run endpoint, under their own lock, with the log, the time limit and the alerts of
-- any managed job. And workers that somebody makes in SQL: their definitions have the owner sql, which no repository
-- has, until a spec file declares them.

-- ------------------------------------------------------------------------------------------ what is sent

-- What an address says of itself after the question mark, as it stands there; null where it says nothing.
CREATE FUNCTION reconciler.read_query(url text, key text) RETURNS text
LANGUAGE sql IMMUTABLE
AS $$
    SELECT substring(split_part(url, '#', 1) FROM '^[^?]*\?(?:.*&)?' || key || '=([^&]*)')
$$;

-- The address of a run endpoint with what is asked of it; what it says of itself already stays.
CREATE FUNCTION reconciler.make_run_url(url text, queue text, status text, job_limit integer) RETURNS text
LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    made text := split_part(url, '#', 1);
    asked record;
BEGIN
    FOR asked IN SELECT * FROM (VALUES ('queue', queue), ('status', status), ('limit', job_limit::text)) AS v (key, value)
    LOOP
        CONTINUE WHEN reconciler.read_query(url, asked.key) IS NOT NULL;
        made := made || CASE WHEN strpos(made, '?') = 0 THEN '?' WHEN right(made, 1) IN ('?', '&') THEN '' ELSE '&' END
                     || asked.key || '=' || asked.value;
    END LOOP;
    RETURN made;
END
$$;

-- What the address says is what is asked for, so the rows say the same.
CREATE OR REPLACE VIEW reconciler.declared_workers AS
SELECT name,
       coalesce(nullif(reconciler.read_query(spec ->> 'url', 'queue'), ''), spec ->> 'queue', 'default') AS queue,
       spec ->> 'url'                                               AS url,
       spec #>> '{token,secret}'                                    AS secret,
       coalesce(substring(reconciler.read_query(spec ->> 'url', 'status') FROM '^(?:pending|failed)$'),
                spec ->> 'status', 'pending')                       AS status,
       coalesce(substring(reconciler.read_query(spec ->> 'url', 'limit') FROM '^0*([1-9][0-9]{0,5})$')::integer,
                (spec ->> 'limit')::integer, 1)                     AS job_limit,
       reconciler.read_duration(coalesce(spec ->> 'timeout', '30s'))                AS timeout
  FROM reconciler.definitions
 WHERE kind = 'worker';

-- What an earlier release applied.
UPDATE reconciler.workers w SET queue = d.queue, status = d.status, job_limit = d.job_limit
  FROM reconciler.declared_workers d
 WHERE d.name = w.name AND (w.queue, w.status, w.job_limit) IS DISTINCT FROM (d.queue, d.status, d.job_limit);

-- The request of a job or a worker, in the form that a job declares; null for one that sends none.
CREATE FUNCTION reconciler.find_request(definition reconciler.definitions) RETURNS json
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    IF definition.kind <> 'worker' THEN
        RETURN definition.spec -> 'http';
    END IF;
    RETURN (
        SELECT json_build_object('url', reconciler.make_run_url(w.url, w.queue, w.status, w.job_limit),
                                 'token', json_build_object('secret', w.secret),
                                 'timeout', extract(epoch FROM w.timeout) || 's')
          FROM reconciler.workers w WHERE w.name = definition.name);
END
$$;

-- End a run that waits for an answer, where that is there or its time is up. Returns whether it is over.
CREATE FUNCTION reconciler.end_answered(run_id bigint) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    run reconciler.cron_execution_log;
BEGIN
    IF reconciler.has_pg_net() THEN
        PERFORM reconciler.collect_answers(end_answered.run_id);
    END IF;
    SELECT * INTO run FROM reconciler.cron_execution_log l WHERE l.id = end_answered.run_id FOR UPDATE;
    IF run.status = 'running' AND run.deadline_at <= clock_timestamp() THEN
        RETURN reconciler.stop_run(run, 'timed_out', session_user);
    END IF;
    RETURN run.status <> 'running';
END
$$;

-- ------------------------------------------------------------------------------------------ workers made in SQL

-- Entries are made with the caller's rights, so that each is its maker's own, as with cron.schedule. Definitions and
-- tokens are written with the owner's rights, for whom they are open to: see allow_queue_workers.

-- Refuse a name that is not to be had. Returns the definition of a worker that was made in SQL before; all null where
-- the name is free.
CREATE FUNCTION reconciler.find_queue_worker(name text) RETURNS reconciler.definitions
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    definition reconciler.definitions;
BEGIN
    -- Not beside an apply, which looks once and relies on what it saw.
    PERFORM pg_advisory_xact_lock(7411530208936421);
    SELECT * INTO definition FROM reconciler.definitions d WHERE d.name = find_queue_worker.name;
    IF definition.owner <> 'sql' THEN
        RAISE EXCEPTION 'the % % belongs to the owner %', definition.kind, name, definition.owner
            USING ERRCODE = 'duplicate_object',
                  HINT = format('Change it where it is declared (%s), or choose another name.',
                                coalesce(nullif(definition.source, ''), 'source unknown'));
    ELSIF EXISTS (SELECT FROM pg_roles r
                   WHERE r.rolname = definition.username AND NOT pg_has_role(session_user, r.oid, 'MEMBER')) THEN
        RAISE EXCEPTION 'the worker % belongs to the role %', name, definition.username
            USING ERRCODE = 'insufficient_privilege', HINT = 'Connect as that role, or choose another name.';
    END IF;
    RETURN definition;
END
$$;

-- Write down a worker whose entry was just made or changed.
CREATE FUNCTION reconciler.store_queue_worker(
    name text, url text, token text, schedule text, jobid bigint, username text
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    secret text := 'worker.' || store_queue_worker.name;
    -- To the letter as the tool writes it: sorted keys, no blanks.
    spec text := format('{"schedule":%s%s,"url":%s}', to_json(store_queue_worker.schedule),
                        CASE WHEN coalesce(store_queue_worker.token, '') <> ''
                             THEN format(',"token":{"secret":%s}', to_json(secret)) ELSE '' END,
                        to_json(store_queue_worker.url));
    zone text := coalesce((SELECT s.setting FROM pg_settings s WHERE s.name = 'cron.timezone'),
                          (SELECT max(p.zone) FROM reconciler.policies p), 'GMT');
BEGIN
    PERFORM reconciler.find_queue_worker(store_queue_worker.name);
    IF NOT pg_has_role(session_user, store_queue_worker.username::name, 'MEMBER') THEN
        RAISE EXCEPTION 'the role % may not make a worker for the role %', session_user, store_queue_worker.username
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF coalesce(store_queue_worker.token, '') = '' THEN
        DELETE FROM reconciler.secrets s WHERE s.name = secret;
    ELSE
        INSERT INTO reconciler.secrets AS s (name, value) VALUES (secret, store_queue_worker.token)
            ON CONFLICT (name) DO UPDATE SET value = excluded.value, vault_name = NULL, updated_at = now()
         WHERE (s.value, s.vault_name) IS DISTINCT FROM (excluded.value, NULL);
    END IF;
    INSERT INTO reconciler.definitions AS d
           (name, kind, owner, spec, digest, source, lock_key, jobid, schedule, command, database, username, active)
    VALUES (store_queue_worker.name, 'worker', 'sql', spec::json,
            encode(sha256(convert_to(spec, 'UTF8')), 'hex'), 'reconciler.create_queue_worker',
            reconciler.make_lock_key(store_queue_worker.name), store_queue_worker.jobid, store_queue_worker.schedule,
            format('CALL reconciler.run_job(%L)', store_queue_worker.name), current_database(),
            store_queue_worker.username, true)
        ON CONFLICT (name) DO UPDATE
       SET spec = excluded.spec, digest = excluded.digest, jobid = excluded.jobid, schedule = excluded.schedule,
           command = excluded.command, database = excluded.database, username = excluded.username,
           active = excluded.active, updated_at = now();
    INSERT INTO reconciler.workers AS w
    SELECT * FROM reconciler.declared_workers n WHERE n.name = store_queue_worker.name
        ON CONFLICT (name) DO UPDATE
       SET queue = excluded.queue, url = excluded.url, secret = excluded.secret, status = excluded.status,
           job_limit = excluded.job_limit, timeout = excluded.timeout;
    DELETE FROM reconciler.policies p WHERE p.name = store_queue_worker.name;
    INSERT INTO reconciler.policies
    SELECT n.*, zone, d.digest
      FROM reconciler.declared_policies n JOIN reconciler.definitions d ON d.name = n.name
     WHERE n.name = store_queue_worker.name;
    INSERT INTO reconciler.job_states AS s (name, basis, next_due_at)
    VALUES (store_queue_worker.name, zone || ' ' || store_queue_worker.schedule,
            reconciler.next_fire(store_queue_worker.schedule, clock_timestamp() + interval '5 seconds', zone))
        ON CONFLICT (name) DO UPDATE SET basis = excluded.basis, next_due_at = excluded.next_due_at;
END
$$;

CREATE FUNCTION reconciler.forget_queue_worker(name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM reconciler.find_queue_worker(forget_queue_worker.name);
    -- All that belongs to it goes with it; the log of its runs stays.
    DELETE FROM reconciler.definitions d WHERE d.name = forget_queue_worker.name;
    DELETE FROM reconciler.secrets s WHERE s.name = 'worker.' || forget_queue_worker.name;
END
$$;

-- The entry of a worker that was made in SQL, as far as the caller can see it; null where it was unscheduled.
CREATE FUNCTION reconciler.find_queue_worker_entry(definition reconciler.definitions) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF definition.username <> current_user AND row_security_active('cron.job') THEN
        RAISE EXCEPTION 'the worker % belongs to the role %', definition.name, definition.username
            USING ERRCODE = 'insufficient_privilege', HINT = format('First: SET ROLE %I.', definition.username);
    END IF;
    RETURN (
        SELECT j.jobid FROM cron.job j
         WHERE j.jobname::text = definition.name AND j.username = definition.username
            -- Numbers begin anew when the extension is made anew.
            OR j.jobid = definition.jobid AND j.command = definition.command
         ORDER BY j.jobid = definition.jobid DESC LIMIT 1);
END
$$;

CREATE FUNCTION reconciler.create_queue_worker(name text, url text, token text, schedule text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    call text := format('CALL reconciler.run_job(%L)', create_queue_worker.name);
    definition reconciler.definitions;
    entry record;
    entry_id bigint;
    maker text := current_user;
BEGIN
    IF to_regclass('cron.job') IS NULL THEN
        RAISE EXCEPTION 'pg_cron is not in the database %', current_database() USING ERRCODE = 'undefined_object',
            HINT = 'reconciler doctor says how to get it.';
    ELSIF create_queue_worker.name !~ '^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$' OR length(create_queue_worker.name) > 56
          OR starts_with(create_queue_worker.name, 'reconciler-') OR create_queue_worker.name IS NULL
    THEN
        RAISE EXCEPTION 'a worker cannot be called %', quote_nullable(create_queue_worker.name)
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'A name is 1 to 56 lower-case letters, digits, dots, underscores and hyphens, begins and ends'
                         ' with a letter or digit, and does not begin with reconciler-.';
    ELSIF create_queue_worker.url !~ '^https?://[^[:space:]]+$' OR create_queue_worker.url IS NULL THEN
        RAISE EXCEPTION 'the worker % has no address that can be called: %', create_queue_worker.name,
            quote_nullable(create_queue_worker.url)
            USING ERRCODE = 'invalid_parameter_value', HINT = 'It begins with http:// or https:// and holds no blanks.';
    ELSIF create_queue_worker.schedule IS NULL THEN
        RAISE EXCEPTION 'the worker % has no schedule', create_queue_worker.name
            USING ERRCODE = 'invalid_parameter_value', HINT = 'For instance * * * * *, for each minute.';
    END IF;
    definition := reconciler.find_queue_worker(create_queue_worker.name);
    IF definition.name IS NULL THEN
        SELECT j.jobid INTO entry_id FROM cron.job j
         WHERE j.jobname::text = create_queue_worker.name AND j.username = current_user;
        IF FOUND THEN
            RAISE EXCEPTION 'cron.job holds an entry % (jobid %) that nobody declared', create_queue_worker.name, entry_id
                USING ERRCODE = 'duplicate_object',
                      HINT = format('First: SELECT cron.unschedule(%s); or choose another name.', entry_id);
        END IF;
    ELSE
        entry_id := reconciler.find_queue_worker_entry(definition);
    END IF;
    IF NOT reconciler.can_send() THEN
        RAISE EXCEPTION 'this database cannot send requests' USING ERRCODE = 'feature_not_supported',
            HINT = 'As an administrator: CREATE EXTENSION http, or pg_net.';
    END IF;

    -- pg_cron refuses a schedule that it cannot read.
    SELECT * INTO entry FROM cron.job j WHERE j.jobid = entry_id;
    IF FOUND AND entry.jobname::text = create_queue_worker.name
       AND has_function_privilege('cron.alter_job(bigint,text,text,text,text,boolean)', 'EXECUTE')
    THEN
        PERFORM cron.alter_job(entry_id, schedule := create_queue_worker.schedule, command := call,
                               database := current_database()::text, active := true);
        maker := entry.username;
    ELSE
        -- cron.schedule, which is for everybody, neither renames nor activates.
        IF FOUND AND NOT (entry.active AND entry.jobname::text = create_queue_worker.name
                          AND entry.username = current_user AND entry.database = current_database()) THEN
            PERFORM cron.unschedule(entry_id);
        END IF;
        entry_id := cron.schedule(create_queue_worker.name, create_queue_worker.schedule, call);
    END IF;
    PERFORM reconciler.store_queue_worker(
        create_queue_worker.name, create_queue_worker.url, create_queue_worker.token, create_queue_worker.schedule,
        entry_id, maker);
    RETURN entry_id;
END
$$;
COMMENT ON FUNCTION reconciler.create_queue_worker(text, text, text, text) IS
    'Make or change a worker that calls a run endpoint with a bearer token; returns its jobid';

-- Returns false where there is none.
CREATE FUNCTION reconciler.drop_queue_worker(name text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    definition reconciler.definitions := reconciler.find_queue_worker(drop_queue_worker.name);
BEGIN
    IF definition.name IS NULL THEN
        RETURN false;
    END IF;
    PERFORM cron.unschedule(jobid) FROM reconciler.find_queue_worker_entry(definition) AS jobid WHERE jobid IS NOT NULL;
    PERFORM reconciler.forget_queue_worker(definition.name);
    RETURN true;
END
$$;
COMMENT ON FUNCTION reconciler.drop_queue_worker(text) IS
    'Remove a worker that create_queue_worker made, with its entry and its token';

-- Whether requests can be sent, as the owner sees it.
CREATE FUNCTION reconciler.can_send() RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN reconciler.find_http() IS NOT NULL OR reconciler.has_pg_net();
END
$$;

CREATE FUNCTION reconciler.allow_queue_workers(role name) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format(
        'GRANT EXECUTE ON FUNCTION reconciler.create_queue_worker, reconciler.drop_queue_worker,'
        ' reconciler.find_queue_worker, reconciler.find_queue_worker_entry, reconciler.store_queue_worker,'
        ' reconciler.forget_queue_worker TO %I', role);
END
$$;
COMMENT ON FUNCTION reconciler.allow_queue_workers IS
    'Let a role make, change and remove workers in SQL; it also needs USAGE on the schema cron';

REVOKE EXECUTE ON FUNCTION
    reconciler.end_answered, reconciler.find_request, reconciler.find_queue_worker, reconciler.store_queue_worker,
    reconciler.forget_queue_worker, reconciler.find_queue_worker_entry, reconciler.create_queue_worker,
    reconciler.drop_queue_worker, reconciler.allow_queue_workers
FROM PUBLIC;
