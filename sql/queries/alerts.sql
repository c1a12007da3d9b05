-- name: find_outbox
-- Null: nothing was applied yet, or an earlier release did it.
SELECT to_regnamespace('reconciler') IS NOT NULL, to_regclass('reconciler.alert_deliveries') IS NOT NULL;

-- name: read_clock
SELECT clock_timestamp();

-- name: listen
LISTEN reconciler_alerts;

-- name: give_up_deliveries
-- Whoever claimed these was gone each time before it could say how it went.
UPDATE reconciler.alert_deliveries d
   SET status = 'failed', claimed_until = NULL,
       last_error = coalesce(d.last_error || '; ', '') || 'the deliverer was gone during the last try'
 WHERE d.status = 'pending' AND d.attempts >= %(max_attempts)s AND d.claimed_until <= now();

-- name: claim_deliveries
-- The oldest due message of each channel that is not busy. Channels that the database serves and those of other
-- owners, whose secrets are not ours to know, are left alone; one that nobody declares is tried, and so told of.
WITH channels AS (
    SELECT p.channel, c.spec #>> '{url,secret}' AS secret
      FROM (SELECT DISTINCT channel FROM reconciler.alert_deliveries WHERE status = 'pending') AS p
      LEFT JOIN reconciler.definitions c ON c.name = p.channel AND c.kind = 'channel'
     WHERE p.channel <> ALL (%(busy)b::text[])
       AND (c.name IS NULL
            OR c.owner = %(owner)s AND coalesce(c.spec ->> 'deliver', 'process') = 'process')
), claimed AS (
    UPDATE reconciler.alert_deliveries d
       SET attempts = d.attempts + 1, claimed_until = now() + %(lease)s
      FROM (SELECT one.id, c.secret
              FROM channels c
             CROSS JOIN LATERAL (
                   SELECT o.id FROM reconciler.alert_deliveries o
                    WHERE o.status = 'pending' AND o.channel = c.channel AND o.due_at <= coalesce(%(due_by)s, now())
                      AND (o.claimed_until IS NULL OR o.claimed_until <= now())
                      AND o.attempts < %(max_attempts)s
                    ORDER BY o.due_at, o.id LIMIT 1
                      FOR UPDATE SKIP LOCKED) AS one) AS due
     WHERE d.id = due.id
    RETURNING d.id, d.attempts, d.alert_id, d.channel, d.reminder, due.secret
)
SELECT d.id, d.attempts, d.channel, d.reminder, d.secret, current_database()::text AS database,
       a.kind, a.job_name, a.message, a.occurrences, a.opened_at, a.last_seen_at, a.resolved_at,
       l.id AS run_id, l.run_at, l.completed_at, l.status, l.trigger, l.attempt,
       l.error_sqlstate, l.error_message, l.error_detail
  FROM claimed d
  JOIN reconciler.alerts a ON a.id = d.alert_id
  LEFT JOIN reconciler.cron_execution_log l ON l.id = a.run_id
 ORDER BY d.id;

-- name: finish_sent
-- attempts is the fence: whoever claimed the row since then has another number.
UPDATE reconciler.alert_deliveries
   SET status = 'sent', sent_at = clock_timestamp(), claimed_until = NULL, last_error = NULL
 WHERE id = %(id)s AND attempts = %(attempts)s AND status = 'pending';

-- name: finish_retry
UPDATE reconciler.alert_deliveries
   SET due_at = clock_timestamp() + %(wait)s, claimed_until = NULL, last_error = %(error)s
 WHERE id = %(id)s AND attempts = %(attempts)s AND status = 'pending'
RETURNING due_at;

-- name: finish_failed
UPDATE reconciler.alert_deliveries
   SET status = 'failed', claimed_until = NULL, last_error = %(error)s
 WHERE id = %(id)s AND attempts = %(attempts)s AND status = 'pending';

-- name: find_channels
SELECT name, owner, coalesce(spec ->> 'deliver', 'process') AS deliver, spec #>> '{url,secret}' AS secret
  FROM reconciler.definitions WHERE kind = 'channel' ORDER BY name;

