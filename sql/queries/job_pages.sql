-- name: disable_jit
-- Compiling the query takes longer than executing it for 10,000 jobs.
SET LOCAL jit = off;

-- A page is read by one query of several parts: which jobs, which is list_all or one of those that find few; what
-- pg_cron's records say of them, follow_direct; how they fare, which is judge_jobs with find_page for all and fare_page
-- for few; what else is known of them, describe_page; then show_page. The status of all jobs ends with show_status, and
-- has take_all in place of find_page.

-- name: list_all
-- What tells states apart is found for all jobs at once, without a look at the runs in our log.
WITH listed AS MATERIALIZED (
    SELECT d.name COLLATE "C" AS name, 0::bigint AS number, d.kind, d.owner, d.jobid, j.schedule, j.active,
           d.retired_until, coalesce(d.spec ->> 'mode', '') = 'direct' AS is_direct,
           -- An entry, a time, or jobs to wait for.
           CASE WHEN d.jobid IS NOT NULL OR d.spec ->> 'once' IS NOT NULL THEN true
                WHEN json_typeof(d.spec -> 'after') = 'array' THEN json_array_length(d.spec -> 'after') > 0
                ELSE false END AS is_triggered,
           CASE WHEN %(query)s::text IS NULL THEN true
                ELSE strpos(lower(concat_ws(E'\n', d.name, d.owner, d.spec ->> 'description',
                         CASE WHEN json_typeof(d.spec -> 'labels') = 'object'
                              THEN (SELECT string_agg(l.key || '=' || l.value, E'\n')
                                      FROM json_each_text(d.spec -> 'labels') AS l) END)),
                     lower(%(query)s)) > 0 END AS is_match
      FROM reconciler.definitions d
      LEFT JOIN cron.job j ON j.jobid = d.jobid
     WHERE d.kind IN ('job', 'worker')
     UNION ALL
    SELECT coalesce(j.jobname::text, '') COLLATE "C", j.jobid, 'entry', '', j.jobid, j.schedule, j.active,
           NULL, true, true,
           %(query)s::text IS NULL OR strpos(lower(coalesce(j.jobname::text, '')), lower(%(query)s)) > 0
      FROM cron.job j
     WHERE NOT EXISTS (SELECT FROM reconciler.definitions d WHERE d.jobid = j.jobid)
)

-- name: follow_direct
-- Direct jobs, and entries that nobody declared, have only pg_cron's records, which have no index but on runid: the newest
-- are enough, and none are read where no job is direct.
, recent AS MATERIALIZED (
    SELECT r.jobid, r.runid, r.status, r.start_time
      FROM cron.job_run_details r
      JOIN listed a ON a.jobid = r.jobid AND a.is_direct
     WHERE EXISTS (SELECT FROM listed l WHERE l.is_direct)
       AND r.runid > (SELECT coalesce(max(runid), 0) - 20000 FROM cron.job_run_details)
), details AS (
    SELECT r.jobid,
           max(r.start_time) FILTER (WHERE r.runid = ends.last AND r.status NOT IN ('succeeded', 'failed')) AS running_since,
           -- The newest failures, down to the newest success.
           count(*) FILTER (WHERE r.status = 'failed')                                   AS failures
      FROM recent r
      JOIN (SELECT jobid, max(runid) AS last, max(runid) FILTER (WHERE status = 'succeeded') AS good
              FROM recent GROUP BY jobid) AS ends ON ends.jobid = r.jobid AND r.runid > coalesce(ends.good, 0)
     GROUP BY r.jobid
)

