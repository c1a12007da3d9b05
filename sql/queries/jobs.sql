-- name: read_clock
-- Due times count by the server's clock, since that is what claims go by.
SELECT clock_timestamp() AS now;

-- name: enqueue
-- Of one job, and without a unique key, it is known that it is made: a third of the time.
SELECT reconciler.enqueue(
           j ->> 'handler', j -> 'payload', coalesce(j ->> 'queue', 'default'), (j ->> 'run_at')::timestamptz,
           coalesce((j ->> 'priority')::integer, 0), NULL, j ->> 'ordering_key', (j ->> 'max_attempts')::integer,
           (j ->> 'timeout')::interval, coalesce(j ->> 'type', 'custom')) AS id, true AS created
  FROM (SELECT %(jobs)s::jsonb -> 0 AS j OFFSET 0) AS one;

-- name: enqueue_many
SELECT place, id, created FROM reconciler.enqueue_many(%(jobs)s::jsonb) ORDER BY place;

-- name: get_job
-- JSON is read as text: programs load jsonb in ways of their own.
SELECT j.id, j.queue, j.handler, j.payload::text AS payload, j.type, j.status, j.run_at, j.priority, j.attempts,
       j.max_attempts, j.losses, j.unique_key, j.ordering_key, j.timeout, j.job_name, j.run_id, j.once, j.active,
       j.worker, j.lease_until, j.cancelled_by, j.result::text AS result, j.last_error, j.created_at, j.started_at,
       j.completed_at
  FROM reconciler.get_job(%(id)s::bigint) j
 WHERE j.id IS NOT NULL;

-- name: list_jobs
SELECT j.id, j.queue, j.handler, j.payload::text AS payload, j.type, j.status, j.run_at, j.priority, j.attempts,
       j.max_attempts, j.losses, j.unique_key, j.ordering_key, j.timeout, j.job_name, j.run_id, j.once, j.active,
       j.worker, j.lease_until, j.cancelled_by, j.result::text AS result, j.last_error, j.created_at, j.started_at,
       j.completed_at
  FROM reconciler.list_jobs(status => %(status)s::text, queue => %(queue)s::text, handler => %(handler)s::text,
                            job_name => %(job_name)s::text, max => %(limit)s::integer) j;

-- name: list_page
-- The newest jobs with what is asked for, from a place in the list on; part by part, as in reconciler.list_jobs. What
-- is long is left out: a page may have many.
SELECT j.id, j.queue, j.handler, CASE WHEN NOT j.payload_omitted THEN j.payload::text END AS payload, j.type, j.status,
       j.run_at, j.priority, j.attempts, j.max_attempts, j.losses, j.unique_key, j.ordering_key, j.timeout, j.job_name,
       j.run_id, j.once, j.active, j.worker, j.lease_until, j.cancelled_by,
       CASE WHEN NOT j.result_omitted THEN j.result::text END AS result, j.last_error, j.created_at, j.started_at,
       j.completed_at, j.payload_omitted, j.result_omitted
  FROM (
    SELECT l.*,
           coalesce(pg_column_size(l.payload) > %(longest)s OR length(l.payload::text) > %(longest)s, false)
               AS payload_omitted,
           coalesce(pg_column_size(l.result) > %(longest)s OR length(l.result::text) > %(longest)s, false)
               AS result_omitted
      FROM (
        (SELECT j.* FROM reconciler.jobs_open j
          WHERE (%(status)s::text IS NULL OR %(status)s IN ('pending', 'scheduled', 'running')
                 AND j.status = CASE %(status)s WHEN 'scheduled' THEN 'pending' ELSE %(status)s END)
            AND (%(status)s::text IS DISTINCT FROM 'scheduled' OR j.run_at > statement_timestamp())
            AND (%(queue)s::text IS NULL OR j.queue = %(queue)s)
            AND (%(handler)s::text IS NULL OR j.handler = %(handler)s)
            AND (%(job_name)s::text IS NULL OR j.job_name = %(job_name)s)
            AND (%(before)s::bigint IS NULL OR j.id < %(before)s)
          ORDER BY j.id DESC LIMIT %(limit)s)
        UNION ALL
        (SELECT j.* FROM reconciler.jobs_finished j
          WHERE j.status IN ('completed', 'cancelled')
            AND (%(status)s::text IS NULL OR %(status)s IN ('completed', 'cancelled') AND j.status = %(status)s)
            AND (%(queue)s::text IS NULL OR j.queue = %(queue)s)
            AND (%(handler)s::text IS NULL OR j.handler = %(handler)s)
            AND (%(job_name)s::text IS NULL OR j.job_name = %(job_name)s)
            AND (%(before)s::bigint IS NULL OR j.id < %(before)s)
          ORDER BY j.id DESC LIMIT %(limit)s)
        UNION ALL
        (SELECT j.* FROM reconciler.jobs_finished j
          WHERE j.status = 'failed' AND (%(status)s::text IS NULL OR %(status)s = 'failed')
            AND (%(queue)s::text IS NULL OR j.queue = %(queue)s)
            AND (%(handler)s::text IS NULL OR j.handler = %(handler)s)
            AND (%(job_name)s::text IS NULL OR j.job_name = %(job_name)s)
            AND (%(before)s::bigint IS NULL OR j.id < %(before)s)
          ORDER BY j.id DESC LIMIT %(limit)s)
         ORDER BY id DESC LIMIT %(limit)s) AS l
       ) AS j
 ORDER BY j.id DESC;

-- name: cancel_job
SELECT reconciler.cancel_job(%(id)s::bigint) AS status;

-- name: retry_job
SELECT reconciler.retry_job(%(id)s::bigint, run_at => %(run_at)s::timestamptz) AS status;

-- name: retry_jobs
SELECT reconciler.retry_jobs(%(queue)s::text, max => %(limit)s::integer, every => %(every)s::interval, to_queue => %(to_queue)s::text) AS count;
