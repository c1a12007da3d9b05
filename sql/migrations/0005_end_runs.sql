-- End runs: what follows from an end (state, retry, alerts, dependents) is one unit with it.
--
-- The functions that everybody may call run with the owner's rights and a pinned search_path, which holds for those
-- that they call in turn (and that nobody else may call). A run is ended with a token that
-- start_run gives to who starts it, so that a body cannot report on its own run.

DROP PROCEDURE reconciler.run_job(text);
DROP FUNCTION reconciler.start_run(text);
DROP FUNCTION reconciler.finish_run(bigint, text, bigint, text, text, text, text);
DROP FUNCTION reconciler.queue_run(bigint);

-- In plpgsql, which keeps the plan: it is asked for twice in each run.
CREATE FUNCTION reconciler.make_token(run_id bigint) RETURNS bytea
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN (SELECT sha256(key || int8send(run_id)) FROM reconciler.run_key);
END
$$;

-- The role of a job: its entry's, else the declared one, else that of the runner for all who name none.
CREATE FUNCTION reconciler.find_role(username text, spec json) RETURNS text
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    -- Without a query where that is enough: every start of a run asks.
    IF username IS NOT NULL THEN
        RETURN username;
    ELSIF spec ->> 'role' IS NOT NULL THEN
        RETURN spec ->> 'role';
    END IF;
    RETURN coalesce(
        (SELECT d.username FROM reconciler.definitions d WHERE d.name = 'reconciler-runner'),
        (SELECT r.rolname FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner WHERE n.nspname = 'reconciler'));
END
$$;

-- Whether who connected is the owner, or a role that the runtime's own entries run as. For functions that run with
-- the owner's rights.
CREATE FUNCTION reconciler.is_runtime() RETURNS boolean
LANGUAGE sql STABLE
AS $$
    SELECT pg_catalog.pg_has_role(session_user, current_user, 'MEMBER') OR EXISTS (
        SELECT FROM reconciler.definitions d
         WHERE d.username = session_user AND pg_catalog.starts_with(d.name, 'reconciler-'))
$$;

-- Whether a backend holds the lock of a run: the one sign of life that every role can see of every backend.
CREATE FUNCTION reconciler.find_holder(lock_key bigint, pid integer DEFAULT NULL) RETURNS integer
LANGUAGE sql STABLE
AS $$
    SELECT l.pid FROM pg_locks l
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
       AND l.classid::bigint = (lock_key >> 32) & 4294967295 AND l.objid::bigint = lock_key & 4294967295
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND l.pid = coalesce(find_holder.pid, l.pid)
     LIMIT 1
$$;

-- The wait before a retry; reconciler.core.retries has the same rule. chance is at least 0 and below 1.
CREATE FUNCTION reconciler.next_wait(
    attempt integer, initial interval, factor numeric, maximum interval, chance double precision
) RETURNS interval
LANGUAGE sql IMMUTABLE
AS $$
    SELECT make_interval(secs => (0.5 + chance / 2) * least(
        extract(epoch FROM maximum)::double precision,
        extract(epoch FROM initial)::double precision * least(factor::double precision ^ least(attempt - 1, 1000), 1e12)))
$$;

-- Open an alert, or count one more occurrence of the open one: its channels are told once, then reminded.
CREATE FUNCTION reconciler.open_alert(
    job_name text, kind text, run_id bigint, message text, details jsonb, channels text[], remind interval
) RETURNS void
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    opened bigint;
    is_new boolean;
BEGIN
    INSERT INTO reconciler.alerts AS a (job_name, kind, run_id, message, details, channels, remind, resolved_at)
    VALUES (open_alert.job_name, open_alert.kind, open_alert.run_id, open_alert.message, open_alert.details,
            open_alert.channels, open_alert.remind,
            -- What only tells of an event has nothing to be resolved.
            CASE WHEN open_alert.kind IN ('recovered', 'test') THEN clock_timestamp() END)
        ON CONFLICT (job_name, kind) WHERE resolved_at IS NULL DO UPDATE
           -- What is told of one run while it goes on and again when it ends is one occurrence.
       SET occurrences = a.occurrences + CASE WHEN a.run_id = excluded.run_id THEN 0 ELSE 1 END,
           last_seen_at = clock_timestamp(),
           run_id = excluded.run_id, message = excluded.message, details = excluded.details
    RETURNING a.id, a.occurrences = 1 INTO opened, is_new;
    IF is_new AND open_alert.channels <> '{}' THEN
        INSERT INTO reconciler.alert_deliveries (alert_id, channel)
        SELECT opened, channel FROM unnest(open_alert.channels) AS channel
            ON CONFLICT DO NOTHING;
        IF FOUND THEN
            PERFORM pg_notify('reconciler_alerts', '');
        END IF;
    END IF;
