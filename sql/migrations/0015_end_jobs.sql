-- End what was claimed, keep leases, and rescue the jobs of workers that are gone. What does not carry the token of the
-- present claim is stale: nothing is written, and the answer says so.
--
-- Jobs are found by the primary key alone and put together with what is said of them by a hash: with a loop in
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
    reconciler.complete_jobs, reconciler.lock_claimed_job, reconciler.find_wait, reconciler.fail_job,
    reconciler.snooze_job, reconciler.return_jobs, reconciler.end_cancelled_job, reconciler.renew_leases,
    reconciler.rescue_jobs, reconciler.report_worker, reconciler.allow_work
FROM PUBLIC;
