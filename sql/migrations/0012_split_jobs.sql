-- The jobs table in two parts: open jobs, which workers look through all the time and which therefore stay few, and
-- finished ones, the history. Whoever reads or changes reconciler.jobs sees one table; a job whose status is changed
-- moves by itself.
--
-- The finished part is not cut by days: dropping or attaching a part locks the whole table against every worker,
-- and each queue keeps its jobs for a time of its own. Retention deletes in small batches, by an index.

ALTER TABLE reconciler.jobs ALTER COLUMN id DROP IDENTITY;
ALTER TABLE reconciler.jobs RENAME TO jobs_before;
ALTER INDEX reconciler.jobs_pkey RENAME TO jobs_before_pkey;
DROP INDEX reconciler.jobs_once_key, reconciler.jobs_ready_idx, reconciler.jobs_once_due_idx,
           reconciler.jobs_finished_idx;
CREATE SEQUENCE reconciler.jobs_id_seq;

CREATE TABLE reconciler.jobs (
    id            bigint      NOT NULL DEFAULT nextval('reconciler.jobs_id_seq'),
    -- Changes with every claim: who holds an old one cannot end, renew or put off what somebody else does now.
    token         bigint      NOT NULL DEFAULT 0,
    run_at        timestamptz NOT NULL DEFAULT now(),
    created_at    timestamptz NOT NULL DEFAULT now(),
    -- Of the last try; null while nobody has begun it.
    started_at    timestamptz,
    -- Who claimed it has until then to renew it; afterwards it is anybody's again. In no index: renewing is cheap.
    lease_until   timestamptz,
    completed_at  timestamptz,
    -- Higher ones first.
    priority      integer     NOT NULL DEFAULT 0,
    -- Claims of the present chain of tries, less those that were snoozed or given back.
    attempts      integer     NOT NULL DEFAULT 0,
    -- Null: as the queue says.
    max_attempts  integer     CHECK (max_attempts > 0),
    -- How often a worker vanished with it.
    losses        integer     NOT NULL DEFAULT 0,
    -- A declared one-time job: at most one row for each, reconciled while it is pending.
    once          boolean     NOT NULL DEFAULT false,
    active        boolean     NOT NULL DEFAULT true,
    status        text        NOT NULL DEFAULT 'pending',
    queue         text        NOT NULL DEFAULT 'default',
    -- Null for one-time work in SQL or HTTP, which the runner does and no worker.
    handler       text,
    payload       jsonb       NOT NULL DEFAULT '{}',
    type          text        NOT NULL DEFAULT 'custom',
    -- The declared job that this one comes from; null for one that a program queued.
    job_name      text,
    -- The run in cron_execution_log that goes on until this job is finished.
    run_id        bigint,
    -- At most one open job of a queue has it.
    unique_key    text,
    -- Open jobs of a queue with the same one are done one at a time and in order, by run_at and id.
    ordering_key  text,
    -- Null: as the queue says.
    timeout       interval,
    -- Who claimed it last.
    worker        text,
    -- Who wants it to end while it runs.
    cancelled_by  text,
    result        jsonb,
    last_error    text,
    CHECK (NOT once OR job_name IS NOT NULL)
) PARTITION BY LIST (status);
COMMENT ON TABLE reconciler.jobs IS 'Queued jobs: work that waits for, or was done by, a worker';
ALTER SEQUENCE reconciler.jobs_id_seq OWNED BY reconciler.jobs.id;

CREATE TABLE reconciler.jobs_open PARTITION OF reconciler.jobs (PRIMARY KEY (id))
    FOR VALUES IN ('pending', 'running')
    WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
          autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE reconciler.jobs_open IS 'The queued jobs that are waiting or being done';
CREATE TABLE reconciler.jobs_finished PARTITION OF reconciler.jobs (PRIMARY KEY (id))
    FOR VALUES IN ('completed', 'failed', 'cancelled')
    WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.1);
COMMENT ON TABLE reconciler.jobs_finished IS 'The queued jobs that are done, given up or cancelled';

-- What a claim walks along, in the order in which it hands out.
CREATE INDEX jobs_ready_idx ON reconciler.jobs_open (queue, priority DESC, run_at, id)
    WHERE status = 'pending' AND ordering_key IS NULL AND handler IS NOT NULL AND active;
