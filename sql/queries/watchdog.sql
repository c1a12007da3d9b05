-- name: find_tick
-- A role that only delivers may not open alerts, and leaves this to others.
SELECT FROM reconciler.definitions
 WHERE name = 'reconciler-tick' AND owner = %(owner)s
   AND has_function_privilege('reconciler.open_alert(text, text, bigint, text, jsonb, text[], interval)', 'EXECUTE');

-- name: open_tick_alert
SELECT reconciler.open_alert('reconciler-tick', 'missed', NULL, %(message)s, '{}',
    ARRAY(SELECT d.name FROM reconciler.definitions d
           WHERE d.kind = 'channel' AND d.owner = %(owner)s AND coalesce(d.spec ->> 'deliver', 'process') = 'process'
           ORDER BY d.name),
    interval '1 hour');

-- name: resolve_tick_alert
SELECT reconciler.resolve_alerts('reconciler-tick', NULL, ARRAY['missed'], ARRAY['recovered'], a.channels)
  FROM reconciler.alerts a
 WHERE a.job_name = 'reconciler-tick' AND a.kind = 'missed' AND a.resolved_at IS NULL;
