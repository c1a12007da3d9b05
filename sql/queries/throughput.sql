-- name: read_throughput
-- Finished jobs, counted back from now between the begins of the last 60 minutes and of the last 24 hours, piece by
-- piece along the indexes alone and without the rows, until so many were counted. The last piece may then be cut off:
-- "left" is 0 there.
WITH RECURSIVE edges AS (
    SELECT b.at, lead(b.at, 1, 'infinity') OVER (ORDER BY b.at) AS until, row_number() OVER (ORDER BY b.at DESC) AS place
      FROM (SELECT date_trunc('minute', statement_timestamp(), 'UTC') - make_interval(mins => n) AS at
              FROM generate_series(0, 59) AS n
            UNION
            SELECT date_trunc('hour', statement_timestamp(), 'UTC') - make_interval(hours => n)
              FROM generate_series(0, 23) AS n) AS b
), counted (place, at, finished, failed, "left") AS (
    SELECT 0::bigint, NULL::timestamptz, 0::bigint, 0::bigint, %(most)s::bigint
    UNION ALL
    SELECT e.place, e.at, f.jobs, d.jobs, c."left" - f.jobs - d.jobs
      FROM counted c
      JOIN edges e ON e.place = c.place + 1
     CROSS JOIN LATERAL (
           SELECT count(*) AS jobs
             FROM (SELECT FROM reconciler.jobs_finished j
                    WHERE j.queue = %(queue)s AND j.status IN ('completed', 'cancelled')
                      AND j.completed_at >= e.at AND j.completed_at < e.until
                    LIMIT c."left") AS one) AS f
     CROSS JOIN LATERAL (
           SELECT count(*) AS jobs
             FROM (SELECT FROM reconciler.jobs_finished j
                    WHERE j.queue = %(queue)s AND j.status = 'failed'
                      AND j.completed_at >= e.at AND j.completed_at < e.until
                    LIMIT c."left" - f.jobs) AS one) AS d
     WHERE c."left" > 0
)
SELECT e.at, c.finished, c.failed
  FROM edges e
  LEFT JOIN counted c ON c.place = e.place AND c."left" > 0
 ORDER BY e.at;
