-- Makes a test database as good as new, in one round trip. What was there before the first test is named in
-- the settings clean.roles, clean.schemas and clean.extensions, separated by commas. The schema with the number
-- clean.kept is left to tests/kept_schema.py.
DO $clean$
DECLARE
    kept_roles text[] := string_to_array(current_setting('clean.roles'), ',');
    kept_schemas text[] := string_to_array(current_setting('clean.schemas'), ',');
    kept_extensions text[] := string_to_array(current_setting('clean.extensions'), ',');
    kept_schema oid := current_setting('clean.kept')::oid;
    roles text;
    one record;
BEGIN
    SET LOCAL client_min_messages = error;  -- not a line for each object that a cascade takes along
    CREATE EXTENSION IF NOT EXISTS pg_cron WITH SCHEMA pg_catalog;
    -- First, and at once: the launcher must start nothing more.
    DELETE FROM cron.job;
    COMMIT;
    SET LOCAL client_min_messages = error;

    -- Runs and sessions that hold locks. Runs in background workers have the type pg_cron.
    PERFORM pg_terminate_backend(pid, 5000)
    FROM pg_stat_activity
    WHERE pid <> pg_backend_pid()
        AND datname = current_database()
        AND backend_type IN ('client backend', 'pg_cron');
    DELETE FROM cron.job_run_details;

    FOR one IN SELECT extname AS name FROM pg_extension WHERE extname <> ALL (kept_extensions) LOOP
        EXECUTE format('DROP EXTENSION IF EXISTS %I CASCADE', one.name);
    END LOOP;
    FOR one IN SELECT evtname AS name FROM pg_event_trigger LOOP
        EXECUTE format('DROP EVENT TRIGGER %I', one.name);
    END LOOP;
    FOR one IN
        SELECT nspname AS name FROM pg_namespace
         WHERE (nspname !~ '^pg_' AND nspname <> ALL (kept_schemas) OR nspname = 'pg_reconciler_kept')
           AND oid <> kept_schema
    LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', one.name);
    END LOOP;
    DROP SCHEMA IF EXISTS public CASCADE;
    CREATE SCHEMA public AUTHORIZATION pg_database_owner;
    GRANT USAGE ON SCHEMA public TO PUBLIC;
    CREATE EXTENSION IF NOT EXISTS pg_cron WITH SCHEMA pg_catalog;  -- 1.4 may have been in public

    SELECT string_agg(quote_ident(rolname), ', ') INTO roles
    FROM pg_roles
    WHERE rolname !~ '^pg_' AND rolname <> ALL (kept_roles);
    IF roles IS NOT NULL THEN
        EXECUTE 'DROP OWNED BY ' || roles || ' CASCADE';
        EXECUTE 'DROP ROLE ' || roles;
    END IF;
    -- ALTER ROLE ... SET and ALTER DATABASE ... SET of those that stay.
    FOR one IN
        SELECT pg_get_userbyid(setrole) AS role, datname AS database, setrole, setdatabase
        FROM pg_db_role_setting
        LEFT JOIN pg_database ON pg_database.oid = setdatabase
    LOOP
        IF one.setrole = 0 THEN
            EXECUTE format('ALTER DATABASE %I RESET ALL', one.database);
        ELSIF one.setdatabase = 0 THEN
            EXECUTE format('ALTER ROLE %I RESET ALL', one.role);
        ELSE
            EXECUTE format('ALTER ROLE %I IN DATABASE %I RESET ALL', one.role, one.database);
        END IF;
    END LOOP;
END
$clean$;
