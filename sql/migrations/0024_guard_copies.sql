-- What does nothing in a copy: the tick, the runner, claims of queued jobs, messages that the database sends, and
-- executions of what nobody declared.

-- Let the entries of mode direct rest, which would run in a copy as they do at home; as far as the caller may. A
-- claim does not switch them on again: the next apply does.
CREATE PROCEDURE reconciler.stop_direct_entries()
LANGUAGE plpgsql
AS $$
DECLARE
    entry bigint;
BEGIN
    IF pg_catalog.to_regclass('cron.job') IS NULL THEN
        RETURN;
    END IF;
    -- Numbers begin anew where the extension was made anew: what only has the number of one of ours is let alone.
    FOR entry IN SELECT j.jobid
                   FROM cron.job j
                   JOIN reconciler.list_direct_entries() AS d
                     ON d.jobid = j.jobid AND d.name = j.jobname::text AND d.command = j.command
                  WHERE j.active ORDER BY j.jobid
    LOOP
        BEGIN
            PERFORM cron.alter_job(entry, active := false);
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'the entry % goes on in this copy: %', entry, SQLERRM;
        END;
    END LOOP;
    COMMIT;
END
$$;

-- As before, at home.
CREATE OR REPLACE PROCEDURE reconciler.tick(
    keep_runs interval DEFAULT '30 days', keep_details interval DEFAULT '7 days', stay interval DEFAULT '0'
)
LANGUAGE plpgsql
AS $$
DECLARE
    began    timestamptz := pg_catalog.clock_timestamp();
    step     text;
    problem  text;
    problems text := '';
    deleted  bigint;
BEGIN
    COMMIT;
    IF NOT reconciler.is_home() THEN
        CALL reconciler.stop_direct_entries();
        PERFORM reconciler.require_home();
    END IF;
    COMMIT;
    IF NOT pg_catalog.pg_try_advisory_lock(7411530208936422) THEN
        RETURN;
    END IF;
    LOOP
        FOREACH step IN ARRAY ARRAY['stop_overdue', 'mark_lost', 'collect_answers', 'rescue_jobs', 'settle_runs',
                                    'start_once', 'find_missed', 'wake_dependents', 'find_slow', 'send_reminders',
                                    'end_pauses', 'forget_workers', 'clear_history', 'clear_details'] LOOP
            -- Up to 50,000 rows of each kind in a round: more than a busy queue finishes until the next one.
            FOR round IN 1..50 LOOP
                problem := NULL;
                deleted := 0;
                -- A step that fails must not keep the others from their work.
                BEGIN
                    IF step = 'clear_history' THEN
                        deleted := reconciler.clear_history(keep_runs, 1000);
                    ELSIF step = 'clear_details' THEN
                        deleted := reconciler.clear_details(keep_details, 1000);
                    ELSE
                        problem := reconciler.tick_step(step);
                    END IF;
                EXCEPTION WHEN assert_failure OR OTHERS THEN
                    problem := SQLERRM;
                END;
                COMMIT;
                EXIT WHEN deleted = 0 OR problem IS NOT NULL;
            END LOOP;
            IF problem IS NOT NULL AND pg_catalog.strpos(problems, problem) = 0 THEN
                problems := problems || step || ': ' || problem || '; ';
            END IF;
        END LOOP;
        EXIT WHEN pg_catalog.clock_timestamp() >= began + stay;
        -- What fires together with the tick may not have begun yet.
        EXIT WHEN NOT reconciler.is_watching(
                CASE WHEN stay <= interval '1 minute' THEN began + stay ELSE 'infinity' END)
            AND (stay < interval '30 seconds' OR pg_catalog.clock_timestamp() > began + interval '3 seconds');
        COMMIT;
        PERFORM pg_catalog.pg_sleep(1);
        COMMIT;
    END LOOP;
    PERFORM pg_catalog.pg_advisory_unlock(7411530208936422);
    IF problems <> '' THEN
        RAISE EXCEPTION 'the tick could not do all of its work: %', pg_catalog.rtrim(problems, '; ');
    END IF;
END
$$;

-- As before, at home.
CREATE OR REPLACE PROCEDURE reconciler.runner(stay interval DEFAULT '0')
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
    PERFORM reconciler.require_home();
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

