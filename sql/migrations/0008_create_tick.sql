-- The tick: what has to be looked at from outside of the runs. Each step is a short transaction of its own, bounded,
-- and safe to repeat.

CREATE INDEX jobs_once_due_idx ON reconciler.jobs (run_at) WHERE once AND status = 'pending';
CREATE INDEX jobs_finished_idx ON reconciler.jobs (queue, completed_at) WHERE status IN ('completed', 'cancelled');

-- Cancel what runs past its deadline or was told to stop, and disconnect what does not listen.
CREATE FUNCTION reconciler.stop_overdue() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    run reconciler.cron_execution_log;
    problem text;
BEGIN
    FOR run IN SELECT * FROM reconciler.cron_execution_log l
                WHERE l.status = 'running' AND NOT l.handed_over
                  AND (l.deadline_at <= clock_timestamp() OR l.stop_reason IS NOT NULL)
                ORDER BY l.id LIMIT 100 FOR UPDATE SKIP LOCKED
    LOOP
        BEGIN
            PERFORM reconciler.stop_run(run, 'timed_out', 'tick');
        EXCEPTION WHEN OTHERS THEN
            problem := coalesce(problem, SQLERRM);
        END;
    END LOOP;
    RETURN problem;
END
$$;

-- End the runs whose backend no longer holds their lock: it was killed, or the server was.
CREATE FUNCTION reconciler.mark_lost() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    run reconciler.cron_execution_log;
BEGIN
    FOR run IN SELECT * FROM reconciler.cron_execution_log l
                WHERE l.status = 'running' AND l.request_id IS NULL AND NOT l.handed_over
                  AND NOT EXISTS (
                      SELECT FROM pg_locks k
                       WHERE k.locktype = 'advisory' AND k.granted AND k.objsubid = 1 AND k.pid = l.backend_pid
                         AND k.classid::bigint = (l.lock_key >> 32) & 4294967295
                         AND k.objid::bigint = l.lock_key & 4294967295
                         AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
                ORDER BY l.id LIMIT 500 FOR UPDATE SKIP LOCKED
    LOOP
        PERFORM reconciler.end_run(run, coalesce(run.stop_reason, 'lost'), error_message =>
            format('backend %s went away without ending the run', run.backend_pid));
    END LOOP;
    RETURN NULL;
END
$$;

-- Hand one-time SQL and HTTP work that is due to the runner; what has a handler waits for a worker.
CREATE FUNCTION reconciler.start_once() RETURNS text
LANGUAGE sql
AS $$
    INSERT INTO reconciler.starts (job_name, trigger, due_at, scheduled_at, queued_job_id)
    SELECT j.job_name, 'schedule', j.run_at, j.run_at, j.id
      FROM reconciler.jobs j JOIN reconciler.definitions d ON d.name = j.job_name
     WHERE j.once AND j.status = 'pending' AND j.run_at <= clock_timestamp() AND j.active AND j.handler IS NULL
       AND NOT EXISTS (SELECT FROM reconciler.starts s WHERE s.queued_job_id = j.id)
     ORDER BY j.run_at LIMIT 500
        ON CONFLICT (job_name, trigger, coalesce(scheduled_at, '-infinity')) DO NOTHING;
    SELECT NULL
$$;

-- Which of the fires of one job, in order, left nothing in the log. A fire counts as seen when a run began in its
-- window (up to the next fire), or one was still going on, in whose shadow pg_cron does not start another. A run
-- that was handed over to a worker has no such shadow.
CREATE FUNCTION reconciler.find_unseen(job_name text, fires timestamptz[], until timestamptz) RETURNS timestamptz[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(
        SELECT f.fire
          FROM (SELECT fire, lead(fire, 1, until) OVER (ORDER BY fire) AS next FROM unnest(fires) AS fire) AS f
         WHERE NOT EXISTS (
               SELECT FROM reconciler.cron_execution_log l
                WHERE l.job_name = find_unseen.job_name AND l.trigger IN ('schedule', 'manual')
                  AND l.run_at >= f.fire - interval '1 second' AND l.run_at < f.next - interval '1 second')
           AND NOT EXISTS (
               -- Some, since with concurrency allow the last one is not always the one that went on.
               SELECT FROM (SELECT status, completed_at FROM reconciler.cron_execution_log l
                             WHERE l.job_name = find_unseen.job_name AND l.run_at < f.fire AND l.status <> 'skipped'
                               AND NOT l.handed_over
                             ORDER BY l.run_at DESC LIMIT 5) AS before
                WHERE before.status = 'running' OR before.completed_at > f.fire)
         ORDER BY f.fire);
END
$$;

-- is_last: nothing else of what was missed is still to be looked at.
CREATE FUNCTION reconciler.note_missed(
    policy reconciler.policies, missed timestamptz[], is_last boolean
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    newest timestamptz := missed[cardinality(missed)];
BEGIN
    UPDATE reconciler.job_states s SET missed_runs = s.missed_runs + cardinality(missed) WHERE s.name = policy.name;
    IF policy.catch_up = 'one' THEN
        DELETE FROM reconciler.starts s WHERE s.job_name = policy.name AND s.trigger = 'catch_up';
    END IF;
    IF policy.catch_up <> 'none' THEN
        INSERT INTO reconciler.starts (job_name, trigger, due_at, scheduled_at)
        SELECT policy.name, 'catch_up',
               -- The one start waits until all is counted.
               CASE WHEN policy.catch_up = 'all' OR is_last THEN clock_timestamp() ELSE 'infinity' END, fire
          FROM unnest(missed) AS fire
         WHERE policy.catch_up = 'all' OR fire = newest
         ORDER BY fire
            ON CONFLICT (job_name, trigger, coalesce(scheduled_at, '-infinity')) DO NOTHING;
    END IF;
    IF 'missed' = ANY (policy.alert_on) THEN
        PERFORM reconciler.open_alert(policy.name, 'missed', NULL,
            CASE cardinality(missed)
                WHEN 1 THEN format('%s did not run at %s UTC', policy.name,
                                   to_char(newest AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'))
                ELSE format('%s did not run %s times, from %s to %s UTC', policy.name, cardinality(missed),
                            to_char(missed[1] AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
                            to_char(newest AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')) END,
            jsonb_build_object('missed', cardinality(missed), 'first', missed[1], 'last', newest,
                               'catch_up', policy.catch_up),
            policy.channels, policy.remind);
    END IF;
END
$$;

-- Compare the schedules that were due with the log. What is not there yet gets some minutes of grace, since pg_cron
-- starts late when it is busy; then it was missed. Only jobs whose next fire has passed are looked at.
CREATE FUNCTION reconciler.find_missed(now timestamptz DEFAULT clock_timestamp()) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    due record;
    fires timestamptz[];
    fire timestamptz;
    grace interval;
    unseen timestamptz[];
    missed timestamptz[];
    seconds interval;
    newest timestamptz;
    is_last boolean;
BEGIN
    FOR due IN SELECT s.next_due_at, d.schedule, p AS policy
                 FROM reconciler.job_states s
                 JOIN reconciler.definitions d ON d.name = s.name
                 JOIN reconciler.policies p ON p.name = s.name
                WHERE s.next_due_at <= now AND d.schedule IS NOT NULL AND d.active
                      -- A worker made in SQL is no more when its entry was unscheduled.
                  AND (d.owner <> 'sql' OR d.jobid IN (SELECT e.jobid FROM reconciler.list_entries() AS e))
                ORDER BY s.next_due_at LIMIT 200 FOR UPDATE OF s SKIP LOCKED
    LOOP
        seconds := make_interval(secs => substring(lower(due.schedule) FROM '^\s*(\d+)\s*seconds?\s*$')::double precision);
        IF seconds IS NOT NULL THEN
            -- pg_cron counts from the last start.
            SELECT l.run_at INTO newest FROM reconciler.cron_execution_log l
             WHERE l.job_name = (due.policy).name AND l.trigger IN ('schedule', 'manual')
             ORDER BY l.run_at DESC LIMIT 1;
            fire := greatest(due.next_due_at, newest + seconds);
            fires := '{}';
            IF fire + greatest(interval '2 minutes', 3 * seconds) <= now THEN
                fires := reconciler.find_unseen((due.policy).name, ARRAY[fire], now);
                fire := now + seconds;
            END IF;
            missed := fires;
            grace := interval '2 minutes';
        ELSE
            fires := '{}';
            fire := due.next_due_at;
            WHILE fire <= now AND cardinality(fires) < 200 LOOP
                fires := fires || fire;
                fire := reconciler.next_fire(due.schedule, fire, (due.policy).zone);
            END LOOP;
            -- A tenth of the time to the next fire, from 2 to 10 minutes.
            grace := greatest(interval '2 minutes',
                              least((fire - fires[cardinality(fires)]) / 10, interval '10 minutes'));
            unseen := reconciler.find_unseen((due.policy).name, fires, least(fire, now + interval '1 second'));
            IF unseen <> '{}' AND cardinality(fires) <= 10 AND cardinality(fires) <= (
                SELECT count(*) FROM reconciler.cron_execution_log l
                 WHERE l.job_name = (due.policy).name AND l.trigger IN ('schedule', 'manual')
                   AND l.run_at >= fires[1] - interval '1 second')
            THEN
                unseen := '{}';  -- held up for a while, pg_cron has started them all since, one after the other
            END IF;
            SELECT coalesce(array_agg(f ORDER BY f) FILTER (WHERE f + grace <= now), '{}'),
                   coalesce(min(f) FILTER (WHERE f + grace > now), fire)
              INTO missed, fire
              FROM unnest(unseen) AS f;
        END IF;
        is_last := fire IS NULL OR fire > now - grace;
        IF missed <> '{}' THEN
            PERFORM reconciler.note_missed(due.policy, missed, is_last);
        ELSIF is_last AND (due.policy).catch_up = 'one' THEN
            UPDATE reconciler.starts s SET due_at = clock_timestamp()
             WHERE s.job_name = (due.policy).name AND s.trigger = 'catch_up' AND s.due_at = 'infinity';
        END IF;
        UPDATE reconciler.job_states s SET next_due_at = fire
         WHERE s.name = (due.policy).name AND s.next_due_at IS DISTINCT FROM fire;
    END LOOP;
    RETURN NULL;
END
$$;

-- Tell of runs that take too long while they do.
CREATE FUNCTION reconciler.find_slow() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    running record;
    slow interval;
BEGIN
    FOR running IN SELECT l.id, l.run_at, p AS policy
                     FROM reconciler.cron_execution_log l
                     JOIN reconciler.definitions d ON d.id = l.definition_id
                     JOIN reconciler.policies p ON p.name = d.name
                    WHERE l.status = 'running' AND 'slow' = ANY (p.alert_on)
                      AND NOT EXISTS (SELECT FROM reconciler.alerts a
                                       WHERE a.job_name = p.name AND a.kind = 'slow' AND a.resolved_at IS NULL
                                         -- Of two at once the older one was told of before.
                                         AND a.run_id >= l.id)
                    ORDER BY l.id
    LOOP
        slow := reconciler.find_slow_limit(running.policy, running.id);
        IF clock_timestamp() - running.run_at > slow THEN
            PERFORM reconciler.open_alert((running.policy).name, 'slow', running.id,
                format('%s has been running for %s, more than %s', (running.policy).name,
                       date_trunc('second', clock_timestamp() - running.run_at), slow),
                jsonb_build_object('limit', slow, 'run_at', running.run_at),
                (running.policy).channels, (running.policy).remind);
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;

-- Remind of what is still open.
CREATE FUNCTION reconciler.send_reminders() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- A job that is not declared any more, or has another name, will not resolve it.
    UPDATE reconciler.alerts a SET resolved_at = clock_timestamp()
     WHERE a.resolved_at IS NULL AND a.kind IN ('failed', 'missed', 'slow', 'lost')
       AND NOT EXISTS (SELECT FROM reconciler.definitions d WHERE d.name = a.job_name);
    WITH reminded AS (
        UPDATE reconciler.alerts a SET notified_at = clock_timestamp()
         WHERE a.resolved_at IS NULL AND a.channels <> '{}' AND a.notified_at + a.remind <= clock_timestamp()
        RETURNING a.id, a.channels
    )
    INSERT INTO reconciler.alert_deliveries (alert_id, channel, reminder)
    SELECT r.id, channel, 1 + (SELECT coalesce(max(o.reminder), 0) FROM reconciler.alert_deliveries o
                                WHERE o.alert_id = r.id AND o.channel = c.channel)
      FROM reminded r CROSS JOIN unnest(r.channels) AS c (channel)
        ON CONFLICT DO NOTHING;
    IF FOUND THEN
        PERFORM pg_notify('reconciler_alerts', '');
    END IF;
    RETURN NULL;
END
$$;

-- A start may have begun to wait in the very moment in which the last job that it waits for succeeded.
CREATE FUNCTION reconciler.wake_dependents() RETURNS text
LANGUAGE sql
AS $$
    UPDATE reconciler.starts s SET due_at = clock_timestamp()
      FROM reconciler.policies p
     WHERE s.trigger = 'dependency' AND s.due_at = 'infinity' AND p.name = s.job_name
       AND reconciler.find_unmet(p.name, p.after) = '{}';
    SELECT NULL
$$;

CREATE FUNCTION reconciler.end_pauses() RETURNS text
LANGUAGE sql
AS $$
    DELETE FROM reconciler.pauses WHERE until <= clock_timestamp();
    SELECT NULL
$$;

-- One step with the owner's rights, for whichever role the tick runs as. Returns what went wrong, or null.
CREATE FUNCTION reconciler.tick_step(step text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Who looks holds locks on what runs, as long as he likes.
    IF NOT reconciler.is_runtime() THEN
        RAISE EXCEPTION 'the role % may not look after runs', session_user USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN CASE step
        WHEN 'stop_overdue'    THEN reconciler.stop_overdue()
        WHEN 'mark_lost'       THEN reconciler.mark_lost()
        WHEN 'collect_answers' THEN reconciler.collect_answers()
        WHEN 'rescue_jobs'     THEN reconciler.rescue_lost_jobs()
        WHEN 'settle_runs'     THEN reconciler.settle_runs()
        WHEN 'start_once'      THEN reconciler.start_once()
        WHEN 'find_missed'     THEN reconciler.find_missed()
        WHEN 'wake_dependents' THEN reconciler.wake_dependents()
        WHEN 'find_slow'       THEN reconciler.find_slow()
        WHEN 'send_reminders'  THEN reconciler.send_reminders()
        WHEN 'end_pauses'      THEN reconciler.end_pauses()
        WHEN 'forget_workers'  THEN reconciler.forget_workers()
        ELSE 'no such step'
    END;
END
$$;

-- Whether something goes on that the next round may have to stop.
CREATE FUNCTION reconciler.is_watching(until timestamptz) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM reconciler.cron_execution_log
                    WHERE status = 'running' AND NOT handed_over
                      AND (deadline_at <= until OR stop_reason IS NOT NULL))
$$;

-- One entry calls it all the time. A second one at the same time finds the lock taken and does nothing. stay: how
-- long one call goes on looking, each second, while there are runs whose deadline comes before it ends. More than a
-- minute is for a pg_cron whose launcher waits for the longest job (1.4 with background workers): then no other call
-- comes before that job has ended.
CREATE PROCEDURE reconciler.tick(
    keep_runs interval DEFAULT '30 days', keep_details interval DEFAULT '7 days', stay interval DEFAULT '0'
)
LANGUAGE plpgsql
AS $$
DECLARE
    began    timestamptz := pg_catalog.clock_timestamp();
    step     text;
    problem  text;
    problems text := '';
    deleted  bigint;
BEGIN
    COMMIT;
    IF NOT pg_catalog.pg_try_advisory_lock(7411530208936422) THEN
        RETURN;
    END IF;
    LOOP
        FOREACH step IN ARRAY ARRAY['stop_overdue', 'mark_lost', 'collect_answers', 'rescue_jobs', 'settle_runs',
                                    'start_once', 'find_missed', 'wake_dependents', 'find_slow', 'send_reminders',
                                    'end_pauses', 'forget_workers', 'clear_history', 'clear_details'] LOOP
            -- Up to 50,000 rows of each kind in a round: more than a busy queue finishes until the next one.
            FOR round IN 1..50 LOOP
                problem := NULL;
                deleted := 0;
                -- A step that fails must not keep the others from their work.
                BEGIN
                    IF step = 'clear_history' THEN
                        deleted := reconciler.clear_history(keep_runs, 1000);
                    ELSIF step = 'clear_details' THEN
                        deleted := reconciler.clear_details(keep_details, 1000);
                    ELSE
                        problem := reconciler.tick_step(step);
                    END IF;
                EXCEPTION WHEN assert_failure OR OTHERS THEN
                    problem := SQLERRM;
                END;
                COMMIT;
                EXIT WHEN deleted = 0 OR problem IS NOT NULL;
            END LOOP;
            IF problem IS NOT NULL AND pg_catalog.strpos(problems, problem) = 0 THEN
                problems := problems || step || ': ' || problem || '; ';
            END IF;
        END LOOP;
        EXIT WHEN pg_catalog.clock_timestamp() >= began + stay;
        -- What fires together with the tick may not have begun yet.
        EXIT WHEN NOT reconciler.is_watching(
                CASE WHEN stay <= interval '1 minute' THEN began + stay ELSE 'infinity' END)
            AND (stay < interval '30 seconds' OR pg_catalog.clock_timestamp() > began + interval '3 seconds');
        COMMIT;
        PERFORM pg_catalog.pg_sleep(1);
        COMMIT;
    END LOOP;
    PERFORM pg_catalog.pg_advisory_unlock(7411530208936422);
    IF problems <> '' THEN
        RAISE EXCEPTION 'the tick could not do all of its work: %', pg_catalog.rtrim(problems, '; ');
    END IF;
END
$$;

REVOKE EXECUTE ON FUNCTION
    reconciler.stop_overdue, reconciler.mark_lost, reconciler.start_once, reconciler.find_unseen,
    reconciler.note_missed, reconciler.find_missed, reconciler.find_slow, reconciler.send_reminders,
    reconciler.wake_dependents, reconciler.end_pauses
FROM PUBLIC;