-- The same for jobs with an order: by key; those that were begun before, which go first; and by id, for queues that a
-- job of the future holds up.
CREATE INDEX jobs_ordered_idx ON reconciler.jobs_open (queue, ordering_key, run_at, id)
    WHERE status = 'pending' AND ordering_key IS NOT NULL AND handler IS NOT NULL AND active;
CREATE INDEX jobs_begun_idx ON reconciler.jobs_open (queue, ordering_key, id)
    WHERE status = 'pending' AND ordering_key IS NOT NULL AND handler IS NOT NULL AND active
      AND started_at IS NOT NULL;
CREATE INDEX jobs_numbered_idx ON reconciler.jobs_open (queue, ordering_key, id)
    WHERE status = 'pending' AND ordering_key IS NOT NULL AND handler IS NOT NULL AND active;
CREATE INDEX jobs_running_idx ON reconciler.jobs_open (queue) WHERE status = 'running';
-- The backstop: whatever happens, no two jobs of one key run at once.
CREATE UNIQUE INDEX jobs_ordered_key ON reconciler.jobs_open (queue, ordering_key)
    WHERE status = 'running' AND ordering_key IS NOT NULL;
CREATE UNIQUE INDEX jobs_unique_key ON reconciler.jobs_open (queue, unique_key) WHERE unique_key IS NOT NULL;
CREATE UNIQUE INDEX jobs_once_key ON reconciler.jobs_open (job_name) WHERE once;
CREATE INDEX jobs_declared_idx ON reconciler.jobs_open (job_name) WHERE job_name IS NOT NULL;
CREATE INDEX jobs_once_due_idx ON reconciler.jobs_open (run_at) WHERE once AND status = 'pending';

CREATE INDEX jobs_finished_idx ON reconciler.jobs_finished (queue, completed_at)
    WHERE status IN ('completed', 'cancelled');
CREATE INDEX jobs_failed_idx ON reconciler.jobs_finished (queue, completed_at) WHERE status = 'failed';
CREATE INDEX jobs_failed_order_idx ON reconciler.jobs_finished (queue, ordering_key)
    WHERE status = 'failed' AND ordering_key IS NOT NULL;
CREATE INDEX jobs_finished_declared_idx ON reconciler.jobs_finished (job_name, completed_at)
    WHERE job_name IS NOT NULL;
-- What became of a job is asked by its unique_key, too: the Scheduler does so each time something is scheduled.
CREATE INDEX jobs_finished_key_idx ON reconciler.jobs_finished (queue, unique_key, completed_at)
    WHERE unique_key IS NOT NULL;

INSERT INTO reconciler.jobs
       (id, job_name, once, active, handler, queue, payload, status, run_at, attempts, last_error, created_at,
        started_at, completed_at)
SELECT id, job_name, once, active, handler, queue, payload, status, run_at, attempts, last_error, created_at,
       started_at, completed_at
  FROM reconciler.jobs_before;
SELECT setval('reconciler.jobs_id_seq', (SELECT coalesce(max(id), 0) + 1 FROM reconciler.jobs_before), false);
DROP TABLE reconciler.jobs_before;

ALTER TABLE reconciler.queues
    ADD COLUMN lease       interval NOT NULL DEFAULT '30 seconds' CHECK (lease >= interval '1 second'),
    ADD COLUMN timeout     interval NOT NULL DEFAULT '1 hour' CHECK (timeout > interval '0'),
    ADD COLUMN keep_failed interval NOT NULL DEFAULT '30 days',
    -- What holds up the jobs behind it in the order, besides a job that runs.
    ADD COLUMN held_by     text[]   NOT NULL DEFAULT '{retry}'
               CHECK (held_by <@ ARRAY['retry', 'failed', 'future']);

