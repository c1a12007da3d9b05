-- Runs that are handed over: what a handler does is over when a worker has done it, and not when it was queued.
--
-- Such a run stays 'running', without a backend or a lock, until its queued job is finished. Whoever finishes that
-- ends the run in the same transaction; what escapes (a row deleted by hand, an error on the way) the tick finds by
-- comparing runs and queued jobs. A queued job's row is locked before its run's, never after it.

-- Finished work of declared jobs that has no run yet: as good as always empty.
CREATE INDEX jobs_unsettled_idx ON reconciler.jobs_finished (id)
    WHERE job_name IS NOT NULL AND run_id IS NULL AND handler IS NOT NULL AND status IN ('completed', 'failed');

-- A queued job of a declared job that is not finished. One that waits for its one time does not count.
CREATE FUNCTION reconciler.find_queued(job_name text) RETURNS bigint
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    -- The sum keeps the plan from walking along the ids of all jobs to the least.
    RETURN (SELECT min(j.id + 0) FROM reconciler.jobs_open j
             WHERE j.job_name = find_queued.job_name AND j.handler IS NOT NULL
               AND (NOT j.once OR j.status = 'running'));
END
$$;

-- End a run, whose row the caller holds, as its finished job ended. Retries were the worker's.
CREATE FUNCTION reconciler.end_run_by_job(run reconciler.cron_execution_log, job reconciler.jobs) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    final text;
BEGIN
    final := CASE job.status
        WHEN 'completed' THEN 'succeeded'
        WHEN 'cancelled' THEN 'cancelled'
        ELSE CASE WHEN reconciler.is_over_time(job.last_error) THEN 'timed_out' ELSE 'failed' END END;
    PERFORM reconciler.end_run(run, final,
        error_message => CASE final
            WHEN 'succeeded' THEN NULL
            WHEN 'cancelled' THEN CASE WHEN job.last_error LIKE 'cancelled%' THEN job.last_error
                                       ELSE coalesce('cancelled by ' || job.cancelled_by, 'cancelled') END
            ELSE coalesce(job.last_error, 'no message') END,
        error_detail => CASE WHEN final <> 'succeeded' THEN
            format('queued job %s on %s, attempt %s%s', job.id, job.queue, job.attempts,
                   ', last done by ' || job.worker) END);
END
$$;

-- Whether a queued job failed because its time was up: in the words of the workers.
CREATE FUNCTION reconciler.is_over_time(error text) RETURNS boolean
LANGUAGE sql IMMUTABLE
AS $$ SELECT coalesce(error ~ '^timed out: it took longer than ', false) $$;

-- End a run that was handed over, where its queued job is finished or gone.
CREATE FUNCTION reconciler.end_handed_over(run_id bigint) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    run reconciler.cron_execution_log;
    job reconciler.jobs;
BEGIN
    SELECT * INTO run FROM reconciler.cron_execution_log l
     WHERE l.id = end_handed_over.run_id AND l.status = 'running' AND l.handed_over FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT * INTO job FROM reconciler.jobs j WHERE j.id = run.queued_job_id;
    IF NOT FOUND THEN
        PERFORM reconciler.end_run(run, 'lost', error_message =>
            format('queued job %s is gone: somebody deleted it before it was finished', run.queued_job_id));
    ELSIF job.completed_at IS NOT NULL OR job.status NOT IN ('pending', 'running') THEN
        PERFORM reconciler.end_run_by_job(run, job);
    END IF;
END
$$;

-- Log work that has no run of its own: that of a one-time job, or of a dead job that was tried again.
CREATE FUNCTION reconciler.log_job_end(job reconciler.jobs) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    definition reconciler.definitions;
    before reconciler.cron_execution_log;
    run reconciler.cron_execution_log;
BEGIN
    SELECT * INTO definition FROM reconciler.definitions d WHERE d.name = job.job_name AND d.kind = 'job';
    SELECT * INTO before FROM reconciler.cron_execution_log l
     WHERE l.job_name = job.job_name AND l.run_at >= job.created_at - interval '1 minute'
       AND l.queued_job_id = job.id
     ORDER BY l.run_at DESC LIMIT 1;
    INSERT INTO reconciler.cron_execution_log AS l
           (job_name, definition_id, run_at, trigger, attempt, chain_id, due_at, role, revision,
            -- No backend of ours began it.
            backend_pid, queued_job_id, handed_over)
    VALUES (job.job_name, definition.id, least(job.started_at, clock_timestamp()),
            CASE WHEN before.id IS NULL THEN 'schedule' ELSE 'retry' END, coalesce(before.attempt, 0) + 1,
            coalesce(before.chain_id, before.id), coalesce(before.due_at, CASE WHEN job.once THEN job.run_at END),
            session_user, definition.revision, 0, job.id, true)
    RETURNING l.* INTO run;
    UPDATE reconciler.jobs j SET run_id = run.id WHERE j.id = job.id;
    PERFORM reconciler.end_run_by_job(run, job);
