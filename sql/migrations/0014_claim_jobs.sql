-- Claim queued jobs for workers.
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
    first_due timestamptz;
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

REVOKE EXECUTE ON FUNCTION
    reconciler.find_queue_settings, reconciler.lock_queue, reconciler.find_room, reconciler.find_head,
    reconciler.find_heads, reconciler.note_started, reconciler.claim_jobs
FROM PUBLIC;
