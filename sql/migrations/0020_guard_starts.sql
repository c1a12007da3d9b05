-- When a job is due, and the guard: an entry may come more often than its job is wanted, and does so inside of
-- blackouts. run_job asks, and each instant that is wanted is carried out at most once.

-- ------------------------------------------------------------------------------------------ windows

-- When runs may start again, on the clocks of the place: the first time in no window. Null where none is open, infinity
-- where that never comes. Each window begins on a day, at `from`, and may end on the next; without times it is the day.
CREATE FUNCTION reconciler.find_blackout_end(wall timestamp, blackout jsonb) RETURNS timestamp
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    reached timestamp := wall;
    later   timestamp;
    horizon timestamp;
BEGIN
    IF blackout = '[]' THEN
        RETURN NULL;
    END IF;
    LOOP
        SELECT max(CASE
                   -- Whole days in a row are one stretch.
                   WHEN w."from" IS NULL AND w."on" IS NULL THEN coalesce(w.last + 1, 'infinity'::timestamp)
                   ELSE d.day + s.till END)
          INTO later
          FROM jsonb_to_recordset(blackout) AS w ("from" text, "to" text, "on" jsonb, first date, last date)
         CROSS JOIN LATERAL (
               SELECT coalesce(w."from", '00:00')::interval AS since,
                      coalesce(w."to", '24:00')::interval + CASE
                          WHEN w."to"::interval <= w."from"::interval THEN interval '24:00' ELSE '0' END AS till) AS s
         CROSS JOIN LATERAL (VALUES (reached::date - 1), (reached::date)) AS d (day)
         WHERE reached >= d.day + s.since AND reached < d.day + s.till
           AND (d.day < w.first) IS NOT TRUE AND (d.day > w.last) IS NOT TRUE
           AND (w."on" ? to_char(d.day, 'dy')) IS NOT FALSE;
        EXIT WHEN (later > reached) IS NOT TRUE;
        reached := later;
        IF horizon IS NULL THEN
            -- Past all dates each week is like the next one: what lasts for so long does not end.
            SELECT greatest(max(w.first), max(w.last), wall::date) + 9 INTO horizon
              FROM jsonb_to_recordset(blackout) AS w (first date, last date);
        END IF;
        IF reached > horizon THEN
            RETURN 'infinity';
        END IF;
    END LOOP;
    RETURN nullif(reached, wall);
END
$$;
COMMENT ON FUNCTION reconciler.find_blackout_end(timestamp, jsonb) IS
    'The local time at which no window of a blackout is open any more; null where none is';

-- Null where a run may start at an instant. Else when that may be over: the first moment in the window, or the first
-- after a blackout; infinity for never.
CREATE FUNCTION reconciler.find_bar_end(timing reconciler.timings, at timestamptz, server_zone text) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    utc   timestamp := at AT TIME ZONE 'UTC';
    place text;
    ahead interval;
    later interval;
    over  timestamp;
    guess timestamp;
BEGIN
    IF at >= timing.end_at THEN
        RETURN 'infinity';
    ELSIF at < timing.start_at THEN
        RETURN timing.start_at;
    ELSIF (timing.blackout = '[]') IS NOT FALSE THEN
        RETURN NULL;
    END IF;
    place := reconciler.find_zone(coalesce(timing.zone, server_zone));
    ahead := reconciler.find_ahead(utc, place);
    over := reconciler.find_blackout_end(utc + ahead, timing.blackout);
    IF over IS NULL OR NOT isfinite(over) THEN
        RETURN over AT TIME ZONE 'UTC';
    END IF;
    -- The clocks may be set until then.
    guess := over - ahead;
    later := reconciler.find_ahead(guess, place);
    IF later > ahead AND reconciler.find_ahead(over - later, place) <> later THEN
        -- They skip the very time.
        RETURN reconciler.find_clock_change(utc, guess, ahead, place) AT TIME ZONE 'UTC';
    END IF;
    RETURN (over - later) AT TIME ZONE 'UTC';
END
$$;

-- ------------------------------------------------------------------------------------------ when a job is due