-- name: judge_jobs
, running AS (
    SELECT l.job_name, max(l.run_at) AS since,
           -- No worker has begun with any of them.
           bool_and(coalesce(q.status = 'pending', false)) AS is_queued
      FROM reconciler.cron_execution_log l
      LEFT JOIN reconciler.jobs_open q ON l.handed_over AND q.id = l.queued_job_id
     WHERE l.status = 'running' GROUP BY l.job_name
), open_alerts AS (
    SELECT job_name, count(*) AS found, bool_or(kind = 'missed') AS has_missed
      FROM reconciler.alerts WHERE resolved_at IS NULL GROUP BY job_name
), fared AS (
    SELECT a.*, o.status = 'pending' AND o.active AS is_waiting, o.run_at AS waits_until,
           a.jobid IS NOT NULL AND a.schedule IS NULL AND row_security_active('cron.job') AS is_hidden,
           coalesce(s.consecutive_failures, details.failures, 0)::integer AS consecutive_failures,
           coalesce(running.since, details.running_since,
                    -- A one-time job is in the log when it is over.
                    CASE WHEN o.status = 'running' AND o.handler IS NOT NULL THEN o.started_at END) AS running_since,
           coalesce(running.is_queued, false)           AS is_queued,
           p.job_name IS NOT NULL                       AS paused,
           coalesce(open_alerts.found, 0)::integer      AS open_alerts,
           coalesce(open_alerts.has_missed, false)      AS has_missed
      FROM listed a
      LEFT JOIN details ON a.is_direct AND details.jobid = a.jobid
      -- What bears the same name and was not declared is another job.
      LEFT JOIN running ON running.job_name = a.name AND a.kind <> 'entry'
      LEFT JOIN open_alerts ON open_alerts.job_name = a.name AND a.kind <> 'entry'
      LEFT JOIN reconciler.job_states s ON s.name = a.name AND NOT a.is_direct
      -- What waits or runs is in this part of the table.
      LEFT JOIN reconciler.jobs_open o ON o.job_name = a.name AND o.once AND a.kind <> 'entry'
      LEFT JOIN reconciler.pauses p ON p.job_name = a.name AND a.kind <> 'entry' AND (p.until IS NULL OR p.until > now())
), judged AS MATERIALIZED (
    SELECT f.*,
           CASE WHEN f.running_since IS NOT NULL THEN CASE WHEN f.is_queued THEN 'queued' ELSE 'running' END
                WHEN f.retired_until IS NOT NULL THEN 'retired'
                WHEN f.jobid IS NOT NULL AND f.schedule IS NULL AND NOT f.is_hidden THEN 'missing'
                WHEN f.paused THEN 'paused'
                WHEN NOT f.active THEN 'inactive'
                WHEN f.consecutive_failures > 0 THEN 'failing'
                WHEN f.has_missed THEN 'missed'
                WHEN f.is_triggered THEN 'ok'
                ELSE 'no_entry' END AS state
      FROM fared f
     WHERE %(own)s OR NOT starts_with(f.name, 'reconciler-')
)

-- name: find_page
, fitting AS NOT MATERIALIZED (
    SELECT * FROM judged
     WHERE is_match AND (%(owner)s::text IS NULL OR owner = %(owner)s) AND (%(kind)s::text IS NULL OR kind = %(kind)s)
       AND (%(state)s::text IS NULL OR state = %(state)s)
), head AS (
    SELECT (SELECT count(*) FROM fitting) AS total,
           (SELECT coalesce(json_object_agg(c.state, c.found), '{}')
              FROM (SELECT state, count(*) AS found FROM judged GROUP BY state) AS c) AS counts,
           row_security_active('cron.job') AS is_hiding
), page AS MATERIALIZED (
    SELECT * FROM fitting
     WHERE %(after_name)s::text IS NULL OR (name, number) > (%(after_name)s COLLATE "C", %(after_number)s::bigint)
     ORDER BY name, number
     LIMIT %(limit)s
)

-- name: take_all
-- What was declared, all of it.
, page AS MATERIALIZED (
    SELECT * FROM judged WHERE kind <> 'entry'
)

