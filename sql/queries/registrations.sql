-- name: list_scheduled_jobs
-- The tool's own entries are nobody's jobs.
SELECT s.name, s.owner, s.description, s.trigger, s.schedule, s.run_at, coalesce(s.after, '{}') AS after, s.active,
       coalesce(h.paused, false) AS paused, s.role, s.source, h.last_status, h.last_run_time AS last_run_at,
       h.next_run_time AS next_run_at, coalesce(h.consecutive_failures, 0) AS consecutive_failures
  FROM reconciler.scheduled_jobs s
  LEFT JOIN reconciler.cron_job_health h ON h.name = s.name
 WHERE s.kind = 'job' AND NOT starts_with(s.name, 'reconciler-')
   AND (%(owner)s::text IS NULL OR s.owner = %(owner)s)
 ORDER BY s.name;

-- name: read_last_result
-- What goes on still has no result, and what was skipped was no execution.
SELECT r.run_id, r.status, r.run_at, r.completed_at, r.duration, r.error_message AS error, r.rows_affected AS rows,
       r.attempt, r.trigger
  FROM reconciler.run_history r
 WHERE r.name = %(name)s AND r.status NOT IN ('running', 'skipped')
 ORDER BY r.run_at DESC, r.run_id DESC
 LIMIT 1;

-- name: has_role
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %(role)s);