-- What apply copies, see declared_queues before: further columns come at the end.
CREATE OR REPLACE VIEW reconciler.declared_queues AS
SELECT name,
       coalesce(spec ->> 'mode', 'standard')                        AS mode,
       coalesce((spec ->> 'max_attempts')::integer, 5)              AS max_attempts,
       reconciler.read_duration(coalesce(spec #>> '{backoff,initial}', '30s'))      AS backoff_initial,
       coalesce((spec #>> '{backoff,factor}')::numeric, 2)          AS backoff_factor,
       reconciler.read_duration(coalesce(spec #>> '{backoff,max}', '1h'))           AS backoff_max,
       (spec ->> 'concurrency')::integer                            AS concurrency,
       nullif(split_part(spec ->> 'rate', '/', 1), '')::integer     AS rate_count,
       reconciler.read_duration(nullif(split_part(spec ->> 'rate', '/', 2), '')) AS rate_per,
       reconciler.read_duration(coalesce(spec ->> 'retention', '7d'))               AS retention,
       reconciler.read_duration(coalesce(spec ->> 'lease', '30s'))                  AS lease,
       reconciler.read_duration(coalesce(spec ->> 'timeout', '1h'))                 AS timeout,
       reconciler.read_duration(coalesce(spec ->> 'keep_failed', '30d'))            AS keep_failed,
       CASE WHEN spec -> 'held_by' IS NOT NULL
            THEN ARRAY(SELECT json_array_elements_text(spec -> 'held_by'))
            ELSE ARRAY['retry'] END                                                 AS held_by
  FROM reconciler.definitions
 WHERE kind = 'queue';

-- What the claims of a queue share, and the row that they lock where only one may decide at a time: in queues with a
-- limit, a rate, or an order.
CREATE TABLE reconciler.queue_states (
    queue       text          PRIMARY KEY,
    -- When jobs were started lately, in slices of the rate's time, and how many.
    started     timestamptz[] NOT NULL DEFAULT '{}',
    counts      integer[]     NOT NULL DEFAULT '{}',
    -- The last ordering key that was looked at: the next claim goes on behind it.
    last_key    text          NOT NULL DEFAULT ''
) WITH (fillfactor = 50);
COMMENT ON TABLE reconciler.queue_states IS 'What the claims of a queue with a limit, a rate or an order share';

-- Processes that claim jobs, as long as they live.
CREATE TABLE reconciler.pull_workers (
    id          text        PRIMARY KEY,
    host        text        NOT NULL,
    pid         integer     NOT NULL,
    queues      text[]      NOT NULL,
    concurrency integer     NOT NULL,
    role        text        NOT NULL DEFAULT session_user,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at     timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
COMMENT ON TABLE reconciler.pull_workers IS 'Worker processes and when each was last heard of';

-- A queue that nobody declared has the usual settings, and is blocking where it has that name.
CREATE FUNCTION reconciler.find_queue(name text) RETURNS reconciler.queues
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    queue reconciler.queues;
BEGIN
    SELECT * INTO queue FROM reconciler.queues q WHERE q.name = find_queue.name;
    IF NOT FOUND THEN
        queue.name := find_queue.name;
        queue.mode := CASE find_queue.name WHEN 'blocking' THEN 'blocking' ELSE 'standard' END;
        queue.max_attempts := 5;
        queue.backoff_initial := interval '30 seconds';
        queue.backoff_factor := 2;
        queue.backoff_max := interval '1 hour';
        queue.retention := interval '7 days';
        queue.lease := interval '30 seconds';
        queue.timeout := interval '1 hour';
        queue.keep_failed := interval '30 days';
        queue.held_by := ARRAY['retry'];
    END IF;
    RETURN queue;
END
$$;

-- All jobs of a blocking queue have the same ordering key, ''. When a queue becomes blocking, or is no more, those
-- that wait get it, or lose it.
CREATE FUNCTION reconciler.order_queue() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    queue_name text := CASE TG_OP WHEN 'DELETE' THEN OLD.name ELSE NEW.name END;
BEGIN
    IF (reconciler.find_queue(queue_name)).mode = 'blocking' THEN
        UPDATE reconciler.jobs_open j SET ordering_key = ''
         WHERE j.queue = queue_name AND j.status = 'pending' AND j.ordering_key IS DISTINCT FROM '';
    ELSE
        UPDATE reconciler.jobs_open j SET ordering_key = NULL
         WHERE j.queue = queue_name AND j.status = 'pending' AND j.ordering_key = '';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER order_queue AFTER INSERT OR UPDATE OF mode, name OR DELETE ON reconciler.queues
    FOR EACH ROW EXECUTE FUNCTION reconciler.order_queue();

UPDATE reconciler.jobs_open j SET ordering_key = '' WHERE (reconciler.find_queue(j.queue)).mode = 'blocking';

REVOKE EXECUTE ON FUNCTION reconciler.find_queue, reconciler.order_queue FROM PUBLIC;