END
$$;

-- Close what a good run proves to be over, and tell of it those who were told.
CREATE FUNCTION reconciler.resolve_alerts(
    job_name text, run_id bigint, kinds text[], alert_on text[], channels text[]
) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    opened timestamptz;
    what text;
    counted bigint;
BEGIN
    WITH resolved AS (
        UPDATE reconciler.alerts a SET resolved_at = clock_timestamp()
         WHERE a.job_name = resolve_alerts.job_name AND a.resolved_at IS NULL
           AND a.kind = ANY (resolve_alerts.kinds)
        RETURNING a.kind, a.opened_at, a.occurrences
    )
    SELECT min(r.opened_at), string_agg(r.kind, ', ' ORDER BY r.kind), sum(r.occurrences)
      INTO opened, what, counted FROM resolved r;
    IF what IS NOT NULL AND 'recovered' = ANY (alert_on) THEN
        PERFORM reconciler.open_alert(job_name, 'recovered', run_id,
            format('%s succeeded again (%s since %s UTC)', job_name, what,
                   to_char(opened AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')),
            jsonb_build_object('kinds', what, 'since', opened, 'occurrences', counted), channels, '1 day');
    END IF;
END
$$;

-- How long a run of this job may take before it counts as slow; null where nobody asked or nothing is known yet.
-- The usual time is the median of the last 20 good runs before this one, known from the fifth on.
CREATE FUNCTION reconciler.find_slow_limit(policy reconciler.policies, run_id bigint) RETURNS interval
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    IF policy.slow_limit IS NOT NULL THEN
        RETURN policy.slow_limit;
    END IF;
    RETURN (
        SELECT CASE WHEN count(*) >= 5 THEN
                    coalesce(policy.slow_factor, 3)::double precision
                    * percentile_cont(0.5) WITHIN GROUP (ORDER BY l.completed_at - l.run_at) END
          FROM (SELECT newest.run_at, newest.completed_at
                  -- Where the newest thousand are no good runs, nothing is usual.
                  FROM (SELECT n.id, n.run_at, n.completed_at, n.status FROM reconciler.cron_execution_log n
                         WHERE n.job_name = policy.name ORDER BY n.run_at DESC LIMIT 1000) AS newest
                 WHERE newest.status = 'succeeded' AND newest.id <> run_id
                 ORDER BY newest.run_at DESC LIMIT 20) AS l);
END
$$;

-- Which of the jobs that a job waits for have not succeeded since its own last run.
CREATE FUNCTION reconciler.find_unmet(job_name text, after text[]) RETURNS text[]
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    since timestamptz;
BEGIN
    -- Not by the log: there may be any number of skipped runs since.
    since := greatest(
        (SELECT s.last_run_at FROM reconciler.job_states s WHERE s.name = find_unmet.job_name),
        (SELECT max(l.run_at) FROM reconciler.cron_execution_log l
          WHERE l.status = 'running' AND l.job_name = find_unmet.job_name));
    RETURN ARRAY(
        SELECT other FROM unnest(find_unmet.after) AS other
          LEFT JOIN reconciler.job_states s ON s.name = other
         WHERE s.last_succeeded_at IS NULL OR s.last_succeeded_at <= since
         ORDER BY other);
END
$$;

-- Let those start that waited for this job; a job whose only trigger is `after` starts anew each time.
CREATE FUNCTION reconciler.start_dependents(job_name text) RETURNS void
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
           AND coalesce((d.spec ->> 'active')::boolean, true)
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

-- End the one-time work that a run was to do, when it is not tried again.
CREATE FUNCTION reconciler.end_queued_job(run reconciler.cron_execution_log, final text, error_message text)
RETURNS void
LANGUAGE sql
AS $$
    UPDATE reconciler.jobs j
       SET status = CASE WHEN final = 'succeeded' THEN 'completed' WHEN final = 'cancelled' THEN 'cancelled'
                         ELSE 'failed' END,
           completed_at = clock_timestamp(), last_error = nullif(error_message, ''), attempts = run.attempt
     WHERE j.id = run.queued_job_id AND j.status = 'running'
$$;

-- End a run, whoever finds out that it is over: the log, the job's state, retry, alerts and dependents are one
-- unit. The caller holds the run's row.
CREATE FUNCTION reconciler.end_run(
    run reconciler.cron_execution_log, final text, rows_affected bigint DEFAULT NULL,
    error_sqlstate text DEFAULT NULL, error_message text DEFAULT NULL,
    error_detail text DEFAULT NULL, error_context text DEFAULT NULL, response_status integer DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    ended timestamptz := greatest(clock_timestamp(), run.run_at);
    is_failure boolean := final IN ('failed', 'timed_out', 'lost');
    policy reconciler.policies;
    failures integer;
    kind text;
    slow interval;
    is_slow boolean;
BEGIN
    UPDATE reconciler.cron_execution_log l
       SET status = final, completed_at = ended, rows_affected = end_run.rows_affected,
           error_sqlstate = nullif(end_run.error_sqlstate, ''), error_message = nullif(end_run.error_message, ''),
           error_detail = nullif(end_run.error_detail, ''), error_context = nullif(end_run.error_context, ''),
           response_status = end_run.response_status
     WHERE l.id = run.id;
    SELECT p.* INTO policy FROM reconciler.policies p
     WHERE p.name = (SELECT d.name FROM reconciler.definitions d WHERE d.id = run.definition_id);
    IF NOT FOUND THEN
        -- Its job was withdrawn meanwhile, or it never had one.
        IF run.queued_job_id IS NOT NULL THEN
            PERFORM reconciler.end_queued_job(run, final, end_run.error_message);
        END IF;
        RETURN;
    END IF;
    INSERT INTO reconciler.job_states AS s
           (name, last_run_id, last_run_at, last_status, last_error, last_duration, last_succeeded_at,
            consecutive_failures, total_runs, failed_runs)
    VALUES (policy.name, run.id, run.run_at, final, nullif(end_run.error_message, ''), ended - run.run_at,
            CASE WHEN final = 'succeeded' THEN ended END, is_failure::integer, 1, is_failure::integer)
        ON CONFLICT (name) DO UPDATE
       SET last_run_id = excluded.last_run_id, last_run_at = excluded.last_run_at,
           last_status = excluded.last_status, last_error = excluded.last_error,
           last_duration = excluded.last_duration,
           last_succeeded_at = coalesce(excluded.last_succeeded_at, s.last_succeeded_at),
           consecutive_failures = CASE WHEN is_failure THEN s.consecutive_failures + 1
                                       WHEN final = 'succeeded' THEN 0 ELSE s.consecutive_failures END,
           total_runs = s.total_runs + 1, failed_runs = s.failed_runs + is_failure::integer
    RETURNING s.consecutive_failures INTO failures;

    IF run.handed_over THEN
        NULL;  -- its tries were the worker's, and the queued job has its end already
    ELSIF is_failure AND run.attempt <= policy.retries THEN
        INSERT INTO reconciler.starts (job_name, trigger, due_at, scheduled_at, attempt, chain_id, queued_job_id)
        VALUES (policy.name, 'retry',
                clock_timestamp() + reconciler.next_wait(run.attempt, policy.backoff_initial, policy.backoff_factor,
                    policy.backoff_max, CASE WHEN policy.jitter THEN random() ELSE 1 END),
                run.due_at, run.attempt + 1, coalesce(run.chain_id, run.id), run.queued_job_id)
            ON CONFLICT (job_name, trigger, coalesce(scheduled_at, '-infinity')) DO NOTHING;
    ELSIF run.queued_job_id IS NOT NULL THEN
        PERFORM reconciler.end_queued_job(run, final, end_run.error_message);
    END IF;

    IF is_failure THEN
        kind := CASE WHEN final = 'lost' THEN 'lost' ELSE 'failed' END;
        IF kind = ANY (policy.alert_on) AND (kind = 'lost' OR failures >= policy.alert_after) THEN
            PERFORM reconciler.open_alert(policy.name, kind, run.id,
                format('%s %s%s: %s', policy.name, replace(final, '_', ' '),
                       CASE WHEN failures > 1 THEN format(' %s times in a row', failures) ELSE '' END,
                       coalesce(nullif(end_run.error_message, ''), 'no message')),
                jsonb_build_object('status', final, 'failures', failures, 'attempt', run.attempt,
                                   'sqlstate', end_run.error_sqlstate, 'run_at', run.run_at),
                policy.channels, policy.remind);
        END IF;
    ELSIF final = 'succeeded' THEN
        IF policy.retries > 0 THEN
            -- What another run has done meanwhile is not tried again.
            DELETE FROM reconciler.starts s
             WHERE s.job_name = policy.name AND s.trigger = 'retry'
               AND coalesce(s.scheduled_at, '-infinity') = coalesce(run.due_at, '-infinity');
        END IF;
        IF 'slow' = ANY (policy.alert_on) THEN
            slow := reconciler.find_slow_limit(policy, run.id);
        END IF;
        is_slow := slow IS NOT NULL AND ended - run.run_at > slow;
        IF is_slow THEN
            PERFORM reconciler.open_alert(policy.name, 'slow', run.id,
                format('%s took %s, more than %s', policy.name, ended - run.run_at, slow),
                jsonb_build_object('duration', ended - run.run_at, 'limit', slow, 'run_at', run.run_at),
                policy.channels, policy.remind);
        END IF;
        -- Most runs have no alert to close and nobody who waits for them.
        IF EXISTS (SELECT FROM reconciler.alerts a WHERE a.job_name = policy.name AND a.resolved_at IS NULL) THEN
            PERFORM reconciler.resolve_alerts(policy.name, run.id,
                CASE WHEN is_slow THEN ARRAY['failed', 'lost', 'missed']
                     ELSE ARRAY['failed', 'lost', 'missed', 'slow'] END, policy.alert_on, policy.channels);
        END IF;
        IF EXISTS (SELECT FROM reconciler.dependencies d WHERE d.after_name = policy.name) THEN
            PERFORM reconciler.start_dependents(policy.name);
        END IF;
    END IF;
END
$$;

-- End a run that the caller started. What the tick or a person asked for counts as the reason of its cancelling.
CREATE FUNCTION reconciler.finish_run(
    run_id bigint, token bytea, outcome text, rows_affected bigint DEFAULT NULL,
    error_sqlstate text DEFAULT NULL, error_message text DEFAULT NULL,
    error_detail text DEFAULT NULL, error_context text DEFAULT NULL, response_status integer DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    run reconciler.cron_execution_log;
    final text := outcome;
BEGIN
    IF outcome IS NULL OR outcome NOT IN ('succeeded', 'failed', 'cancelled') THEN
        RAISE EXCEPTION 'a run ends as succeeded, failed or cancelled, not as %', outcome
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF token IS DISTINCT FROM reconciler.make_token(run_id) THEN
        RAISE EXCEPTION 'run % was not started here', run_id USING ERRCODE = 'insufficient_privilege',
            HINT = 'Only who starts a run gets the token that ends it.';
    END IF;
    SELECT * INTO run FROM reconciler.cron_execution_log l WHERE l.id = finish_run.run_id FOR UPDATE;
    -- A run that was given up as lost, and was not, still knows best how it ended.
    IF NOT FOUND OR run.status NOT IN ('running', 'lost') THEN
        RAISE EXCEPTION 'run % is not running', run_id USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF run.status = 'lost' THEN
        -- It counts once.
        UPDATE reconciler.job_states s
           SET total_runs = s.total_runs - 1, failed_runs = s.failed_runs - 1,
               consecutive_failures = greatest(s.consecutive_failures - 1, 0)
          FROM reconciler.definitions d WHERE d.id = run.definition_id AND s.name = d.name;
        DELETE FROM reconciler.starts s
         WHERE s.trigger = 'retry' AND s.chain_id = coalesce(run.chain_id, run.id);
        UPDATE reconciler.jobs j SET status = 'running', completed_at = NULL
         WHERE j.id = run.queued_job_id AND j.status = 'failed';
    END IF;
    IF outcome = 'cancelled' THEN
        final := CASE WHEN run.stop_reason IS NOT NULL THEN run.stop_reason
                      WHEN run.deadline_at <= clock_timestamp()
                        OR error_message ~ '(statement timeout|^no answer within )'
                      THEN 'timed_out' ELSE 'cancelled' END;
        -- The server says only that somebody asked for it.
        error_message := CASE run.stop_reason
            WHEN 'timed_out' THEN concat('took longer than its timeout', (
                SELECT ' of ' || p.timeout FROM reconciler.policies p JOIN reconciler.definitions d ON d.name = p.name
                 WHERE d.id = run.definition_id))
            WHEN 'cancelled' THEN 'cancelled by ' || run.stop_by ELSE error_message END;
    END IF;
    PERFORM reconciler.end_run(
        run, final, rows_affected, error_sqlstate, error_message, error_detail, error_context, response_status);
    RETURN final;
END
$$;

-- The lock goes after the commit, so that the next run sees what this one did.
CREATE FUNCTION reconciler.release_run(lock_key bigint, shared boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF shared THEN
        PERFORM pg_advisory_unlock_shared(lock_key);
    ELSE
        PERFORM pg_advisory_unlock(lock_key);
    END IF;
END
$$;