END
$$;

-- Tell what follows from the end of a declared job's work. Called with each such row that was just finished, in the
-- transaction that did it.
CREATE OR REPLACE FUNCTION reconciler.note_job_end(job reconciler.jobs) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    run reconciler.cron_execution_log;
BEGIN
    SELECT * INTO run FROM reconciler.cron_execution_log l WHERE l.id = job.run_id FOR UPDATE;
    IF run.status = 'running' AND run.handed_over THEN
        PERFORM reconciler.end_run_by_job(run, job);
    ELSIF job.job_name IS NOT NULL THEN
        PERFORM reconciler.log_job_end(job);
    END IF;
EXCEPTION WHEN OTHERS THEN
    -- The work is done; that it was must not be forgotten with it. The tick tries again.
    RAISE WARNING 'the end of queued job % could not be told of: %', job.id, SQLERRM;
END
$$;

-- Cancel the queued job of a run. Returns cancelling while its handler runs, else how the run ended.
CREATE FUNCTION reconciler.cancel_handed_over(run reconciler.cron_execution_log) RETURNS text
LANGUAGE plpgsql
AS $$
BEGIN
    IF reconciler.cancel_job(run.queued_job_id) = 'cancelling' THEN
        UPDATE reconciler.cron_execution_log l
           SET stop_reason = 'cancelled', stop_at = clock_timestamp(), stop_by = session_user
         WHERE l.id = run.id AND l.status = 'running' AND l.stop_reason IS NULL;
        RETURN 'cancelling';
    END IF;
    PERFORM reconciler.end_handed_over(run.id);
    RETURN (SELECT l.status FROM reconciler.cron_execution_log l WHERE l.id = run.id);
END
$$;

-- Where the work of a run that was handed over stands, for people; with their rights on the tables.
CREATE FUNCTION reconciler.describe_queued(id bigint) RETURNS text
LANGUAGE sql STABLE
AS $$
    SELECT format('queued job %s ', describe_queued.id) || coalesce(
        (SELECT CASE WHEN j.status = 'running' THEN 'is done by ' || coalesce(j.worker, 'a worker')
                     WHEN j.attempts > 0 THEN format('waits on %s for another try', j.queue)
                     ELSE 'waits on ' || j.queue END
           FROM reconciler.jobs_open j WHERE j.id = describe_queued.id), 'is gone')
$$;

-- Steps of the tick. --------------------------------------------------------------------------------------------

-- Runs and queued jobs that do not fit together.
CREATE FUNCTION reconciler.settle_runs() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    run_id bigint;
    job reconciler.jobs;
BEGIN
    FOR run_id IN SELECT l.id FROM reconciler.cron_execution_log l
                   WHERE l.status = 'running' AND l.handed_over
                     AND NOT EXISTS (SELECT FROM reconciler.jobs_open j WHERE j.id = l.queued_job_id)
                   ORDER BY l.id LIMIT 500 FOR UPDATE SKIP LOCKED
    LOOP
        PERFORM reconciler.end_handed_over(run_id);
    END LOOP;
    FOR job IN SELECT * FROM reconciler.jobs_finished j
                WHERE j.job_name IS NOT NULL AND j.run_id IS NULL AND j.handler IS NOT NULL
                  AND j.status IN ('completed', 'failed')
                ORDER BY j.id LIMIT 500 FOR UPDATE SKIP LOCKED
    LOOP
        PERFORM reconciler.log_job_end(job);
    END LOOP;
    RETURN NULL;
END
$$;

-- What a worker held that is gone; workers look for it too.
CREATE FUNCTION reconciler.rescue_lost_jobs() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM reconciler.rescue_jobs(500);
    RETURN NULL;
END
$$;

CREATE FUNCTION reconciler.forget_workers() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM reconciler.pull_workers WHERE seen_at < clock_timestamp() - interval '1 day';
    RETURN NULL;
END
$$;

REVOKE EXECUTE ON FUNCTION
    reconciler.find_queued, reconciler.end_run_by_job, reconciler.is_over_time, reconciler.end_handed_over,
    reconciler.log_job_end, reconciler.note_job_end, reconciler.cancel_handed_over, reconciler.settle_runs,
    reconciler.rescue_lost_jobs, reconciler.forget_workers
FROM PUBLIC;