-- The first instant later than a given one, and not later than another, at which a job is due. A timing of nulls is
-- that of a job without one.
CREATE FUNCTION reconciler.find_due(
    timing reconciler.timings, schedule text, after timestamptz, server_zone text, until timestamptz DEFAULT 'infinity'
) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    latest  timestamptz := least(until, greatest(after, timing.start_at) + interval '8 years');
    at      timestamptz := after;
    over    timestamptz;
    -- What counts seconds from its last start begins at once.
    pace    interval := coalesce(make_interval(secs => CASE WHEN timing.schedule IS NULL AND timing.every IS NULL
        THEN substring(lower(schedule), '(\d+)\s*second')::integer END), interval '1 microsecond');
    -- Microseconds: of days PostgreSQL believes that they have 23 hours at times.
    step    bigint := extract(epoch FROM timing.every) * 1000000;
    base    bigint := extract(epoch FROM timing.anchor + timing.shift) * 1000000;
    since   bigint;
BEGIN
    IF timing.name IS NULL THEN
        RETURN reconciler.find_time(schedule, after, server_zone, 'both', 'skip', false);
    END IF;
    at := greatest(at, timing.start_at - pace);
    -- Many runs in a row may fall into blackouts; who has two thousand of them is not told when they end.
    FOR try IN 1..2000 LOOP
        IF timing.schedule IS NOT NULL THEN
            at := timing.shift + reconciler.find_time(
                timing.schedule, at - timing.shift,
                -- An interval that counts from the server's midnight.
                CASE WHEN timing.every IS NULL THEN coalesce(timing.zone, server_zone) ELSE server_zone END,
                timing.ambiguous, timing.nonexistent, true);
        ELSIF timing.every IS NOT NULL THEN
            since := extract(epoch FROM at) * 1000000 - base;
            since := since - since % step + CASE WHEN since >= 0 OR since % step = 0 THEN step ELSE 0 END;
            at := to_timestamp((base + since) / 1000000.0);
        ELSE
            at := reconciler.find_time(schedule, at, server_zone, 'both', 'skip', false);
        END IF;
        EXIT WHEN at > latest OR at >= timing.end_at OR at IS NULL;
        over := reconciler.find_bar_end(timing, at, server_zone);
        IF over IS NULL THEN
            RETURN at;
        END IF;
        EXIT WHEN over > latest;
        at := greatest(at, over - pace);
    END LOOP;
    RETURN NULL;
END
$$;

-- The same for a job by its name; schedule is its entry's.
CREATE FUNCTION reconciler.next_due(name text, schedule text, after timestamptz, server_zone text) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    timing reconciler.timings;
BEGIN
    SELECT * INTO timing FROM reconciler.timings t WHERE t.name = next_due.name;
    RETURN reconciler.find_due(timing, schedule, after, server_zone);
END
$$;
COMMENT ON FUNCTION reconciler.next_due(text, text, timestamptz, text) IS
    'The first instant later than a given one at which a job is due: its rule, window and blackouts, else its entry';

-- ------------------------------------------------------------------------------------------ the guard

-- The newest instant at which the job was wanted and that somebody took, or that was missed and is made up for.
ALTER TABLE reconciler.job_states ADD COLUMN fired_at timestamptz;