-- As before, at home.
CREATE OR REPLACE FUNCTION reconciler.claim_delivery(OUT delivery_id bigint, OUT attempts integer)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE reconciler.alert_deliveries d
       SET attempts = d.attempts + 1, claimed_until = clock_timestamp() + interval '1 minute'
     WHERE d.id = (
           SELECT o.id FROM reconciler.alert_deliveries o
             JOIN reconciler.definitions c ON c.name = o.channel AND c.kind = 'channel'
                                          AND c.spec ->> 'deliver' = 'database'
            WHERE reconciler.is_runtime() AND reconciler.is_home() AND o.status = 'pending' AND o.due_at <= clock_timestamp()
              AND (o.claimed_until IS NULL OR o.claimed_until <= clock_timestamp())
            ORDER BY o.due_at, o.id LIMIT 1 FOR UPDATE OF o SKIP LOCKED)
    RETURNING d.id, d.attempts
$$;

-- As before, at home.
CREATE OR REPLACE FUNCTION reconciler.claim_jobs(
    queue text, worker text, max integer, priorities integer[] DEFAULT '{}', sinces timestamptz[] DEFAULT '{}',
    status text DEFAULT 'pending', since_ids bigint[] DEFAULT '{}'
) RETURNS SETOF reconciler.claimed_job
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    settings reconciler.queues := reconciler.find_queue(queue);
    state reconciler.queue_states;
    now timestamptz;
    room integer := least(max, 10000);
    has_order boolean;
    is_locked boolean;
    begun integer := 0;
    found integer;
    heads record;
    job reconciler.jobs_finished;
    bound bigint := 2147483648;
    known bigint;
    unknown bigint;
    first_due timestamptz;
    place integer;
    since timestamptz;
    since_id bigint;