-- name: put_test
-- Claimed at once by whoever sends it, or left to the database where the database serves the channel.
WITH alert AS (
    INSERT INTO reconciler.alerts (job_name, kind, message, channels, resolved_at)
    VALUES (%(channel)s, 'test', %(message)s, ARRAY[%(channel)s::text], clock_timestamp())
    RETURNING id, opened_at
)
INSERT INTO reconciler.alert_deliveries (alert_id, channel, attempts, claimed_until)
SELECT id, %(channel)s, CASE WHEN %(claim)s THEN 1 ELSE 0 END, CASE WHEN %(claim)s THEN now() + %(lease)s END
  FROM alert
RETURNING id, (SELECT opened_at FROM alert), current_database()::text;

-- name: list_alerts
SELECT a.id, a.kind, a.job_name, a.run_id, a.message, a.details, a.occurrences, a.opened_at, a.last_seen_at,
       a.resolved_at,
       coalesce((SELECT jsonb_agg(jsonb_build_object(
                           'channel', d.channel, 'reminder', d.reminder, 'status', d.status,
                           'attempts', d.attempts, 'due_at', d.due_at, 'last_error', d.last_error,
                           'sent_at', d.sent_at) ORDER BY d.id)
                   FROM reconciler.alert_deliveries d WHERE d.alert_id = a.id), '[]') AS deliveries
  FROM reconciler.alerts a
 WHERE (%(all)s
        OR a.resolved_at IS NULL
        OR (a.kind <> 'test' AND a.opened_at > now() - interval '7 days'
            AND EXISTS (SELECT FROM reconciler.alert_deliveries d WHERE d.alert_id = a.id AND d.status <> 'sent')))
   AND (%(job_name)s::text IS NULL OR a.job_name = %(job_name)s)
   AND (%(before_id)s::bigint IS NULL
        OR a.opened_at <= %(before)s::timestamptz
           AND (a.opened_at, a.id) < (%(before)s::timestamptz, %(before_id)s::bigint))
 ORDER BY a.opened_at DESC, a.id DESC
 LIMIT %(limit)s;

-- name: open_drift_alerts
-- One open alert for each drifted job that wants to be told; those already open count one more sight.
SELECT reconciler.open_alert(p.name, 'drift', NULL, t.message, '{}', p.channels, p.remind)
  FROM unnest(%(names)b::text[], %(messages)b::text[]) AS t (name, message)
  JOIN reconciler.definitions d ON d.name = t.name AND d.owner = %(owner)s
  JOIN reconciler.policies p ON p.name = d.name
 WHERE 'drift' = ANY (p.alert_on)
 ORDER BY p.name;

-- name: resolve_drift_alerts
-- Also where nobody wants to be told any more, and where the job is gone. A recovery is told where both are wanted.
WITH resolved AS (
    UPDATE reconciler.alerts a SET resolved_at = clock_timestamp()
     WHERE a.kind = 'drift' AND a.resolved_at IS NULL
       AND (%(among)s::text[] IS NULL OR a.job_name = ANY (%(among)s::text[]))
       AND NOT EXISTS (SELECT FROM reconciler.definitions d
                        WHERE d.name = a.job_name AND d.owner <> %(owner)s)
       AND NOT EXISTS (SELECT FROM reconciler.policies p
                        WHERE p.name = a.job_name AND p.name = ANY (%(names)b::text[]) AND 'drift' = ANY (p.alert_on))
    RETURNING a.job_name, a.opened_at, a.occurrences
)
SELECT r.job_name,
       CASE WHEN p.name IS NOT NULL THEN
            reconciler.open_alert(p.name, 'recovered', NULL,
                format('%%s is as declared again (drift since %%s UTC)', p.name,
                       to_char(r.opened_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')),
                jsonb_build_object('kinds', 'drift', 'since', r.opened_at, 'occurrences', r.occurrences),
                p.channels, p.remind)::text END
  FROM resolved r
  LEFT JOIN reconciler.policies p
         ON p.name = r.job_name AND p.alert_on @> ARRAY['drift', 'recovered'] AND p.name <> ALL (%(names)b::text[])
 ORDER BY r.job_name;
