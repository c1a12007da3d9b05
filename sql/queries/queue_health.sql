-- name: find_views
SELECT to_regclass('reconciler.queue_health') IS NOT NULL;

-- name: read_queues
SELECT queue, mode, declared, waiting, scheduled, running, failed, oldest_age, completed_last_minute,
       completed_last_hour, rate, workers, concurrency, blocked_by
  FROM reconciler.queue_health
 WHERE %(queue)s::text IS NULL OR queue = %(queue)s
 ORDER BY queue;

-- name: read_held
SELECT ordering_key, job_id, why, since, until, waiting
  FROM reconciler.find_blocked(%(queue)s::text, %(key)s::text)
 LIMIT %(limit)s;

-- name: read_limits
-- What holds for the tries of a job that says nothing of its own.
SELECT max_attempts, timeout FROM reconciler.find_queue_settings(%(queue)s::text);