-- name: find_named_page
-- The same page where no state is asked for: its names first, and nothing is judged that is not on it.
WITH head AS (
    SELECT 0::bigint AS total, NULL::json AS counts, row_security_active('cron.job') AS is_hiding
), declared AS MATERIALIZED (
    SELECT d.name COLLATE "C" AS name, 0::bigint AS number, d.kind, d.owner, d.jobid, d.retired_until, d.spec
      FROM reconciler.definitions d
     WHERE d.kind IN ('job', 'worker') AND (%(kind)s::text IS NULL OR d.kind = %(kind)s)
       AND (%(owner)s::text IS NULL OR d.owner = %(owner)s) AND (%(own)s OR NOT starts_with(d.name, 'reconciler-'))
       AND (%(after_name)s::text IS NULL OR d.name COLLATE "C" > %(after_name)s COLLATE "C"
            OR d.name COLLATE "C" = %(after_name)s COLLATE "C" AND 0 > %(after_number)s::bigint)
     ORDER BY d.name COLLATE "C"
     LIMIT %(limit)s
), strangers AS MATERIALIZED (
    SELECT coalesce(j.jobname::text, '') COLLATE "C" AS name, j.jobid AS number
      FROM cron.job j
     WHERE coalesce(%(kind)s::text, 'entry') = 'entry' AND coalesce(%(owner)s::text, '') = ''
       AND (%(own)s OR NOT starts_with(coalesce(j.jobname::text, ''), 'reconciler-'))
       AND (%(after_name)s::text IS NULL
            OR (coalesce(j.jobname::text, '') COLLATE "C", j.jobid) > (%(after_name)s COLLATE "C", %(after_number)s::bigint))
       -- What comes behind a full page of declared ones is not on it.
       AND ((SELECT count(*) FROM declared) < %(limit)s
            OR coalesce(j.jobname::text, '') COLLATE "C" <= (SELECT max(name) FROM declared))
       -- As a rule an entry bears the name that it is declared under, which is quick to see.
       AND (SELECT d.jobid FROM reconciler.definitions d WHERE d.name = j.jobname::text) IS DISTINCT FROM j.jobid
), listed AS MATERIALIZED (
    -- Not before: the specs of all others would be read for it.
    SELECT name, number, kind, owner, jobid, retired_until, coalesce(spec ->> 'mode', '') = 'direct' AS is_direct
      FROM declared
     UNION ALL
    SELECT t.name, t.number, 'entry', '', t.number, NULL, true
      FROM strangers t
     WHERE NOT EXISTS (SELECT FROM reconciler.definitions d WHERE d.jobid = t.number)
     ORDER BY name, number
     LIMIT %(limit)s
)

-- name: count_page
-- How many there are, without a page.
SELECT head.total, head.counts, head.is_hiding FROM head;

-- name: find_declared
-- One job or worker by its name, as most are asked for: one plan serves all names, and is kept.
WITH head AS (
    SELECT 0::bigint AS total, NULL::json AS counts, row_security_active('cron.job') AS is_hiding
), listed AS (
    SELECT d.name, 0::bigint AS number, d.kind, d.owner, d.jobid, d.retired_until,
           coalesce(d.spec ->> 'mode', '') = 'direct' AS is_direct
      FROM reconciler.definitions d
     WHERE d.kind IN ('job', 'worker') AND d.name = %(name)s
)

-- name: find_job
-- One job, worker or entry, by its name, else by pg_cron's number; what is declared goes first.
WITH head AS (
    SELECT 1 AS total, NULL AS counts, row_security_active('cron.job') AS is_hiding
), listed AS (
    SELECT d.name, 0::bigint AS number, d.kind, d.owner, d.jobid, d.retired_until,
           coalesce(d.spec ->> 'mode', '') = 'direct' AS is_direct, d.name = %(name)s AS is_named
      FROM reconciler.definitions d
     WHERE d.kind IN ('job', 'worker') AND (d.name = %(name)s OR d.jobid = %(jobid)s)
     UNION ALL
    SELECT coalesce(j.jobname::text, '') COLLATE "default", j.jobid, 'entry', '', j.jobid, NULL, true, coalesce(j.jobname::text = %(name)s, false)
      FROM cron.job j
     -- Which spares a look at all entries where it is declared.
     WHERE NOT EXISTS (SELECT FROM reconciler.definitions d WHERE d.kind IN ('job', 'worker') AND d.name = %(name)s)
       AND (j.jobname::text = %(name)s OR j.jobid = %(jobid)s)
       AND NOT EXISTS (SELECT FROM reconciler.definitions d WHERE d.jobid = j.jobid)
     ORDER BY is_named DESC, number
     LIMIT 1
)