BEGIN
    IF NOT reconciler.is_home() THEN
        PERFORM reconciler.require_home();
    END IF;
    IF max < 1 OR status NOT IN ('pending', 'failed') THEN
        PERFORM reconciler.refuse_job('claim_jobs takes a number from 1 on, and the status pending or failed', NULL);
    END IF;
    IF settings.mode = 'blocking' THEN
        -- Put in a transaction that began, or given back by a worker that claimed, before the queue was blocking.
        UPDATE reconciler.jobs_open j SET ordering_key = ''
         WHERE j.queue = settings.name AND j.status = 'pending' AND j.ordering_key IS NULL
           AND j.handler IS NOT NULL AND j.active;
        UPDATE reconciler.jobs_open j SET ordering_key = ''
         WHERE j.queue = settings.name AND j.status = 'pending' AND j.ordering_key > ''
           AND j.handler IS NOT NULL AND j.active;
    END IF;
    has_order := EXISTS (
        SELECT FROM reconciler.jobs_open j
         WHERE j.queue = settings.name AND j.status = 'pending' AND j.ordering_key IS NOT NULL
           AND j.handler IS NOT NULL AND j.active) OR claim_jobs.status = 'failed';
    is_locked := has_order OR settings.concurrency IS NOT NULL OR settings.rate_count IS NOT NULL;
    IF is_locked THEN
        state := reconciler.lock_queue(settings.name);
        now := clock_timestamp();
        room := least(room, reconciler.find_room(settings, state, now));
    END IF;
    -- After the count: no start is noted as earlier than the ends that made room for it.
    now := clock_timestamp();

    IF claim_jobs.status = 'failed' THEN
        FOR job IN SELECT * FROM reconciler.jobs_finished j
                    WHERE j.queue = settings.name AND j.status = 'failed' AND j.handler IS NOT NULL
                    ORDER BY j.completed_at LIMIT room + 1000 FOR UPDATE SKIP LOCKED
        LOOP
            EXIT WHEN begun >= room;
            -- Those that may not run now are passed over, up to a thousand.
            CONTINUE WHEN EXISTS (
                SELECT FROM reconciler.jobs_open o
                 WHERE o.queue = job.queue AND (o.unique_key = job.unique_key
                       OR o.ordering_key = job.ordering_key AND o.status = 'running'));
            job.status := 'running';
            job.token := job.token + 1;
            job.attempts := job.attempts + 1;
            job.started_at := now;
            job.lease_until := now + settings.lease;
            job.worker := claim_jobs.worker;
            job.completed_at := NULL;
            job.cancelled_by := NULL;
            job.losses := 0;
            job.run_id := NULL;
            job.ordering_key := CASE WHEN settings.mode = 'blocking' THEN '' ELSE job.ordering_key END;
            -- By hand: who waits for a row that an UPDATE moves to the other table gets an error.
            DELETE FROM reconciler.jobs_finished j WHERE j.id = job.id;
            INSERT INTO reconciler.jobs_open SELECT job.*;
            begun := begun + 1;
            RETURN NEXT ROW(
                job.id, job.token, job.handler, job.payload, job.attempts,
                coalesce(job.max_attempts, settings.max_attempts), job.priority, job.run_at,
                extract(epoch FROM coalesce(job.timeout, settings.timeout))::double precision,
                extract(epoch FROM settings.lease)::double precision,
                job.type, job.job_name, job.ordering_key, job.unique_key, job.queue, job.created_at
            )::reconciler.claimed_job;
        END LOOP;
        room := 0;
    ELSIF has_order AND room > 0 THEN
        heads := reconciler.find_heads(settings, state.last_key, room, now);
        now := clock_timestamp();
        IF heads.key <> state.last_key THEN
            UPDATE reconciler.queue_states s SET last_key = heads.key WHERE s.queue = settings.name;
        END IF;
        IF heads.ids <> '{}' THEN
            RETURN QUERY
            UPDATE reconciler.jobs_open j
               SET status = 'running', token = j.token + 1, attempts = j.attempts + 1, started_at = now,
                   lease_until = now + settings.lease, worker = claim_jobs.worker
             WHERE j.id = ANY (heads.ids) AND j.status = 'pending'
            RETURNING j.id, j.token, j.handler, j.payload, j.attempts,
                      coalesce(j.max_attempts, settings.max_attempts), j.priority, j.run_at,
                      extract(epoch FROM coalesce(j.timeout, settings.timeout))::double precision,
                      extract(epoch FROM settings.lease)::double precision,
                      j.type, j.job_name, j.ordering_key, j.unique_key, j.queue, j.created_at;
            GET DIAGNOSTICS found = ROW_COUNT;
            begun := begun + found;
            room := room - found;
        END IF;
    END IF;

    -- Priority by priority, from the highest: within each the index has the order.
    WHILE room > 0 AND settings.mode <> 'blocking' LOOP
        SELECT coalesce(pg_catalog.max(p.priority), -2147483649) INTO known
          FROM unnest(claim_jobs.priorities) AS p (priority) WHERE p.priority < bound;
        SELECT j.priority, j.run_at INTO unknown, first_due FROM reconciler.jobs_open j
         WHERE j.queue = settings.name AND j.status = 'pending' AND j.ordering_key IS NULL AND j.handler IS NOT NULL
           AND j.active AND j.priority < bound AND j.priority > known
         ORDER BY j.priority DESC, j.run_at LIMIT 1;
        bound := coalesce(unknown, known);
        EXIT WHEN bound < -2147483648;
        CONTINUE WHEN unknown IS NOT NULL AND first_due > now;
        place := CASE WHEN unknown IS NULL THEN array_position(claim_jobs.priorities, known::integer) END;
        since := coalesce(claim_jobs.sinces[place], '-infinity');
        since_id := coalesce(claim_jobs.since_ids[place], 0);
        RETURN QUERY
        UPDATE reconciler.jobs_open j
           SET status = 'running', token = j.token + 1, attempts = j.attempts + 1, started_at = now,
               lease_until = now + settings.lease, worker = claim_jobs.worker
         WHERE j.ctid = ANY (ARRAY(
               SELECT r.ctid FROM reconciler.jobs_open r
                WHERE r.queue = settings.name AND r.status = 'pending' AND r.ordering_key IS NULL
                  AND r.handler IS NOT NULL AND r.active AND r.priority = bound
                  AND r.run_at <= now AND (r.run_at, r.id) >= (since, since_id)
                ORDER BY r.run_at, r.id LIMIT room FOR UPDATE SKIP LOCKED))
           AND j.status = 'pending'
        RETURNING j.id, j.token, j.handler, j.payload, j.attempts,
                  coalesce(j.max_attempts, settings.max_attempts), j.priority, j.run_at,
                  extract(epoch FROM coalesce(j.timeout, settings.timeout))::double precision,
                  extract(epoch FROM settings.lease)::double precision,
                  j.type, j.job_name, j.ordering_key, j.unique_key, j.queue, j.created_at;
        GET DIAGNOSTICS found = ROW_COUNT;
        begun := begun + found;
        room := room - found;
    END LOOP;
    IF begun > 0 AND settings.rate_count IS NOT NULL THEN
        PERFORM reconciler.note_started(settings, state, begun, now);
    END IF;
END
$$;

-- As before, at home.
CREATE OR REPLACE FUNCTION reconciler.start_execution(
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
    reason := CASE WHEN reconciler.is_home() THEN reconciler.take_lock(name, lock_key, false)
                   ELSE reconciler.describe_copy() END;
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
