-- What people and programs look at: how every queue fares, what holds up an order, and lists of jobs.

-- What went wrong is rare and asked for: without an index of its own all that went well would be read.
CREATE INDEX jobs_troubled_idx ON reconciler.jobs_finished (id) WHERE status <> 'completed';

-- What holds up the jobs behind it, for each ordering key at most one, by the rules of find_head. It begins with what
-- holds, since those are few; only where a job of the future holds up its queue are all keys looked at.
CREATE VIEW reconciler.held_orders AS
SELECT DISTINCT ON (h.queue, h.ordering_key) h.queue, h.ordering_key, h.job_id, h.why, h.since, h.until
  FROM (
    SELECT j.queue, j.ordering_key, j.id AS job_id, 'running' AS why, j.started_at AS since,
           NULL::timestamptz AS until, 1 AS rank
      FROM reconciler.jobs_open j
     WHERE j.status = 'running' AND j.ordering_key IS NOT NULL
    UNION ALL
    SELECT dead.queue, dead.ordering_key, dead.id, 'failed', dead.completed_at, NULL, 2
      FROM (SELECT DISTINCT ON (f.queue, f.ordering_key) f.queue, f.ordering_key, f.id, f.completed_at
              FROM reconciler.jobs_finished f
             WHERE f.status = 'failed' AND f.ordering_key IS NOT NULL
             ORDER BY f.queue, f.ordering_key, f.id) AS dead
      JOIN reconciler.queues q ON q.name = dead.queue AND 'failed' = ANY (q.held_by)
    UNION ALL
    SELECT begun.queue, begun.ordering_key, begun.id, 'retry', begun.started_at, begun.run_at, 3
      FROM (SELECT DISTINCT ON (j.queue, j.ordering_key) j.queue, j.ordering_key, j.id, j.started_at, j.run_at
              FROM reconciler.jobs_open j
             WHERE j.status = 'pending' AND j.ordering_key IS NOT NULL AND j.handler IS NOT NULL AND j.active
               AND j.started_at IS NOT NULL
             ORDER BY j.queue, j.ordering_key, j.id) AS begun
      LEFT JOIN reconciler.queues q ON q.name = begun.queue
     WHERE begun.run_at > statement_timestamp() AND (q.name IS NULL OR 'retry' = ANY (q.held_by))
    UNION ALL
    SELECT q.name, k.key, first.id, 'future', first.created_at, first.run_at, 4
      FROM reconciler.queues q
     CROSS JOIN LATERAL (
           WITH RECURSIVE found (key) AS (
               (SELECT j.ordering_key FROM reconciler.jobs_open j
                 WHERE j.queue = q.name AND j.status = 'pending' AND j.ordering_key IS NOT NULL
                   AND j.handler IS NOT NULL AND j.active
                 ORDER BY j.ordering_key LIMIT 1)
               UNION ALL
               SELECT (SELECT j.ordering_key FROM reconciler.jobs_open j
                        WHERE j.queue = q.name AND j.status = 'pending' AND j.ordering_key IS NOT NULL
                          AND j.handler IS NOT NULL AND j.active AND j.ordering_key > f.key
                        ORDER BY j.ordering_key LIMIT 1)
                 FROM found f WHERE f.key IS NOT NULL
           ) SELECT f.key FROM found f WHERE f.key IS NOT NULL) AS k
     CROSS JOIN LATERAL (
           SELECT j.id, j.run_at, j.created_at FROM reconciler.jobs_open j
            WHERE j.queue = q.name AND j.ordering_key = k.key AND j.status = 'pending' AND j.handler IS NOT NULL
              AND j.active
            ORDER BY j.id LIMIT 1) AS first
     WHERE 'future' = ANY (q.held_by) AND first.run_at > statement_timestamp()
       AND NOT EXISTS (SELECT FROM reconciler.jobs_open j
                        WHERE j.queue = q.name AND j.ordering_key = k.key AND j.status = 'pending'
                          AND j.handler IS NOT NULL AND j.active AND j.started_at IS NOT NULL
                          AND j.run_at <= statement_timestamp())
  ) AS h
 ORDER BY h.queue, h.ordering_key, h.rank;