-- name: fare_page
-- How the few that are listed fare; each table is looked into by an index, job by job.
, page AS (
    SELECT a.*, j.schedule, j.active, o.status = 'pending' AND o.active AS is_waiting, o.run_at AS waits_until,
           a.jobid IS NOT NULL AND j.jobid IS NULL AND row_security_active('cron.job') AS is_hidden,
           coalesce(s.consecutive_failures, details.failures, 0)::integer AS consecutive_failures,
           coalesce(running.since, details.running_since,
                    CASE WHEN o.status = 'running' AND o.handler IS NOT NULL THEN o.started_at END) AS running_since,
           coalesce(running.is_queued, false)      AS is_queued,
           p.job_name IS NOT NULL                  AS paused,
           coalesce(open_alerts.found, 0)::integer AS open_alerts,
           coalesce(open_alerts.has_missed, false) AS has_missed
      FROM listed a
      LEFT JOIN cron.job j ON j.jobid = a.jobid
      LEFT JOIN LATERAL (
           SELECT s.consecutive_failures FROM reconciler.job_states s
            WHERE s.name = a.name COLLATE "default" AND NOT a.is_direct OFFSET 0) AS s ON true
      LEFT JOIN reconciler.jobs_open o ON o.job_name = a.name COLLATE "default" AND o.once AND a.kind <> 'entry'
      LEFT JOIN reconciler.pauses p ON p.job_name = a.name COLLATE "default" AND a.kind <> 'entry' AND (p.until IS NULL OR p.until > now())
      LEFT JOIN details ON a.is_direct AND details.jobid = a.jobid
      LEFT JOIN LATERAL (
           SELECT max(l.run_at) AS since, bool_and(coalesce(q.status = 'pending', false)) AS is_queued
             FROM reconciler.cron_execution_log l
             LEFT JOIN reconciler.jobs_open q ON l.handed_over AND q.id = l.queued_job_id
            WHERE l.status = 'running' AND l.job_name = a.name COLLATE "default" AND a.kind <> 'entry') AS running ON true
      LEFT JOIN LATERAL (
           SELECT count(*) AS found, bool_or(kind = 'missed') AS has_missed
             FROM reconciler.alerts WHERE resolved_at IS NULL AND job_name = a.name COLLATE "default" AND a.kind <> 'entry') AS open_alerts ON true
)

