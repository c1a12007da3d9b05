-- What workers do with queued jobs: claim them, end them, keep their leases, rescue those of workers that are gone.
--
-- Every claim gives a new token, and whatever a worker says of a job later has to carry it: who lost his lease
-- cannot end what somebody else does now. No row matched means stale, a normal answer and no error.
--
-- The plans of these functions must not depend on statistics, which are never right for a queue: their settings leave
-- the planner nothing but the indexes in their order.

CREATE TYPE reconciler.claimed_job AS (
    id           bigint,
    token        bigint,
    handler      text,
    payload      jsonb,
    attempt      integer,
    max_attempts integer,
    priority     integer,
    run_at       timestamptz,
    -- Seconds.
    timeout      double precision,
    lease        double precision,
    type         text,
    job_name     text,
    ordering_key text,
    unique_key   text,
    queue        text,
    created_at   timestamptz
);

CREATE FUNCTION reconciler.find_queue_settings(queue text) RETURNS reconciler.queues
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT reconciler.find_queue(find_queue_settings.queue) $$;

-- The row that only one claim of a queue holds at a time. It has to be locked in a statement of its own, before
-- anything is counted: in one statement the count would be as old as its snapshot, from before the wait.
CREATE FUNCTION reconciler.lock_queue(queue text) RETURNS reconciler.queue_states
LANGUAGE plpgsql
AS $$
DECLARE
    state reconciler.queue_states;
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'jobs of the queue % are claimed in read committed transactions only', queue
            USING ERRCODE = 'invalid_transaction_state',
                HINT = 'An older snapshot does not show what other workers have claimed meanwhile.';
    END IF;
    LOOP
        SELECT * INTO state FROM reconciler.queue_states s WHERE s.queue = lock_queue.queue FOR UPDATE;
        EXIT WHEN FOUND;
        INSERT INTO reconciler.queue_states (queue) VALUES (lock_queue.queue) ON CONFLICT DO NOTHING;
    END LOOP;
    RETURN state;
END
$$;

-- How many jobs of a queue may begin now, by its limits. The caller has locked the queue.
CREATE FUNCTION reconciler.find_room(settings reconciler.queues, state reconciler.queue_states, now timestamptz)
RETURNS integer
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    room bigint := 2147483647;
BEGIN
    IF settings.concurrency IS NOT NULL THEN
        room := settings.concurrency - (
            SELECT count(*) FROM reconciler.jobs_open j
             WHERE j.queue = settings.name AND j.status = 'running' AND j.handler IS NOT NULL);
    END IF;
    IF settings.rate_count IS NOT NULL THEN
        room := least(room, settings.rate_count - (
            SELECT coalesce(sum(s.count), 0) FROM unnest(state.started, state.counts) AS s (at, count)
             WHERE s.at > now - settings.rate_per));
    END IF;
    IF settings.mode = 'blocking' THEN
        -- What began before the queue was blocking counts, too.
        room := CASE WHEN EXISTS (SELECT FROM reconciler.jobs_open j
                                   WHERE j.queue = settings.name AND j.status = 'running' AND j.handler IS NOT NULL)
                     THEN 0 ELSE least(room, 1) END;
    END IF;
    RETURN greatest(room, 0);
END
$$;

-- Which job of an ordering key comes next, if any may: those that were begun before first, then by time.
CREATE FUNCTION reconciler.find_head(queue text, key text, held_by text[], now timestamptz) RETURNS bigint
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
AS $$
DECLARE
    head record;
BEGIN
    IF EXISTS (SELECT FROM reconciler.jobs_open j
                WHERE j.queue = find_head.queue AND j.ordering_key = key AND j.status = 'running') THEN
        RETURN NULL;
    END IF;
    IF 'failed' = ANY (held_by) AND EXISTS (
        SELECT FROM reconciler.jobs_finished j
         WHERE j.queue = find_head.queue AND j.ordering_key = key AND j.status = 'failed') THEN
        RETURN NULL;
    END IF;
    FOR head IN SELECT j.id, j.run_at FROM reconciler.jobs_open j
                 WHERE j.queue = find_head.queue AND j.ordering_key = key AND j.status = 'pending'
                   AND j.handler IS NOT NULL AND j.active AND j.started_at IS NOT NULL
                 ORDER BY j.id
    LOOP
        IF head.run_at <= now THEN
            RETURN head.id;
        ELSIF 'retry' = ANY (held_by) THEN
            RETURN NULL;
        END IF;
    END LOOP;
    IF 'future' = ANY (held_by) THEN
        SELECT j.id, j.run_at INTO head FROM reconciler.jobs_open j
         WHERE j.queue = find_head.queue AND j.ordering_key = key AND j.status = 'pending'
           AND j.handler IS NOT NULL AND j.active
         ORDER BY j.id LIMIT 1;
    ELSE
        SELECT j.id, j.run_at INTO head FROM reconciler.jobs_open j
         WHERE j.queue = find_head.queue AND j.ordering_key = key AND j.status = 'pending'
           AND j.handler IS NOT NULL AND j.active
         ORDER BY j.run_at, j.id LIMIT 1;
    END IF;
    RETURN CASE WHEN head.run_at <= now THEN head.id END;