COMMENT ON VIEW reconciler.held_orders IS 'What holds up the jobs behind it in the order, key by key';

-- What holds up an order of a queue: the job, why (running, failed, retry, future), since when, how many jobs that are
-- due wait behind it, and until when as far as that is known. Those come first that keep the most waiting.
CREATE FUNCTION reconciler.find_blocked(queue text, key text DEFAULT NULL)
RETURNS TABLE (ordering_key text, job_id bigint, why text, since timestamptz, waiting bigint, until timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT h.ordering_key, h.job_id, h.why, h.since, w.waiting, h.until
      FROM reconciler.held_orders h
     CROSS JOIN LATERAL (
           SELECT count(*) AS waiting FROM reconciler.jobs_open j
            WHERE j.queue = h.queue AND j.ordering_key = h.ordering_key AND j.status = 'pending'
              AND j.handler IS NOT NULL AND j.active AND j.run_at <= statement_timestamp()) AS w
     WHERE h.queue = find_blocked.queue AND (find_blocked.key IS NULL OR h.ordering_key = find_blocked.key)
       AND w.waiting > 0
     ORDER BY w.waiting DESC, h.since, h.job_id;
END
$$;

-- How every queue fares, declared or not. Everything is counted along an index: what waits in jobs_ready_idx and
-- jobs_ordered_idx, which hold nothing else; of what is finished the newest 100,000 of each queue at the most, so that
-- completed_last_hour of a busy queue is a least number, and rate (jobs a minute) is measured over what was looked at.
CREATE VIEW reconciler.queue_health AS
WITH RECURSIVE scan (name) AS (
    -- From name to name by the first letters of the indexes.
    SELECT ''
    UNION ALL
    SELECT least(
        (SELECT j.queue FROM reconciler.jobs_open j
          WHERE j.status = 'pending' AND j.ordering_key IS NULL AND j.handler IS NOT NULL AND j.active
            AND j.queue > s.name ORDER BY j.queue LIMIT 1),
        (SELECT j.queue FROM reconciler.jobs_open j
          WHERE j.status = 'pending' AND j.ordering_key IS NOT NULL AND j.handler IS NOT NULL AND j.active
            AND j.queue > s.name ORDER BY j.queue LIMIT 1),
        (SELECT j.queue FROM reconciler.jobs_open j
          WHERE j.status = 'running' AND j.handler IS NOT NULL AND j.queue > s.name ORDER BY j.queue LIMIT 1),
        (SELECT f.queue FROM reconciler.jobs_finished f
          WHERE f.status IN ('completed', 'cancelled') AND f.queue > s.name ORDER BY f.queue LIMIT 1),
        (SELECT f.queue FROM reconciler.jobs_finished f
          WHERE f.status = 'failed' AND f.queue > s.name ORDER BY f.queue LIMIT 1))
      FROM scan s WHERE s.name IS NOT NULL
), names AS (
    SELECT s.name FROM scan s WHERE s.name <> '' UNION SELECT q.name FROM reconciler.queues q
), found AS (
    SELECT n.name,
           coalesce(q.mode, CASE n.name WHEN 'blocking' THEN 'blocking' ELSE 'standard' END) AS mode,
           q.name IS NOT NULL                         AS declared,
           coalesce(ready.waiting, 0) + coalesce(ordered.waiting, 0)     AS waiting,
           coalesce(ready.scheduled, 0) + coalesce(ordered.scheduled, 0) AS scheduled,
           coalesce(running.jobs, 0)                  AS running,
           coalesce(dead.jobs, 0)                     AS failed,
           least(ready.oldest, ordered.oldest)        AS oldest,
           recent.minute, recent.hour, recent.rate,
           pull.workers + push.workers                AS workers,
           q.concurrency, q.rate_count, q.rate_per
      FROM names n
      LEFT JOIN reconciler.queues q ON q.name = n.name
      LEFT JOIN (
           SELECT j.queue, count(*) FILTER (WHERE j.run_at <= statement_timestamp()) AS waiting,
                  count(*) FILTER (WHERE j.run_at > statement_timestamp())           AS scheduled,
                  min(j.run_at) FILTER (WHERE j.run_at <= statement_timestamp())     AS oldest
             FROM reconciler.jobs_open j
            WHERE j.status = 'pending' AND j.ordering_key IS NULL AND j.handler IS NOT NULL AND j.active
            GROUP BY j.queue) AS ready ON ready.queue = n.name
      LEFT JOIN (
           SELECT j.queue, count(*) FILTER (WHERE j.run_at <= statement_timestamp()) AS waiting,
                  count(*) FILTER (WHERE j.run_at > statement_timestamp())           AS scheduled,
                  min(j.run_at) FILTER (WHERE j.run_at <= statement_timestamp())     AS oldest
             FROM reconciler.jobs_open j
            WHERE j.status = 'pending' AND j.ordering_key IS NOT NULL AND j.handler IS NOT NULL AND j.active
            GROUP BY j.queue) AS ordered ON ordered.queue = n.name
      LEFT JOIN (
           SELECT j.queue, count(*) AS jobs FROM reconciler.jobs_open j
            WHERE j.status = 'running' AND j.handler IS NOT NULL GROUP BY j.queue) AS running ON running.queue = n.name
      LEFT JOIN (
           SELECT f.queue, count(*) AS jobs FROM reconciler.jobs_finished f
            WHERE f.status = 'failed' GROUP BY f.queue) AS dead ON dead.queue = n.name
     CROSS JOIN LATERAL (
           SELECT count(*) FILTER (WHERE l.status = 'completed'
                                     AND l.completed_at > statement_timestamp() - interval '1 minute') AS minute,
                  count(*) FILTER (WHERE l.status = 'completed') AS hour,
                  count(*) FILTER (WHERE l.status = 'completed'
                                     AND l.completed_at > statement_timestamp() - interval '1 minute')
                      * CASE WHEN count(*) = 100000 AND min(l.completed_at) > statement_timestamp() - interval '1 minute'
                             THEN 60 / extract(epoch FROM greatest(
                                      statement_timestamp() - min(l.completed_at), interval '1 second'))
                             ELSE 1 END AS rate
             FROM (SELECT f.status, f.completed_at FROM reconciler.jobs_finished f
                    WHERE f.queue = n.name AND f.status IN ('completed', 'cancelled')
                      AND f.completed_at > statement_timestamp() - interval '1 hour'
                    ORDER BY f.completed_at DESC LIMIT 100000) AS l) AS recent
     CROSS JOIN LATERAL (
           SELECT count(*) AS workers FROM reconciler.pull_workers w
            WHERE n.name = ANY (w.queues) AND w.seen_at > statement_timestamp() - interval '1 minute') AS pull
     CROSS JOIN LATERAL (
           SELECT count(*) AS workers FROM reconciler.workers w JOIN reconciler.definitions d ON d.name = w.name
            WHERE w.queue = n.name AND w.status = 'pending' AND d.active) AS push
)
SELECT f.name                                             AS queue,
       f.mode, f.declared, f.waiting, f.scheduled, f.running, f.failed,
       statement_timestamp() - f.oldest                   AS oldest_age,
       f.minute                                           AS completed_last_minute,
       f.hour                                             AS completed_last_hour,
       round(f.rate)::bigint                              AS rate,
       f.workers, f.concurrency,
       -- What keeps the jobs that are due from being done, where that is known.
       CASE WHEN f.waiting = 0 THEN NULL
            WHEN f.mode = 'blocking' AND held.keys > 0 THEN held.first
            WHEN f.running >= f.concurrency THEN 'concurrency'
            WHEN f.rate_count <= (SELECT sum(s.count)
                                    FROM reconciler.queue_states q, unnest(q.started, q.counts) AS s (at, count)
                                   WHERE q.queue = f.name AND s.at > statement_timestamp() - f.rate_per) THEN 'rate'
            WHEN f.workers = 0 AND f.running = 0 AND f.minute = 0 THEN 'no worker'
            WHEN held.keys > 0 THEN format('%s ordering %s', held.keys, CASE held.keys WHEN 1 THEN 'key' ELSE 'keys' END)
       END                                                AS blocked_by
  FROM found f
 CROSS JOIN LATERAL (
       SELECT count(*) AS keys, min(format('job %s (%s)', h.job_id, h.why)) AS first
         FROM reconciler.held_orders h
        WHERE h.queue = f.name AND f.waiting > 0 AND (f.mode = 'blocking' OR h.why <> 'running')
          AND EXISTS (SELECT FROM reconciler.jobs_open j
                       WHERE j.queue = f.name AND j.ordering_key = h.ordering_key AND j.status = 'pending'
                         AND j.handler IS NOT NULL AND j.active AND j.run_at <= statement_timestamp())) AS held
 ORDER BY f.name;
COMMENT ON VIEW reconciler.queue_health IS 'How every queue fares: depth, age, rate, dead jobs, workers, what blocks it';

-- The newest jobs with what is asked for; scheduled are those of the pending ones that are not due yet.
CREATE FUNCTION reconciler.list_jobs(
    status text DEFAULT NULL, queue text DEFAULT NULL, handler text DEFAULT NULL, job_name text DEFAULT NULL,
    max integer DEFAULT 100
) RETURNS SETOF reconciler.jobs
LANGUAGE plpgsql STABLE SECURITY DEFINER
-- Planned for what is asked, not for everything that could be.
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off
AS $$
BEGIN
    -- Part by part: each has indexes of its own.
    RETURN QUERY
    SELECT l.* FROM (
        (SELECT j.* FROM reconciler.jobs_open j
          WHERE (list_jobs.status IS NULL OR list_jobs.status IN ('pending', 'scheduled', 'running')
                 AND j.status = CASE list_jobs.status WHEN 'scheduled' THEN 'pending' ELSE list_jobs.status END)
            AND (list_jobs.status IS DISTINCT FROM 'scheduled' OR j.run_at > statement_timestamp())
            AND (list_jobs.queue IS NULL OR j.queue = list_jobs.queue)
            AND (list_jobs.handler IS NULL OR j.handler = list_jobs.handler)
            AND (list_jobs.job_name IS NULL OR j.job_name = list_jobs.job_name)
          ORDER BY j.id DESC LIMIT list_jobs.max)
        UNION ALL
        (SELECT j.* FROM reconciler.jobs_finished j
          WHERE j.status IN ('completed', 'cancelled')
            AND (list_jobs.status IS NULL
                 OR list_jobs.status IN ('completed', 'cancelled') AND j.status = list_jobs.status)
            AND (list_jobs.queue IS NULL OR j.queue = list_jobs.queue)
            AND (list_jobs.handler IS NULL OR j.handler = list_jobs.handler)
            AND (list_jobs.job_name IS NULL OR j.job_name = list_jobs.job_name)
          ORDER BY j.id DESC LIMIT list_jobs.max)
        UNION ALL
        (SELECT j.* FROM reconciler.jobs_finished j
          WHERE j.status = 'failed'
            AND (list_jobs.status IS NULL OR list_jobs.status = 'failed')
            AND (list_jobs.queue IS NULL OR j.queue = list_jobs.queue)
            AND (list_jobs.handler IS NULL OR j.handler = list_jobs.handler)
            AND (list_jobs.job_name IS NULL OR j.job_name = list_jobs.job_name)
          ORDER BY j.id DESC LIMIT list_jobs.max)
    ) AS l ORDER BY l.id DESC LIMIT list_jobs.max;
END
$$;

CREATE OR REPLACE FUNCTION reconciler.allow_enqueue(role name) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format(
        'GRANT EXECUTE ON FUNCTION reconciler.enqueue, reconciler.enqueue_many, reconciler.get_job,'
        ' reconciler.list_jobs, reconciler.cancel_job, reconciler.retry_job, reconciler.retry_jobs,'
        ' reconciler.find_blocked, reconciler.find_queue_settings TO %I', role);
    EXECUTE format('GRANT SELECT ON reconciler.queue_health, reconciler.held_orders TO %I', role);
END
$$;

REVOKE EXECUTE ON FUNCTION reconciler.find_blocked, reconciler.list_jobs FROM PUBLIC;
