-- What programs, people and triggers do with queued jobs: put them, look at them, take them back, try dead ones again.
--
-- Nobody but the owner may at first: allow_enqueue and allow_work open the functions to a role. All of it belongs to
-- the caller's transaction.

CREATE FUNCTION reconciler.refuse_job(reason text, hint text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = reason, HINT = hint;
END
$$;

CREATE FUNCTION reconciler.check_job(
    handler text, payload jsonb, queue text, run_at timestamptz, unique_key text, ordering_key text,
    max_attempts integer, timeout interval, type text, place bigint DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    -- Of many jobs: which.
    which text := coalesce('job ' || place || ': ', '');
BEGIN
    IF coalesce(handler, '') = '' OR length(handler) > 200 THEN
        PERFORM reconciler.refuse_job(which || 'a queued job needs a handler: its name, of 1 to 200 characters',
            'It is the name under which a worker knows the function.');
    ELSIF coalesce(queue, '') = '' OR length(queue) > 200 THEN
        PERFORM reconciler.refuse_job(which || 'the name of a queue has 1 to 200 characters', 'Leave it out for default.');
    ELSIF pg_column_size(payload) > 4194304 THEN
        PERFORM reconciler.refuse_job(
            which || format('the payload takes %s, more than the 4 MB that a queued job may hold',
                   pg_size_pretty(pg_column_size(payload)::bigint)),
            'Keep what is large in a table or in a file store, and put its id or address in the payload.');
    ELSIF run_at < timestamptz '0002-01-01 UTC' OR run_at >= timestamptz '9999-01-01 UTC' THEN
        -- Programs know no others, and the list that has one of them could not be read.
        PERFORM reconciler.refuse_job(
            which || format('run_at has to be a moment before the year 9999, not %s', run_at), 'Leave it out for now.');
    ELSIF length(unique_key) > 500 OR length(ordering_key) > 500 THEN
        PERFORM reconciler.refuse_job(which || 'a key has at most 500 characters', 'Use a hash of what is longer.');
    ELSIF unique_key = '' THEN
        PERFORM reconciler.refuse_job(which || 'a unique_key must not be empty', 'Leave it out for none.');
    ELSIF max_attempts < 1 THEN
        PERFORM reconciler.refuse_job(
            which || format('max_attempts has to be 1 or more, not %s', max_attempts), 'Leave it out for the queue''s.');
    ELSIF timeout <= interval '0' OR timeout > interval '10 years' THEN
        PERFORM reconciler.refuse_job(
            which || format('a timeout has to be longer than nothing and not longer than ten years, not %s', timeout),
            'Leave it out for the queue''s.');
    ELSIF coalesce(type, '') = '' OR length(type) > 200 THEN
        PERFORM reconciler.refuse_job(which || 'a type has 1 to 200 characters', 'Leave it out for custom.');
    END IF;
END
$$;

-- The key that orders a job: in a blocking queue all have the same.
CREATE FUNCTION reconciler.find_order(queue text, ordering_key text) RETURNS text
LANGUAGE sql STABLE
AS $$
    SELECT CASE WHEN coalesce((SELECT q.mode = 'blocking' FROM reconciler.queues q WHERE q.name = find_order.queue),
                              find_order.queue = 'blocking')
                THEN '' ELSE nullif(find_order.ordering_key, '') END
$$;

-- Put a job on a queue. Returns its id, or that of the open job which has the same unique_key.
CREATE FUNCTION reconciler.enqueue(
    handler text, payload jsonb DEFAULT '{}', queue text DEFAULT 'default', run_at timestamptz DEFAULT NULL,
    priority integer DEFAULT 0, unique_key text DEFAULT NULL, ordering_key text DEFAULT NULL,
    max_attempts integer DEFAULT NULL, timeout interval DEFAULT NULL, type text DEFAULT 'custom'
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    now timestamptz := clock_timestamp();
    put bigint;
BEGIN
    PERFORM reconciler.check_job(
        handler, payload, queue, run_at, unique_key, ordering_key, max_attempts, timeout, type);
    LOOP
        INSERT INTO reconciler.jobs_open AS j
               (handler, payload, queue, run_at, priority, unique_key, ordering_key, max_attempts, timeout, type,
                created_at)
        VALUES (handler, coalesce(payload, '{}'), queue, coalesce(run_at, now), coalesce(priority, 0), unique_key,
                reconciler.find_order(queue, ordering_key), max_attempts, timeout, type, now)
            ON CONFLICT DO NOTHING
        RETURNING j.id INTO put;
        EXIT WHEN put IS NOT NULL;
        SELECT j.id INTO put FROM reconciler.jobs_open j WHERE j.queue = enqueue.queue AND j.unique_key = enqueue.unique_key;
        IF put IS NOT NULL THEN
            RETURN put;
        END IF;
        -- It was finished in this very moment: there is room now.
    END LOOP;
    IF run_at IS NULL OR run_at <= now THEN
        PERFORM pg_notify('reconciler_jobs', queue);
    END IF;
    RETURN put;
END
$$;

-- Put many jobs: an array of objects whose keys are the arguments of enqueue. place counts from 1.
CREATE FUNCTION reconciler.enqueue_many(jobs jsonb)
RETURNS TABLE (place integer, id bigint, created boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    now timestamptz := clock_timestamp();
    bad record;
    ids bigint[];
    created_ids bigint[];
BEGIN
    IF jsonb_typeof(jobs) IS DISTINCT FROM 'array' THEN
        PERFORM reconciler.refuse_job('enqueue_many takes an array of jobs', 'For instance [{"handler": "mail.welcome"}].');
    END IF;
    SELECT e.place, k.key INTO bad
      FROM jsonb_array_elements(jobs) WITH ORDINALITY AS e (job, place)
      LEFT JOIN LATERAL jsonb_object_keys(CASE jsonb_typeof(e.job) WHEN 'object' THEN e.job ELSE '{}' END) AS k (key)
        ON k.key NOT IN ('handler', 'payload', 'queue', 'run_at', 'priority', 'unique_key', 'ordering_key',
                         'max_attempts', 'timeout', 'type')
     WHERE k.key IS NOT NULL OR jsonb_typeof(e.job) <> 'object' LIMIT 1;
    IF FOUND THEN
        PERFORM reconciler.refuse_job(
            format('job %s: %s', bad.place, coalesce('there is no argument ' || bad.key, 'this is no object')),
            'Its keys are the arguments of reconciler.enqueue.');
    END IF;
    -- The ids are given before, so that each is known by its place.
    WITH given AS MATERIALIZED (
        SELECT e.place, nextval('reconciler.jobs_id_seq') AS id, j.*
          FROM jsonb_array_elements(jobs) WITH ORDINALITY AS e (job, place)
         CROSS JOIN LATERAL (
               SELECT e.job ->> 'handler' AS handler, e.job -> 'payload' AS payload,
                      coalesce(e.job ->> 'queue', 'default') AS queue, (e.job ->> 'run_at')::timestamptz AS run_at,
                      coalesce((e.job ->> 'priority')::integer, 0) AS priority, e.job ->> 'unique_key' AS unique_key,
                      e.job ->> 'ordering_key' AS ordering_key, (e.job ->> 'max_attempts')::integer AS max_attempts,
                      (e.job ->> 'timeout')::interval AS timeout, coalesce(e.job ->> 'type', 'custom') AS type
               OFFSET 0) AS j
    ), checked AS MATERIALIZED (
        SELECT g.*, reconciler.check_job(g.handler, g.payload, g.queue, g.run_at, g.unique_key, g.ordering_key,
                                         g.max_attempts, g.timeout, g.type, g.place)
          FROM given g
    ), put AS (
        INSERT INTO reconciler.jobs_open AS j
               (id, handler, payload, queue, run_at, priority, unique_key, ordering_key, max_attempts, timeout, type,
                created_at)
        SELECT c.id, c.handler, coalesce(c.payload, '{}'), c.queue, coalesce(c.run_at, now), c.priority, c.unique_key,
               o.ordering_key, c.max_attempts, c.timeout, c.type, now
          FROM checked c
          JOIN (SELECT d.queue, d.ordering_key AS given_key,
                       reconciler.find_order(d.queue, d.ordering_key) AS ordering_key
                  FROM (SELECT DISTINCT g.queue, g.ordering_key FROM given g) AS d) AS o
            ON o.queue = c.queue AND o.given_key IS NOT DISTINCT FROM c.ordering_key
         -- Always in the same order, so that two calls with the same keys do not wait for each other.
         ORDER BY c.queue, c.unique_key, c.place
            ON CONFLICT DO NOTHING
        RETURNING j.id, j.queue, j.run_at
    ), told AS (
        SELECT count(pg_notify('reconciler_jobs', q.queue))
          FROM (SELECT DISTINCT p.queue FROM put p WHERE p.run_at <= now) AS q
    )
    SELECT array_agg(g.id ORDER BY g.place), (SELECT array_agg(p.id) FROM put p)
      INTO ids, created_ids
      FROM given g CROSS JOIN told;
    IF cardinality(ids) = cardinality(created_ids) THEN
        RETURN QUERY SELECT t.place::integer, t.id, true FROM unnest(ids) WITH ORDINALITY AS t (id, place);
        RETURN;
    END IF;
    -- What was not put has a key that an open job has: of this call, or of another.
    FOR bad IN SELECT t.place::integer AS place, t.id, c.id IS NOT NULL AS created, jobs -> (t.place::integer - 1) AS job
                 FROM unnest(ids) WITH ORDINALITY AS t (id, place)
                 LEFT JOIN unnest(created_ids) AS c (id) ON c.id = t.id
                ORDER BY t.place
    LOOP
        place := bad.place;
        id := bad.id;
        created := bad.created;
        IF NOT created THEN
            SELECT o.id INTO id FROM reconciler.jobs_open o
             WHERE o.queue = coalesce(bad.job ->> 'queue', 'default') AND o.unique_key = bad.job ->> 'unique_key';
            IF id IS NULL THEN
                -- That one was finished in this very moment.
                SELECT m.id, m.created INTO id, created
                  FROM reconciler.enqueue_many(jsonb_build_array(bad.job)) AS m;
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;

CREATE FUNCTION reconciler.get_job(id bigint) RETURNS reconciler.jobs
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT j.* FROM reconciler.jobs j WHERE j.id = get_job.id $$;

-- What a finished job means to those who wait for it: see the migration that hands runs over.
CREATE FUNCTION reconciler.note_job_end(job reconciler.jobs) RETURNS void
LANGUAGE sql
AS $$ SELECT $$;

-- Move one open job, whose row the caller has locked, to the finished ones. It is deleted and put, as by an UPDATE that
-- moves it, but who waits for the row meanwhile finds it gone and gets no error.
CREATE FUNCTION reconciler.finish_job(job reconciler.jobs_open, status text, error text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    finished reconciler.jobs_open;
BEGIN
    DELETE FROM reconciler.jobs_open j WHERE j.id = (job).id RETURNING j.* INTO finished;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    finished.status := finish_job.status;
    finished.completed_at := clock_timestamp();
    finished.lease_until := NULL;
    finished.last_error := coalesce(finish_job.error, finished.last_error);
    INSERT INTO reconciler.jobs_finished SELECT (finished).*;
    IF finished.run_id IS NOT NULL OR finished.job_name IS NOT NULL THEN
        PERFORM reconciler.note_job_end(finished::reconciler.jobs);
    END IF;
END
$$;

-- Move one finished job, whose row the caller has locked, back to the open ones, to begin anew.
CREATE FUNCTION reconciler.reopen_job(job reconciler.jobs_finished, queue text, run_at timestamptz) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    DELETE FROM reconciler.jobs_finished j WHERE j.id = job.id;
    job.ordering_key := reconciler.find_order(reopen_job.queue, job.ordering_key);
    job.queue := reopen_job.queue;
    job.run_at := reopen_job.run_at;
    job.status := 'pending';
    job.attempts := 0;
    job.losses := 0;
    job.completed_at := NULL;
    job.cancelled_by := NULL;
    job.run_id := NULL;
    INSERT INTO reconciler.jobs_open SELECT (job).*;
END
$$;

-- Cancel a job that waits or is dead, at once; tell the worker of one that is being done. Returns the status: cancelled,
-- cancelling, or that of a job which is finished already; null where there is none.
CREATE FUNCTION reconciler.cancel_job(id bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    job reconciler.jobs_open;
    queue text;
    found_status text;
BEGIN
    LOOP
        SELECT * INTO job FROM reconciler.jobs_open j WHERE j.id = cancel_job.id FOR UPDATE;
        EXIT WHEN FOUND;
        -- A dead one is dismissed: no worker takes it up again, and it holds up no order. Why it died stays.
        UPDATE reconciler.jobs_finished j SET status = 'cancelled', cancelled_by = session_user
         WHERE j.id = cancel_job.id AND j.status = 'failed'
        RETURNING j.queue INTO queue;
        IF FOUND THEN
            PERFORM pg_notify('reconciler_jobs', queue);
            RETURN 'cancelled';
        END IF;
        SELECT j.status INTO found_status FROM reconciler.jobs j WHERE j.id = cancel_job.id;
        IF found_status IS NULL OR found_status IN ('completed', 'cancelled') THEN
            RETURN found_status;
        END IF;
        -- It began anew, or died, in this very moment.
    END LOOP;
    IF job.status = 'pending' THEN
        PERFORM reconciler.finish_job(job, 'cancelled', format('cancelled by %s before it began', session_user));
        RETURN 'cancelled';
    END IF;
    IF job.handler IS NULL THEN
        RAISE EXCEPTION 'a run of % is doing the queued job %', job.job_name, job.id
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = format('Cancel that run: reconciler runs %s shows its number, reconciler cancel takes it.',
                                job.job_name);
    END IF;
    UPDATE reconciler.jobs_open j SET cancelled_by = session_user WHERE j.id = job.id AND j.cancelled_by IS NULL;
    PERFORM pg_notify('reconciler_cancel', job.id::text);
    RETURN 'cancelling';
END
$$;

-- Let a dead or cancelled job begin anew. It keeps its id, and with it its place before those that were put later.
-- Returns pending, or the status of a job that is neither; null where there is none.
CREATE FUNCTION reconciler.retry_job(id bigint, run_at timestamptz DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    job reconciler.jobs_finished;
    taken bigint;
BEGIN
    IF retry_job.run_at < timestamptz '0002-01-01 UTC' OR retry_job.run_at >= timestamptz '9999-01-01 UTC' THEN
        PERFORM reconciler.refuse_job(
            format('run_at has to be a moment before the year 9999, not %s', retry_job.run_at), 'Leave it out for now.');
    END IF;
    SELECT * INTO job FROM reconciler.jobs_finished j WHERE j.id = retry_job.id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN (SELECT j.status FROM reconciler.jobs_open j WHERE j.id = retry_job.id);
    ELSIF job.status = 'completed' THEN
        RETURN job.status;
    END IF;
    SELECT j.id INTO taken FROM reconciler.jobs_open j WHERE j.queue = job.queue AND j.unique_key = job.unique_key;
    IF FOUND THEN
        RAISE EXCEPTION 'job % cannot be tried again while job % has the same unique_key %', job.id, taken, job.unique_key
            USING ERRCODE = 'unique_violation', HINT = 'Wait until that one is finished, or cancel it.';
    END IF;
    PERFORM reconciler.reopen_job(job, job.queue, coalesce(retry_job.run_at, clock_timestamp()));
    IF retry_job.run_at IS NULL OR retry_job.run_at <= clock_timestamp() THEN
        PERFORM pg_notify('reconciler_jobs', job.queue);
    END IF;
    RETURN 'pending';
END
$$;

-- Let the dead jobs of a queue begin anew: the longest dead first, at most max of them, one each time every has gone
-- by, on their own queue or another. Those whose unique_key is taken stay. Returns how many.
CREATE FUNCTION reconciler.retry_jobs(
    queue text, max integer DEFAULT NULL, every interval DEFAULT NULL, to_queue text DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    began timestamptz := clock_timestamp();
    place text := coalesce(retry_jobs.to_queue, retry_jobs.queue);
    job reconciler.jobs_finished;
    count bigint := 0;
BEGIN
    IF every < interval '0' OR max < 1 THEN
        PERFORM reconciler.refuse_job('max has to be 1 or more, and every not less than nothing', 'Leave them out for all, at once.');
    ELSIF place = '' OR length(place) > 200 THEN
        PERFORM reconciler.refuse_job('the name of a queue has 1 to 200 characters', 'Leave it out for their own.');
    END IF;
    FOR job IN SELECT * FROM reconciler.jobs_finished j
                WHERE j.queue = retry_jobs.queue AND j.status = 'failed' AND j.handler IS NOT NULL
                ORDER BY j.completed_at FOR UPDATE SKIP LOCKED
    LOOP
        EXIT WHEN count >= max;
        CONTINUE WHEN EXISTS (SELECT FROM reconciler.jobs_open j
                               WHERE j.queue = place AND j.unique_key = job.unique_key);
        PERFORM reconciler.reopen_job(job, place, began + coalesce(every, interval '0') * count);
        count := count + 1;
    END LOOP;
    IF count > 0 THEN
        PERFORM pg_notify('reconciler_jobs', place);
    END IF;
    RETURN count;
END
$$;

CREATE FUNCTION reconciler.allow_enqueue(role name) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format(
        'GRANT EXECUTE ON FUNCTION reconciler.enqueue, reconciler.enqueue_many, reconciler.get_job,'
        ' reconciler.cancel_job, reconciler.retry_job, reconciler.retry_jobs TO %I', role);
END
$$;
COMMENT ON FUNCTION reconciler.allow_enqueue IS 'Let a role put, read, cancel and retry queued jobs';

REVOKE EXECUTE ON FUNCTION
    reconciler.refuse_job, reconciler.check_job, reconciler.find_order, reconciler.enqueue, reconciler.enqueue_many,
    reconciler.get_job, reconciler.note_job_end, reconciler.finish_job, reconciler.reopen_job, reconciler.cancel_job, reconciler.retry_job,
    reconciler.retry_jobs, reconciler.allow_enqueue
FROM PUBLIC;