END
$$;

-- The next jobs with an order: one for each key, and each key in its turn.
CREATE FUNCTION reconciler.find_heads(
    settings reconciler.queues, last_key text, room integer, now timestamptz,
    OUT ids bigint[], OUT key text
)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
AS $$
DECLARE
    head bigint;
    next_key text;
    is_around boolean := false;
BEGIN
    ids := '{}';
    key := last_key;
    -- So many keys that have nothing to do now are passed over; the next claim goes on behind them.
    FOR looked IN 1..1000 LOOP
        EXIT WHEN cardinality(ids) >= room;
        SELECT j.ordering_key INTO next_key FROM reconciler.jobs_open j
         WHERE j.queue = settings.name AND j.status = 'pending' AND j.ordering_key IS NOT NULL
           AND j.handler IS NOT NULL AND j.active AND j.ordering_key > find_heads.key
         ORDER BY j.ordering_key LIMIT 1;
        IF next_key IS NULL AND NOT is_around THEN
            is_around := true;
            SELECT j.ordering_key INTO next_key FROM reconciler.jobs_open j
             WHERE j.queue = settings.name AND j.status = 'pending' AND j.ordering_key IS NOT NULL
               AND j.handler IS NOT NULL AND j.active
             ORDER BY j.ordering_key LIMIT 1;
        END IF;
        EXIT WHEN next_key IS NULL OR (is_around AND next_key > last_key);
        key := next_key;
        head := reconciler.find_head(settings.name, next_key, settings.held_by, now);
        IF head IS NOT NULL THEN
            ids := ids || head;
        END IF;
    END LOOP;
END
$$;

-- Note that so many jobs of a queue began. Starts are kept in slices of a twentieth of the rate's time, each until the
-- time has gone by since its end: so there are never more in any stretch of that length.
CREATE FUNCTION reconciler.note_started(settings reconciler.queues, state reconciler.queue_states, begun integer, now timestamptz)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    slice interval := greatest(settings.rate_per / 20, interval '1 millisecond');
    slice_end timestamptz := date_bin(slice, now, timestamptz '2000-01-01 UTC') + slice;
    times timestamptz[];
    numbers integer[];
BEGIN
    SELECT coalesce(array_agg(s.at ORDER BY s.at), '{}'), coalesce(array_agg(s.count ORDER BY s.at), '{}')
      INTO times, numbers
      FROM unnest(state.started, state.counts) AS s (at, count)
     WHERE s.at > now - settings.rate_per;
    IF times[cardinality(times)] = slice_end THEN
        numbers[cardinality(numbers)] := numbers[cardinality(numbers)] + begun;
    ELSE
        times := times || slice_end;
        numbers := numbers || begun;
    END IF;
    UPDATE reconciler.queue_states s SET started = times, counts = numbers WHERE s.queue = settings.name;
END
$$;