-- name: describe_page
-- Whatever is read of a job's runs comes through the index on (job_name, run_at), twenty rows at the most.
, newest AS (
    SELECT r.jobid, r.start_time, r.end_time - r.start_time AS duration,
           CASE WHEN r.status IN ('succeeded', 'failed') THEN r.status ELSE 'running' END AS status,
           CASE WHEN r.status = 'failed' THEN rtrim(r.return_message, E'\n') END AS error,
           row_number() OVER (PARTITION BY r.jobid ORDER BY r.runid DESC) AS place
      FROM cron.job_run_details r
      JOIN page a ON a.jobid = r.jobid AND a.is_direct
     WHERE EXISTS (SELECT FROM page l WHERE l.is_direct)
       AND r.runid > (SELECT coalesce(max(runid), 0) - 20000 FROM cron.job_run_details)
), direct AS (
    SELECT n.jobid,
           max(n.status) FILTER (WHERE n.place = 1)     AS status,
           max(n.start_time) FILTER (WHERE n.place = 1) AS run_at,
           max(n.duration) FILTER (WHERE n.place = 1)   AS duration,
           max(n.error) FILTER (WHERE n.place = 1)      AS error,
           array_agg(n.status ORDER BY n.place)         AS statuses,
           array_agg(extract(epoch FROM n.duration)::double precision ORDER BY n.place) AS seconds
      FROM newest n
     WHERE n.place <= 20
     GROUP BY n.jobid
), described AS (
    SELECT a.number, a.name, a.kind, a.owner, a.jobid, coalesce(d.source, '') AS source, d.spec ->> 'description' AS description,
           CASE WHEN json_typeof(d.spec -> 'labels') = 'object' THEN d.spec -> 'labels' ELSE '{}' END AS labels,
           a.jobid IS NOT NULL AS scheduled, a.schedule, a.active, a.is_hidden,
           CASE WHEN a.is_direct THEN direct.status ELSE last.status END     AS last_status,
           CASE WHEN a.is_direct THEN direct.run_at ELSE last.run_at END     AS last_run_at,
           CASE WHEN a.is_direct THEN direct.error ELSE last.error END       AS last_error,
           CASE WHEN a.is_direct THEN direct.duration ELSE last.duration END AS last_duration,
           CASE WHEN a.retired_until IS NOT NULL THEN NULL
                WHEN a.is_waiting THEN a.waits_until
                -- Not when its entry fires, where that comes more often than the job is due.
                WHEN a.active AND t.name IS NOT NULL THEN reconciler.find_due(t, a.schedule, now(), %(zone)s)
                -- pg_cron counts seconds from the last start.
                WHEN a.active AND a.schedule ~* 'second'
                THEN greatest(reconciler.next_fire(a.schedule, coalesce(last.run_at, direct.run_at, now()), 'GMT'), now())
                WHEN a.active THEN reconciler.next_fire(a.schedule, now(), %(zone)s) END AS next_run_at,
           coalesce(d.spec ->> 'timezone', '') AS timezone,
           CASE WHEN json_typeof(d.spec -> 'after') = 'array'
                THEN ARRAY(SELECT json_array_elements_text(d.spec -> 'after')) ELSE '{}' END AS after,
           (d.spec ->> 'once')::timestamptz AS once_at,
           a.consecutive_failures, a.running_since, a.is_queued, a.paused, p.until AS paused_until,
           coalesce(p.reason, '') AS pause_reason, coalesce(p.paused_by, '') AS paused_by, a.retired_until, a.open_alerts, a.has_missed,
           coalesce(CASE WHEN a.is_direct THEN direct.statuses ELSE recent.statuses END, '{}') AS recent_statuses,
           coalesce(CASE WHEN a.is_direct THEN direct.seconds ELSE recent.seconds END, '{}')   AS recent_seconds
      FROM page a
      -- Through its index: a page is short, which the server does not know.
      LEFT JOIN LATERAL (
           SELECT * FROM reconciler.definitions d
            WHERE d.name = a.name COLLATE "default" AND a.kind <> 'entry' OFFSET 0) AS d ON true
      LEFT JOIN reconciler.timings t ON t.name = d.name
      LEFT JOIN reconciler.pauses p ON a.paused AND p.job_name = d.name
      LEFT JOIN direct ON direct.jobid = a.jobid
      LEFT JOIN LATERAL (
           SELECT l.status, l.run_at, l.error_message AS error, l.completed_at - l.run_at AS duration
             FROM reconciler.cron_execution_log l
            WHERE l.job_name = d.name ORDER BY l.run_at DESC LIMIT 1) AS last ON true
      LEFT JOIN LATERAL (
           -- In the order of the index: sorting once more would take longer than all the rest.
           SELECT array_agg(l.status) AS statuses,
                  array_agg(extract(epoch FROM l.completed_at - l.run_at)::double precision) AS seconds
             FROM (SELECT status, run_at, completed_at FROM reconciler.cron_execution_log
                    WHERE job_name = d.name ORDER BY run_at DESC LIMIT 20) AS l) AS recent ON true
)

-- name: show_page
-- Where there is no job there is one row without any.
SELECT head.total, head.counts, head.is_hiding, a.*
  FROM head
  LEFT JOIN described a ON true
 ORDER BY a.name, a.number;

-- name: show_status
SELECT name, kind, owner, scheduled, schedule, active, is_hidden, last_status, last_run_at, last_error, last_duration,
       next_run_at, timezone, after, once_at, consecutive_failures, running_since, is_queued, paused, paused_until,
       pause_reason, paused_by, retired_until, open_alerts, has_missed, recent_statuses, recent_seconds
  FROM described
 ORDER BY owner, name COLLATE "default";

-- name: read_declaration
-- What was declared, and the entry as it is; nothing is hidden here that find_job has shown.
SELECT d.spec::text AS document, d.digest, coalesce(d.protect, false) AS protect,
       coalesce(d.spec ->> 'mode', 'managed') AS mode, j.command, j.database, j.username,
       current_database()::text AS home, session_user::text AS caller
  FROM (SELECT %(name)s::text AS name, %(jobid)s::bigint AS jobid) AS of
  LEFT JOIN reconciler.definitions d ON d.name = of.name
  LEFT JOIN cron.job j ON j.jobid = of.jobid;

-- name: list_names
-- The tool's own are nobody's jobs.
SELECT d.name FROM reconciler.definitions d
 WHERE d.kind IN ('job', 'worker') AND NOT starts_with(d.name, 'reconciler-')
 UNION
SELECT j.jobname::text FROM cron.job j WHERE j.jobname IS NOT NULL AND NOT starts_with(j.jobname::text, 'reconciler-');
