-- name: find_queue_settings
SELECT (reconciler.find_queue_settings('default')).name;

-- name: rescue_jobs
SELECT reconciler.rescue_jobs();

-- name: claim_jobs
-- The payload is read as text: programs load jsonb in ways of their own.
SELECT c.id, c.token, c.handler, c.payload::text AS payload, c.attempt, c.max_attempts, c.priority, c.run_at, c.timeout,
       c.lease, c.type, c.job_name, c.ordering_key, c.unique_key, c.queue, c.created_at
  FROM reconciler.claim_jobs(queue => %(queue)s, worker => %(worker)s, max => %(max)s, status => %(status)s) c
 ORDER BY c.priority DESC, c.run_at, c.id;

-- name: complete_job
SELECT reconciler.complete_jobs(ARRAY[%(id)s::bigint], ARRAY[%(token)s::bigint], ARRAY[%(result)s::jsonb], ARRAY[%(note)s::text]);

-- name: fail_job
SELECT reconciler.fail_job(
           id => %(id)s, token => %(token)s, error => %(error)s, retry_in => %(retry_in)s::interval, final => %(final)s) AS status;

-- name: snooze_job
SELECT reconciler.snooze_job(id => %(id)s, token => %(token)s, delay => %(delay)s) AS is_ours;

-- name: end_cancelled_job
SELECT reconciler.end_cancelled_job(id => %(id)s, token => %(token)s, reason => %(reason)s) AS is_ours;

-- name: return_jobs
SELECT reconciler.return_jobs(%(ids)s::bigint[], %(tokens)s::bigint[]);

-- name: renew_leases
SELECT r.id, r.cancelled_by FROM reconciler.renew_leases(%(worker)s, %(ids)s::bigint[], %(tokens)s::bigint[]) r;