-- Claim up to max jobs of a queue for a worker. They come in no order. priorities, sinces and since_ids: of these
-- priorities only what was due at a time or later is looked at, and of what was due right then only jobs from an id
-- on, because the worker knows that it has seen what comes before: while somebody holds an old snapshot, dead rows
-- stand in front, and walking over them takes long.
-- status failed: dead jobs get one more try, those first that have been dead for longest.
CREATE FUNCTION reconciler.claim_jobs(
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
    place integer;
    since timestamptz;
    since_id bigint;
BEGIN
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
        SELECT j.priority INTO unknown FROM reconciler.jobs_open j
         WHERE j.queue = settings.name AND j.status = 'pending' AND j.ordering_key IS NULL AND j.handler IS NOT NULL
           AND j.active AND j.priority < bound AND j.priority > known
         ORDER BY j.priority DESC LIMIT 1;
        bound := coalesce(unknown, known);
        EXIT WHEN bound < -2147483648;
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

-- Below, jobs are found by the primary key alone and put together with what is said of them by a hash: with a loop in
-- place of it the planner goes through all running jobs for each one that is named. <> 'pending' keeps it from the
-- index of running jobs, which is full of dead entries while somebody holds an old snapshot. Each call gets a plan of
-- its own: one that was made when the table was empty goes through all of it.

-- End jobs that are done. Returns those that were the worker's still; the others are stale. notes: what is to be said
-- of a result that could not be kept.
CREATE FUNCTION reconciler.complete_jobs(
    ids bigint[], tokens bigint[], results jsonb[] DEFAULT NULL, notes text[] DEFAULT NULL
) RETURNS SETOF bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_nestloop = off SET enable_mergejoin = off SET enable_hashjoin = on
SET plan_cache_mode = force_custom_plan SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    now timestamptz := clock_timestamp();
    declared bigint[] := '{}';
    one record;
    finished reconciler.jobs;
BEGIN
    FOR one IN
    WITH done AS (
        DELETE FROM reconciler.jobs_open j
         USING unnest(ids, tokens, results, notes) AS g (id, token, result, note)
         WHERE j.id = ANY (ids) AND j.id = g.id AND j.token = g.token AND j.status <> 'pending'
        RETURNING j.*, g.result AS given, g.note AS note
    )
    INSERT INTO reconciler.jobs_finished AS f
           (id, token, run_at, created_at, started_at, completed_at, priority, attempts, max_attempts, losses, once,
            active, status, queue, handler, payload, type, job_name, run_id, unique_key, ordering_key, timeout, worker,
            cancelled_by, result, last_error)
    SELECT d.id, d.token, d.run_at, d.created_at, d.started_at, now, d.priority, d.attempts, d.max_attempts, d.losses,
           d.once, d.active, 'completed', d.queue, d.handler, d.payload, d.type, d.job_name, d.run_id, d.unique_key,
           d.ordering_key, d.timeout, d.worker, d.cancelled_by, d.given, coalesce(d.note, d.last_error)
      FROM done d
    RETURNING f.id, f.run_id IS NOT NULL OR f.job_name IS NOT NULL AS is_declared
    LOOP
        RETURN NEXT one.id;
        IF one.is_declared THEN
            declared := declared || one.id;
        END IF;
    END LOOP;
    -- Few jobs are declared ones; somebody waits for those.
    IF declared = '{}' THEN
        RETURN;
    END IF;
    FOR finished IN
        SELECT f.* FROM reconciler.jobs_finished f
         WHERE f.id = ANY (declared)
         -- In one order for everybody: each end locks the state of its job.
         ORDER BY f.job_name, f.id
    LOOP
        PERFORM reconciler.note_job_end(finished);
    END LOOP;
END
$$;

CREATE FUNCTION reconciler.lock_claimed_job(id bigint, token bigint) RETURNS reconciler.jobs_open
LANGUAGE sql
AS $$
    SELECT j FROM reconciler.jobs_open j
     WHERE j.id = lock_claimed_job.id AND j.token = lock_claimed_job.token AND j.status = 'running' FOR UPDATE
$$;

-- How long a job waits for its next try: as its queue says, or the declared job that it comes from.
CREATE FUNCTION reconciler.find_wait(job reconciler.jobs_open, settings reconciler.queues) RETURNS interval
LANGUAGE plpgsql
AS $$
DECLARE
    policy reconciler.policies;
BEGIN
    IF job.job_name IS NOT NULL THEN
        SELECT p.* INTO policy FROM reconciler.policies p JOIN reconciler.definitions d ON d.name = p.name
         WHERE p.name = job.job_name AND d.spec -> 'on_failure' IS NOT NULL;
        IF FOUND THEN
            RETURN reconciler.next_wait(job.attempts, policy.backoff_initial, policy.backoff_factor,
                                        policy.backoff_max, CASE WHEN policy.jitter THEN random() ELSE 1 END);
        END IF;
    END IF;
    RETURN reconciler.next_wait(job.attempts, settings.backoff_initial, settings.backoff_factor,
                                settings.backoff_max, random());
END
$$;

-- End a try that failed: the job is tried again later, or is dead. Returns its status, null for a stale try. retry_in:
-- in place of the queue's backoff. final: no more tries.
CREATE FUNCTION reconciler.fail_job(
    id bigint, token bigint, error text, retry_in interval DEFAULT NULL, final boolean DEFAULT false
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    job reconciler.jobs_open := reconciler.lock_claimed_job(id, token);
    settings reconciler.queues;
BEGIN
    IF job.id IS NULL THEN
        RETURN NULL;
    END IF;
    settings := reconciler.find_queue(job.queue);
    IF job.cancelled_by IS NOT NULL THEN
        PERFORM reconciler.finish_job(job, 'cancelled', format('cancelled by %s; %s', job.cancelled_by, error));
        RETURN 'cancelled';
    ELSIF coalesce(final, false) OR job.attempts >= coalesce(job.max_attempts, settings.max_attempts) THEN
        PERFORM reconciler.finish_job(job, 'failed', error);
        RETURN 'failed';
    END IF;
    UPDATE reconciler.jobs_open j
       SET status = 'pending', lease_until = NULL, last_error = error,
           run_at = clock_timestamp() + CASE
               WHEN retry_in IS NOT NULL THEN greatest(retry_in, interval '0')
               ELSE reconciler.find_wait(job, settings) END
     WHERE j.id = job.id;
    RETURN 'pending';
END
$$;

-- Put a job off that is not to be done yet; it counts no try.
CREATE FUNCTION reconciler.snooze_job(id bigint, token bigint, delay interval) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    job reconciler.jobs_open := reconciler.lock_claimed_job(id, token);
BEGIN
    IF job.id IS NULL THEN
        RETURN false;
    ELSIF job.cancelled_by IS NOT NULL THEN
        PERFORM reconciler.finish_job(job, 'cancelled', 'cancelled by ' || job.cancelled_by);
        RETURN true;
    END IF;
    UPDATE reconciler.jobs_open j
       SET status = 'pending', lease_until = NULL, attempts = greatest(j.attempts - 1, 0),
           run_at = clock_timestamp() + greatest(delay, interval '0')
     WHERE j.id = job.id;
    RETURN true;
END
$$;

-- Give back what was claimed and not begun; it counts no try and keeps its place.
CREATE FUNCTION reconciler.return_jobs(ids bigint[], tokens bigint[]) RETURNS SETOF bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_nestloop = off SET enable_mergejoin = off SET enable_hashjoin = on
SET plan_cache_mode = force_custom_plan SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    job reconciler.jobs_open;
BEGIN
    RETURN QUERY
    UPDATE reconciler.jobs_open j
       SET status = 'pending', lease_until = NULL, attempts = greatest(j.attempts - 1, 0),
           -- In an order, what was first stays first: also after a snooze, which counted no try.
           started_at = CASE WHEN j.attempts > 1 OR j.losses > 0 OR j.ordering_key IS NOT NULL THEN j.started_at END
      FROM unnest(ids, tokens) AS g (id, token)
     WHERE j.id = ANY (ids) AND j.id = g.id AND j.token = g.token AND j.status <> 'pending' AND j.cancelled_by IS NULL
    RETURNING j.id;
    -- Those that are to end are not handed out again.
    FOR job IN
        SELECT j.* FROM unnest(ids, tokens) AS g (id, token) JOIN reconciler.jobs_open j ON j.id = g.id
         WHERE j.id = ANY (ids) AND j.token = g.token AND j.status <> 'pending' FOR UPDATE OF j
    LOOP
        PERFORM reconciler.finish_job(job, 'cancelled', 'cancelled by ' || job.cancelled_by);
        RETURN NEXT job.id;
    END LOOP;
    -- Others may be asleep.
    PERFORM pg_notify('reconciler_jobs', q.queue)
       FROM (SELECT DISTINCT j.queue FROM reconciler.jobs_open j WHERE j.id = ANY (ids)) AS q;
END
$$;

-- End a job that somebody cancelled while it ran.
CREATE FUNCTION reconciler.end_cancelled_job(id bigint, token bigint, reason text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    job reconciler.jobs_open := reconciler.lock_claimed_job(id, token);
BEGIN
    IF job.id IS NULL THEN
        RETURN false;
    END IF;
    PERFORM reconciler.finish_job(job, 'cancelled',
        coalesce(reason, 'cancelled by ' || coalesce(job.cancelled_by, 'its handler')));
    RETURN true;
END
$$;

-- Keep what one does. What is not returned was lost: somebody else may be doing it. cancelled_by: it is to end.
CREATE FUNCTION reconciler.renew_leases(worker text, ids bigint[], tokens bigint[])
RETURNS TABLE (id bigint, cancelled_by text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_nestloop = off SET enable_mergejoin = off SET enable_hashjoin = on
SET plan_cache_mode = force_custom_plan SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    UPDATE reconciler.jobs_open j
       SET lease_until = clock_timestamp() + coalesce(
           (SELECT q.lease FROM reconciler.queues q WHERE q.name = j.queue), interval '30 seconds')
      FROM unnest(ids, tokens) AS g (id, token)
     WHERE j.id = ANY (ids) AND j.id = g.id AND j.token = g.token AND j.status <> 'pending'
    RETURNING j.id, j.cancelled_by;
END
$$;

-- Take jobs from workers that are gone: their leases are over. It counted a try; who loses his worker three times is
-- given up, since it may be what kills them.
CREATE FUNCTION reconciler.rescue_jobs(max integer DEFAULT 100) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    job reconciler.jobs_open;
    settings reconciler.queues;
    error text;
    rescued integer := 0;
BEGIN
    FOR job IN SELECT * FROM reconciler.jobs_open j
                WHERE j.status = 'running' AND j.lease_until < clock_timestamp() AND j.handler IS NOT NULL
                LIMIT max FOR UPDATE SKIP LOCKED
    LOOP
        IF job.queue IS DISTINCT FROM settings.name THEN
            settings := reconciler.find_queue(job.queue);
        END IF;
        job.losses := job.losses + 1;
        error := format('the worker %s went away with it', job.worker);
        UPDATE reconciler.jobs_open j SET losses = job.losses, token = j.token + 1 WHERE j.id = job.id;
        IF job.cancelled_by IS NOT NULL THEN
            PERFORM reconciler.finish_job(job, 'cancelled', format('cancelled by %s; %s', job.cancelled_by, error));
        ELSIF job.losses >= 3 OR job.attempts >= coalesce(job.max_attempts, settings.max_attempts) THEN
            PERFORM reconciler.finish_job(job, 'failed', CASE job.losses WHEN 1 THEN error
                ELSE format('%s, the last of %s that did', error, job.losses) END);
        ELSE
            UPDATE reconciler.jobs_open j
               SET status = 'pending', lease_until = NULL, last_error = error,
                   run_at = clock_timestamp() + reconciler.find_wait(job, settings)
             WHERE j.id = job.id;
        END IF;
        rescued := rescued + 1;
    END LOOP;
    RETURN rescued;
END
$$;

-- Say that a worker process lives, or that it goes.
CREATE FUNCTION reconciler.report_worker(
    id text, host text, pid integer, queues text[], concurrency integer, is_leaving boolean DEFAULT false
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF report_worker.is_leaving THEN
        DELETE FROM reconciler.pull_workers w WHERE w.id = report_worker.id;
    ELSE
        INSERT INTO reconciler.pull_workers (id, host, pid, queues, concurrency)
        VALUES (report_worker.id, report_worker.host, report_worker.pid, report_worker.queues, report_worker.concurrency)
            ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp(), queues = excluded.queues,
               concurrency = excluded.concurrency;
    END IF;
END
$$;

CREATE FUNCTION reconciler.allow_work(role name) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format(
        'GRANT EXECUTE ON FUNCTION reconciler.claim_jobs, reconciler.complete_jobs, reconciler.fail_job,'
        ' reconciler.snooze_job, reconciler.return_jobs, reconciler.end_cancelled_job, reconciler.renew_leases,'
        ' reconciler.rescue_jobs, reconciler.report_worker, reconciler.find_queue_settings TO %I', role);
END
$$;
COMMENT ON FUNCTION reconciler.allow_work IS 'Let a role claim and do queued jobs of every queue';

REVOKE EXECUTE ON FUNCTION
    reconciler.find_queue_settings, reconciler.lock_queue, reconciler.find_room, reconciler.find_head,
    reconciler.find_heads, reconciler.note_started, reconciler.claim_jobs, reconciler.complete_jobs,
    reconciler.lock_claimed_job, reconciler.find_wait, reconciler.fail_job, reconciler.snooze_job, reconciler.return_jobs,
    reconciler.end_cancelled_job, reconciler.renew_leases, reconciler.rescue_jobs, reconciler.report_worker,
    reconciler.allow_work
FROM PUBLIC;
