-- name: list_owners
SELECT d.owner, count(*) AS jobs
  FROM reconciler.definitions d
 WHERE d.kind IN ('job', 'worker') AND NOT starts_with(d.name, 'reconciler-')
 GROUP BY d.owner
 ORDER BY d.owner;
