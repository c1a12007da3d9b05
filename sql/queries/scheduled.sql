-- name: find_latest
-- The open job of an id, else the one that was finished last; each part reads one row of an index.
SELECT id FROM (
    (SELECT j.id, j.completed_at FROM reconciler.jobs_open j
      WHERE j.queue = %(queue)s AND j.unique_key = %(job_id)s)
    UNION ALL
    (SELECT j.id, j.completed_at FROM reconciler.jobs_open j
      WHERE j.queue = %(queue)s AND j.job_name = %(job_id)s ORDER BY j.id DESC LIMIT 1)
    UNION ALL
    (SELECT j.id, j.completed_at FROM reconciler.jobs_finished j
      WHERE j.queue = %(queue)s AND j.unique_key = %(job_id)s ORDER BY j.completed_at DESC LIMIT 1)
    UNION ALL
    (SELECT j.id, j.completed_at FROM reconciler.jobs_finished j
      WHERE j.queue = %(queue)s AND j.job_name = %(job_id)s ORDER BY j.completed_at DESC LIMIT 1)
) AS newest
 ORDER BY completed_at DESC NULLS FIRST, id DESC
 LIMIT 1;

-- name: list_open_runs
SELECT j.id FROM reconciler.jobs_open j WHERE j.queue = %(queue)s AND j.job_name = %(job_id)s ORDER BY j.id;

-- name: list_recurring
SELECT d.name, d.spec ->> 'handler' AS handler, coalesce(d.spec ->> 'payload', '{}') AS payload,
       coalesce(d.spec #>> '{labels,type}', 'custom') AS type, h.next_run_time AS next_run_at,
       h.last_run_time AS last_run_at, h.last_error, d.created_at, d.updated_at
  FROM reconciler.definitions d
  JOIN reconciler.cron_job_health h ON h.name = d.name
 WHERE d.owner = %(owner)s AND d.kind = 'job' AND d.spec ->> 'queue' = %(queue)s AND d.spec ->> 'handler' IS NOT NULL
   AND (%(job_id)s::text IS NULL OR d.name = %(job_id)s)
 ORDER BY h.next_run_time, d.name;

-- name: read_queue
SELECT d.spec::text AS document FROM reconciler.definitions d
 WHERE d.name = %(queue)s AND d.kind = 'queue' AND d.owner = %(owner)s;

-- name: read_clock
SELECT clock_timestamp();
