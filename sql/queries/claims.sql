-- name: claim
SELECT id, token, handler, payload::text, attempt, max_attempts, priority, run_at, timeout, lease, type, job_name,
       ordering_key, unique_key, queue, created_at
  FROM reconciler.claim_jobs(%(queue)s, %(worker)s, %(max)s, %(priorities)s::integer[], %(sinces)s::timestamptz[],
                             %(status)s, %(since_ids)s::bigint[])
 ORDER BY priority DESC, run_at, id

-- name: complete
SELECT reconciler.complete_jobs(%(ids)s::bigint[], %(tokens)s::bigint[])

-- name: complete_with_results
SELECT reconciler.complete_jobs(
    %(ids)s::bigint[], %(tokens)s::bigint[],
    ARRAY(SELECT nullif(value, 'null') FROM jsonb_array_elements(%(results)s::jsonb)),
    %(notes)s::text[])

-- name: fail
SELECT f.id, reconciler.fail_job(f.id, f.token, f.error, f.retry_in * interval '1 second', f.final)
  FROM unnest(%(ids)s::bigint[], %(tokens)s::bigint[], %(errors)s::text[], %(waits)s::double precision[],
              %(finals)s::boolean[]) AS f (id, token, error, retry_in, final)

-- name: snooze
SELECT s.id
  FROM unnest(%(ids)s::bigint[], %(tokens)s::bigint[], %(waits)s::double precision[]) AS s (id, token, delay)
 WHERE reconciler.snooze_job(s.id, s.token, s.delay * interval '1 second')

-- name: give_back
SELECT reconciler.return_jobs(%(ids)s::bigint[], %(tokens)s::bigint[])

-- name: end_cancelled
SELECT c.id
  FROM unnest(%(ids)s::bigint[], %(tokens)s::bigint[], %(reasons)s::text[]) AS c (id, token, reason)
 WHERE reconciler.end_cancelled_job(c.id, c.token, c.reason)

-- name: renew
SELECT id, cancelled_by FROM reconciler.renew_leases(%(worker)s, %(ids)s::bigint[], %(tokens)s::bigint[])

-- name: rescue
SELECT reconciler.rescue_jobs(%(max)s) WHERE reconciler.is_home()

-- name: report
SELECT reconciler.report_worker(%(id)s, %(host)s, %(pid)s, %(queues)s::text[], %(concurrency)s, %(is_leaving)s)

-- name: read_settings
-- A worker that begins in a copy is told why it may not.
SELECT q.name, extract(epoch FROM s.lease)::double precision AS lease,
       s.concurrency IS NOT NULL OR s.rate_count IS NOT NULL OR s.mode = 'blocking' AS is_limited,
       clock_timestamp() AS read_at
  FROM unnest(%(queues)s::text[]) AS q (name), reconciler.find_queue_settings(q.name) AS s
 WHERE reconciler.require_home()
