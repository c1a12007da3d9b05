-- name: read_ticks
-- Every entry that calls the tick here, with how its newest runs went; the newest 20,000 of pg_cron's records are
-- looked at. A tick may stay for long, so one that goes on is no sign of trouble.
SELECT coalesce(j.jobname::text, 'jobid ' || j.jobid) AS name, j.active, ended.status,
       CASE WHEN ended.status = 'failed' THEN rtrim(ended.return_message, E'\n') END AS error,
       extract(epoch FROM clock_timestamp() - newest.start_time)::double precision AS age,
       coalesce(newest.status NOT IN ('succeeded', 'failed')
                AND EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = newest.job_pid), false) AS is_running,
       -- An entry has no time of its own; our definition of it has.
       extract(epoch FROM clock_timestamp() - d.updated_at)::double precision AS declared_age
  FROM cron.job j
  LEFT JOIN reconciler.definitions d ON d.jobid = j.jobid
  LEFT JOIN LATERAL (
       SELECT r.status, r.start_time, r.job_pid
         FROM cron.job_run_details r
        WHERE r.jobid = j.jobid AND r.start_time IS NOT NULL
          AND r.runid > (SELECT coalesce(max(runid), 0) - 20000 FROM cron.job_run_details)
        ORDER BY r.runid DESC LIMIT 1) AS newest ON true
  LEFT JOIN LATERAL (
       SELECT r.status, r.return_message
         FROM cron.job_run_details r
        WHERE r.jobid = j.jobid AND r.status IN ('succeeded', 'failed')
          AND r.runid > (SELECT coalesce(max(runid), 0) - 20000 FROM cron.job_run_details)
        ORDER BY r.runid DESC LIMIT 1) AS ended ON true
 WHERE j.command ~* '^\s*CALL\s+reconciler\.tick\s*\(' AND j.database = current_database()
 ORDER BY j.jobid;

-- name: read_overdue_starts
SELECT reconciler.find_role(d.username, d.spec) AS role, count(*)::integer AS starts,
       extract(epoch FROM clock_timestamp() - min(s.due_at))::double precision AS age,
       (array_agg(s.job_name ORDER BY s.due_at))[1:3] AS jobs
  FROM reconciler.starts s
  JOIN reconciler.definitions d ON d.name = s.job_name
 WHERE s.due_at < clock_timestamp() - interval '5 minutes' AND d.retired_until IS NULL
 GROUP BY 1
 ORDER BY 1;

-- name: read_troubled_deliveries
-- What was given up in the last week, and what waits for its first try although nobody is at work on it.
SELECT o.channel, coalesce(max(c.spec ->> 'deliver'), 'process') AS deliver,
       count(*) FILTER (WHERE o.status = 'failed')::integer AS failed,
       count(*) FILTER (WHERE o.status = 'pending')::integer AS waiting,
       (array_agg(o.last_error ORDER BY o.id DESC) FILTER (WHERE o.last_error IS NOT NULL))[1] AS error
  FROM reconciler.alert_deliveries o
  LEFT JOIN reconciler.definitions c ON c.name = o.channel AND c.kind = 'channel'
 WHERE (o.status = 'failed' AND o.created_at > clock_timestamp() - interval '7 days')
    OR (o.status = 'pending' AND o.due_at < clock_timestamp() - interval '5 minutes')
 GROUP BY o.channel
 ORDER BY o.channel;

-- name: read_unsignalled_roles
-- Roles whose runs the schema's owner cannot end: pg_cancel_backend asks for the role's own rights or those of
-- pg_signal_backend, and for a superuser where the backend is one's. Whoever cannot read pg_authid knows it as well.
SELECT roles.name AS role, owner.rolname::text AS owner, coalesce(target.rolsuper, false) AS is_superuser,
       roles.jobs, roles.has_timeout
  FROM (SELECT reconciler.find_role(d.username, d.spec) AS name, count(*)::integer AS jobs,
               bool_or(p.timeout IS NOT NULL) AS has_timeout
          FROM reconciler.definitions d JOIN reconciler.policies p ON p.name = d.name
         GROUP BY 1) AS roles
  JOIN pg_roles target ON target.rolname = roles.name
  JOIN pg_namespace n ON n.nspname = 'reconciler'
  JOIN pg_roles owner ON owner.oid = n.nspowner
 WHERE NOT owner.rolsuper
   AND (target.rolsuper
        OR NOT (pg_has_role(owner.oid, target.oid, 'USAGE') OR pg_has_role(owner.oid, 'pg_signal_backend', 'USAGE')))
 ORDER BY 1;

-- name: read_sql_workers
-- Workers that were made in SQL, with whether their entry is there and, as far as the role sees that, a tick.
SELECT d.name,
       EXISTS (SELECT FROM cron.job j
                WHERE j.jobid = d.jobid OR j.jobname::text = d.name AND j.username = d.username)
       OR (d.username <> current_user AND row_security_active('cron.job')) AS has_entry,
       EXISTS (SELECT FROM cron.job j WHERE j.active AND j.command ~* '^\s*CALL\s+reconciler\.tick\s*\(')
       OR row_security_active('cron.job') AS has_tick
  FROM reconciler.definitions d
 WHERE d.owner = 'sql'
 ORDER BY d.name;
