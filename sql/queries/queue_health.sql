-- name: disable_jit
-- The view is planned as dear, and is cheap: compiling it took 2.5 s with a million finished jobs, reading it 0.03 s.
SET LOCAL jit = off;

-- name: find_views
SELECT to_regclass('reconciler.queue_health') IS NOT NULL;

-- name: read_queues
SELECT queue, mode, declared, waiting, scheduled, running, failed, oldest_age, completed_last_minute,
       completed_last_hour, rate, workers, concurrency, blocked_by
  FROM reconciler.queue_health
 WHERE (%(queue)s::text IS NULL OR queue = %(queue)s) AND (%(after)s::text IS NULL OR queue > %(after)s)
 ORDER BY queue
 LIMIT %(limit)s;

-- name: read_held
SELECT ordering_key, job_id, why, since, until, waiting
  FROM reconciler.find_blocked(%(queue)s::text, %(key)s::text)
 LIMIT %(limit)s;

-- name: read_limits
-- What a queue says of its jobs, and of the tries of those that say nothing of their own.
SELECT max_attempts, timeout, backoff_initial, backoff_factor::float8 AS backoff_factor, backoff_max, concurrency,
       rate_count, rate_per, lease, retention, keep_failed, held_by
  FROM reconciler.find_queue_settings(%(queue)s::text);