-- Whether the entry of a job comes at the right time; what is true is true once for each instant. pg_cron may start a
-- job late, when many wait for their turn: up to an hour it stands for the newest instant that was wanted.
CREATE FUNCTION reconciler.take_fire(job_name text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    now    timestamptz := clock_timestamp();
    timing reconciler.timings;
    role   text;
    zone   text;
    since  timestamptz := now - interval '1 hour';
    taken  timestamptz;
    due    timestamptz;
    fire   timestamptz;
BEGIN
    SELECT * INTO timing FROM reconciler.timings t WHERE t.name = take_fire.job_name;
    IF NOT FOUND THEN
        RETURN true;
    END IF;
    SELECT reconciler.find_role(d.username, d.spec), coalesce(p.zone, 'GMT') INTO role, zone
      FROM reconciler.definitions d LEFT JOIN reconciler.policies p ON p.name = d.name
     WHERE d.name = timing.name;
    IF NOT pg_has_role(session_user, role::name, 'MEMBER') THEN
        RAISE EXCEPTION 'the role % may not run the job %', session_user, job_name
            USING ERRCODE = 'insufficient_privilege', HINT = format('It runs as %s.', role);
    END IF;
    IF reconciler.find_bar_end(timing, now, zone) IS NOT NULL THEN
        RETURN false;
    ELSIF timing.schedule IS NULL AND timing.every IS NULL THEN
        RETURN true;
    END IF;
    SELECT s.fired_at INTO taken FROM reconciler.job_states s WHERE s.name = timing.name;
    -- A clock that was set back for longer had been wrong before.
    IF taken <= now + interval '1 hour' THEN
        since := greatest(since, taken);
    END IF;
    LOOP
        due := reconciler.find_due(timing, NULL, coalesce(fire, since), zone, until => now);
        EXIT WHEN due IS NULL;
        fire := due;
    END LOOP;
    IF fire IS NULL THEN
        RETURN false;
    END IF;
    INSERT INTO reconciler.job_states AS s (name, fired_at) VALUES (timing.name, fire)
        ON CONFLICT (name) DO UPDATE SET fired_at = excluded.fired_at
     WHERE s.fired_at IS NULL OR s.fired_at < excluded.fired_at OR s.fired_at > now + interval '1 hour';
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION reconciler.take_fire(text) IS
    'Whether an entry that just fired stands for a run that is wanted and that nobody began; asked by run_job';

CREATE OR REPLACE PROCEDURE reconciler.run_job(job_name text, trigger text DEFAULT NULL)
LANGUAGE plpgsql
AS $$
DECLARE
    run_id          bigint;
    outcome         text;
    error_sqlstate  text;
    error_message   text;
    is_wanted       boolean;
BEGIN
    -- Inside somebody's transaction this fails at once, before a lock is taken that a rollback would not release.
    COMMIT;
    -- pg_cron names its connections; its background workers have no name, but a type of their own.
    IF trigger IS NOT NULL THEN
        NULL;
    ELSIF pg_catalog.current_setting('application_name') = 'pg_cron' THEN
        trigger := 'schedule';
    ELSIF pg_catalog.current_setting('application_name') = '' AND EXISTS (
        SELECT FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) AS a
         WHERE a.backend_type = 'pg_cron')
    THEN
        trigger := 'schedule';
    END IF;
    IF trigger = 'schedule' THEN
        COMMIT;
        -- Two of a role with another isolation would get an error instead of an answer.
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        is_wanted := reconciler.take_fire(job_name);
        -- Taken before it begins: what is broken off now counts as missed, and never as not yet begun.
        COMMIT;
        IF NOT is_wanted THEN
            RETURN;
        END IF;
    END IF;
    CALL reconciler.carry_out(job_name, trigger, NULL, run_id, outcome, error_sqlstate, error_message);
    IF outcome NOT IN ('succeeded', 'running') THEN
        -- Again, so that pg_cron's own record of the run says failed too.
        RAISE EXCEPTION USING ERRCODE = coalesce(error_sqlstate, 'P0001'), MESSAGE = error_message,
            DETAIL = pg_catalog.format('Run %s of the job %s %s; reconciler.cron_execution_log has the details.',
                                       run_id, job_name, outcome);
    END IF;
END
$$;

