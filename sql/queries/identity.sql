-- name: find_identity
-- Null: nothing was applied yet, or an earlier release did it. What a claim writes it has to be allowed to write.
SELECT to_regnamespace('reconciler') IS NOT NULL, to_regclass('reconciler.identity') IS NOT NULL,
       coalesce(has_table_privilege(to_regclass('reconciler.identity'), 'SELECT'), false),
       coalesce(has_table_privilege(to_regclass('reconciler.identity'), 'INSERT, UPDATE'), false);

-- name: record
SELECT reconciler.record_identity(%(owner)s::text, %(target)s::text);

-- name: require_home
SELECT reconciler.require_home();

-- name: count_waiting
-- What a claim lets loose. A queue may hold millions: a thousand of each kind are enough to know of them.
SELECT (SELECT count(*) FROM (
            SELECT FROM reconciler.definitions d JOIN reconciler.list_entries() AS e ON e.jobid = d.jobid
             WHERE e.active AND d.spec ->> 'mode' IS DISTINCT FROM 'direct'
               AND NOT starts_with(d.name, 'reconciler-') LIMIT 1001) AS one)::integer AS entries,
       (SELECT count(*) FROM (
            SELECT FROM reconciler.definitions d JOIN reconciler.list_entries() AS e ON e.jobid = d.jobid
             WHERE NOT e.active AND d.active AND d.spec ->> 'mode' = 'direct' LIMIT 1001) AS one)::integer AS direct,
       (SELECT count(*) FROM (
            SELECT FROM reconciler.jobs_open j WHERE j.status = 'pending' AND j.active LIMIT 1001) AS one)::integer
           AS jobs,
       (SELECT count(*) FROM (
            SELECT FROM reconciler.jobs_open j WHERE j.status = 'running' LIMIT 1001) AS one)::integer AS begun,
       (SELECT count(*) FROM (SELECT FROM reconciler.starts LIMIT 1001) AS one)::integer AS starts,
       (SELECT count(*) FROM (
            SELECT FROM reconciler.alert_deliveries o WHERE o.status = 'pending' LIMIT 1001) AS one)::integer AS alerts,
       ARRAY(SELECT DISTINCT d.owner FROM reconciler.definitions d ORDER BY 1) AS owners;

-- name: drop_alerts
UPDATE reconciler.alert_deliveries
   SET status = 'failed', claimed_until = NULL, last_error = 'dropped when the copy was claimed'
 WHERE status = 'pending';
