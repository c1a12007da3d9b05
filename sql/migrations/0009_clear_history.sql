-- Retention, in small batches: each looks at the oldest rows alone, holds row locks for milliseconds, and is a
-- transaction of its own when the tick or clear_all_history calls it.

CREATE INDEX alerts_resolved_idx ON reconciler.alerts (resolved_at);

-- Delete runs, alerts and finished queued jobs that are old enough. Returns how many rows went.
CREATE FUNCTION reconciler.clear_history(keep interval, batch integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    before timestamptz := clock_timestamp() - greatest(keep, interval '1 hour');
    deleted bigint;
    total bigint := 0;
BEGIN
    IF NOT reconciler.is_runtime() THEN
        RAISE EXCEPTION 'the role % may not delete history', session_user
            USING ERRCODE = 'insufficient_privilege', HINT = format('%s may, and the tick.', current_user);
    END IF;
    -- Not more than a batch is read: where the oldest are young enough there is nothing to do.
    DELETE FROM reconciler.cron_execution_log
     WHERE id = ANY (ARRAY(
           SELECT oldest.id
             -- Those that still wait for a worker are passed over: there may be more of them than a batch.
             FROM (SELECT l.id, l.run_at FROM reconciler.cron_execution_log l
                    WHERE l.status <> 'running' ORDER BY l.id LIMIT clear_history.batch) AS oldest
            WHERE oldest.run_at < before));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    total := total + deleted;
    -- Open ones stay, however old.
    DELETE FROM reconciler.alerts
     WHERE id = ANY (ARRAY(
           SELECT a.id FROM reconciler.alerts a
            WHERE a.resolved_at < before ORDER BY a.resolved_at LIMIT clear_history.batch));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    total := total + deleted;
    DELETE FROM reconciler.jobs_finished WHERE id = ANY (reconciler.find_old_jobs(clear_history.batch));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN total + deleted;
END
$$;

-- Finished queued jobs that no queue keeps any longer, of declared queues and others; dead ones stay for longer, since
-- somebody may want to try them again. From queue to queue along the indexes: nothing else is read.
CREATE FUNCTION reconciler.find_old_jobs(batch integer) RETURNS bigint[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    now timestamptz := clock_timestamp();
    name text := '';
    settings reconciler.queues;
    found bigint[] := '{}';
BEGIN
    WHILE cardinality(found) < batch LOOP
        name := least(
            (SELECT j.queue FROM reconciler.jobs_finished j
              WHERE j.status IN ('completed', 'cancelled') AND j.queue > name ORDER BY j.queue LIMIT 1),
            (SELECT j.queue FROM reconciler.jobs_finished j
              WHERE j.status = 'failed' AND j.queue > name ORDER BY j.queue LIMIT 1));
        EXIT WHEN name IS NULL;
        settings := reconciler.find_queue(name);
        found := found
            || ARRAY(SELECT j.id FROM reconciler.jobs_finished j
                      WHERE j.queue = name AND j.status IN ('completed', 'cancelled')
                        AND j.completed_at < now - settings.retention
                      ORDER BY j.completed_at LIMIT batch - cardinality(found));
        found := found
            || ARRAY(SELECT j.id FROM reconciler.jobs_finished j
                      WHERE j.queue = name AND j.status = 'failed' AND j.completed_at < now - settings.keep_failed
                      ORDER BY j.completed_at LIMIT batch - cardinality(found));
    END LOOP;
    RETURN found;
END
$$;
REVOKE EXECUTE ON FUNCTION reconciler.find_old_jobs FROM PUBLIC;

-- The same for pg_cron's own table, with the caller's rights: row-level security shows each role its own rows, a
-- superuser all. A row can be without times: pg_cron was stopped before it wrote them, or could not connect. It is
-- older than the rows after it. The only index is that on runid.
CREATE FUNCTION reconciler.clear_details(keep interval, batch integer) RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    before timestamptz := pg_catalog.clock_timestamp() - greatest(keep, interval '1 hour');
    deleted bigint;
BEGIN
    IF NOT pg_catalog.has_schema_privilege('cron', 'USAGE')
       OR NOT pg_catalog.has_table_privilege('cron.job_run_details', 'DELETE') THEN
        RETURN 0;
    END IF;
    DELETE FROM cron.job_run_details
     WHERE runid = ANY (ARRAY(
           WITH oldest AS MATERIALIZED (
               SELECT d.runid, d.status, d.job_pid, coalesce(d.end_time, d.start_time) AS at
                 FROM cron.job_run_details d ORDER BY d.runid LIMIT batch
           ), proof AS MATERIALIZED (
               SELECT coalesce(
                   pg_catalog.max(o.runid) FILTER (WHERE o.at < before),
                   -- Not one of them has a time: the next one that has tells.
                   CASE WHEN pg_catalog.count(o.at) = 0 THEN (
                       SELECT CASE WHEN n.at < before THEN n.runid END
                         FROM (SELECT d.runid, coalesce(d.end_time, d.start_time) AS at FROM cron.job_run_details d
                                WHERE d.runid > (SELECT pg_catalog.max(runid) FROM oldest)
                                ORDER BY d.runid) AS n
                        WHERE n.at IS NOT NULL LIMIT 1) END) AS runid
                 FROM oldest o
           )
           SELECT o.runid FROM oldest o, proof
            WHERE (o.at < before OR (o.at IS NULL AND o.runid < proof.runid))
              AND NOT (o.status NOT IN ('succeeded', 'failed')
                       AND EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.pid = o.job_pid))));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$;

-- All of it at once, for who has a great deal to clear: as many batches as it takes.
CREATE PROCEDURE reconciler.clear_all_history(
    keep_runs interval DEFAULT '30 days', keep_details interval DEFAULT '7 days', batch integer DEFAULT 1000
)
LANGUAGE plpgsql
AS $$
DECLARE
    deleted bigint;
BEGIN
    COMMIT;
    LOOP
        deleted := reconciler.clear_history(keep_runs, batch);
        COMMIT;
        deleted := deleted + reconciler.clear_details(keep_details, batch);
        COMMIT;
        EXIT WHEN deleted = 0;
    END LOOP;
END
$$;