-- As before, and what is barred waits until it may start, or is skipped where that never comes. What somebody starts by
-- hand is his to judge.
CREATE OR REPLACE FUNCTION reconciler.next_start(
    OUT start_id bigint, OUT is_awaited boolean, within interval DEFAULT '0'
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    now   timestamptz := clock_timestamp();
    next  record;
    over  timestamptz;
BEGIN
    LOOP
        -- What another lane has in its hands is left to it.
        SELECT s AS start, d AS definition INTO next
          FROM reconciler.starts s JOIN reconciler.definitions d ON d.name = s.job_name
         WHERE s.due_at <= now AND reconciler.find_role(d.username, d.spec) = session_user
               -- What was missed is made up for in its order, also by several lanes.
           AND NOT (s.trigger = 'catch_up' AND (
                   EXISTS (SELECT FROM reconciler.starts e WHERE e.job_name = s.job_name
                              AND e.trigger = 'catch_up' AND e.scheduled_at < s.scheduled_at)
                   OR EXISTS (SELECT FROM reconciler.cron_execution_log l
                               WHERE l.status = 'running' AND l.job_name = s.job_name)))
         ORDER BY s.due_at, s.id LIMIT 1 FOR UPDATE OF s SKIP LOCKED;
        EXIT WHEN NOT FOUND;
        over := NULL;
        IF (next.start).trigger <> 'manual' THEN
            SELECT reconciler.find_bar_end(t, now, coalesce(p.zone, 'GMT')) INTO over
              FROM reconciler.timings t LEFT JOIN reconciler.policies p ON p.name = t.name
             WHERE t.name = (next.start).job_name;
        END IF;
        IF over IS NULL THEN
            start_id := (next.start).id;
            EXIT;
        ELSIF EXISTS (SELECT FROM reconciler.timings t WHERE t.name = (next.start).job_name AND t.end_at <= now) THEN
            PERFORM reconciler.log_skip(next.definition, next.start, (next.start).trigger, format(
                'past its end at %s UTC', (SELECT to_char(t.end_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')
                                             FROM reconciler.timings t WHERE t.name = (next.start).job_name)));
            DELETE FROM reconciler.starts s WHERE s.id = (next.start).id;
        ELSE
            -- Together with the others of its job; looked at again in a while, since blackouts may be edited.
            UPDATE reconciler.starts s SET due_at = least(over, now + interval '5 minutes')
             WHERE s.id IN (SELECT o.id FROM reconciler.starts o
                             WHERE o.job_name = (next.start).job_name AND o.trigger <> 'manual' AND o.due_at <= now
                               FOR UPDATE SKIP LOCKED);
        END IF;
    END LOOP;
    is_awaited := start_id IS NULL AND within > '0' AND (
        EXISTS (SELECT FROM reconciler.starts s WHERE s.due_at <= now + within)
        OR EXISTS (SELECT FROM reconciler.cron_execution_log l WHERE l.status = 'running' AND NOT l.handed_over));
END
$$;

-- ------------------------------------------------------------------------------------------ what was missed

-- As before, by what is due and not by what the entry does.
CREATE OR REPLACE FUNCTION reconciler.find_missed(now timestamptz DEFAULT clock_timestamp()) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    due record;
    zone text;
    timing reconciler.timings;
    fires timestamptz[];
    fire timestamptz;
    grace interval;
    unseen timestamptz[];
    missed timestamptz[];
    seconds interval;
    newest timestamptz;
    is_last boolean;
BEGIN
    FOR due IN SELECT s.next_due_at, d.schedule, p AS policy, t AS timing
                 FROM reconciler.job_states s
                 JOIN reconciler.definitions d ON d.name = s.name
                 JOIN reconciler.policies p ON p.name = s.name
                 LEFT JOIN reconciler.timings t ON t.name = s.name
                WHERE s.next_due_at <= now AND d.schedule IS NOT NULL AND d.active
                      -- A worker made in SQL is no more when its entry was unscheduled.
                  AND (d.owner <> 'sql' OR d.jobid IN (SELECT e.jobid FROM reconciler.list_entries() AS e))
                ORDER BY s.next_due_at LIMIT 200 FOR UPDATE OF s SKIP LOCKED
    LOOP
        zone := (due.policy).zone;
        timing := due.timing;
        seconds := make_interval(
            secs => substring(lower(due.schedule) FROM '^\s*(\d+)\s*seconds?\s*$')::double precision);
        IF seconds IS NOT NULL THEN
            -- pg_cron counts from the last start.
            SELECT l.run_at INTO newest FROM reconciler.cron_execution_log l
             WHERE l.job_name = (due.policy).name AND l.trigger IN ('schedule', 'manual')
             ORDER BY l.run_at DESC LIMIT 1;
            fire := greatest(due.next_due_at, newest + seconds);
            fires := '{}';
            -- Nobody waits for it in a blackout, nor while one that began meanwhile goes on.
            fire := reconciler.find_due(timing, due.schedule, server_zone => zone,
                after => CASE WHEN reconciler.find_bar_end(timing, now, zone) IS NULL THEN fire - seconds ELSE now END);
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
                fire := reconciler.find_due(timing, due.schedule, fire, zone);
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
        UPDATE reconciler.job_states s
           SET next_due_at = fire,
               -- What is made up for is not to be begun by an entry that comes late as well.
               fired_at = CASE WHEN (due.policy).catch_up = 'none' OR timing.name IS NULL THEN s.fired_at
                               ELSE greatest(s.fired_at, missed[cardinality(missed)]) END
         WHERE s.name = (due.policy).name AND s.next_due_at IS DISTINCT FROM fire;
    END LOOP;
    RETURN NULL;
END
$$;
