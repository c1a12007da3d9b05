-- When a job is due as people mean it: in local time whatever the clocks do, inside its window, outside of its
-- blackouts. reconciler.core.times.occurrences has the same rules.
--
-- pg_cron's own reading (next_fire) takes a local time that comes twice both times, and a skipped one never. Here that
-- is a choice. ambiguous: the first, the last or both. nonexistent: next, once at the first moment after what the
-- clocks skip, or skip.
--
-- Rules are pg_cron's five fields, and two forms of our own for the day of week: 1#2 is the second Monday of the month,
-- 5L its last Friday.

-- ------------------------------------------------------------------------------------------ rules

-- As before, and with -1 for the last seven days of the month.
CREATE OR REPLACE FUNCTION reconciler.find_wall_time(
    wall timestamp, minutes bigint, hours bigint, days bigint, months bigint, weekdays bigint, either boolean
) RETURNS timestamp
LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    year       integer := date_part('year', wall);
    month      integer := date_part('month', wall);
    day        integer := date_part('day', wall);
    hour       integer := date_part('hour', wall);
    minute     integer := reconciler.find_bit(minutes, date_part('minute', wall)::integer);
    last_year  integer := year + 9;
    today      integer;
    start      date;
    month_end  integer;
    month_days bigint;
    week_days  bigint;
BEGIN
    -- On the first day only what is left of it counts.
    IF minute IS NULL OR (hours >> hour) & 1 = 0 THEN
        hour := reconciler.find_bit(hours, hour + 1);
        minute := reconciler.find_bit(minutes, 0);
    END IF;
    IF hour IS NULL THEN
        day := day + 1;
    ELSE
        today := day;
    END IF;
    LOOP
        IF (months >> month) & 1 = 1 THEN
            start := make_date(year, month, 1);
            month_end := (start + interval '1 month')::date - start;
            month_days := CASE days WHEN 0 THEN 1::bigint << month_end
                                    WHEN -1 THEN 127::bigint << (month_end - 6) ELSE days END;
            -- The week seven times over, beginning with the weekday of the first of the month.
            week_days := ((weekdays * 4432676798593) >> date_part('dow', start)::integer) << 1;
            day := reconciler.find_bit(
                CASE WHEN either THEN month_days | week_days ELSE month_days & week_days END
                & ((2::bigint << month_end) - 2), day);
            IF day = today THEN
                RETURN make_timestamp(year, month, day, hour, minute, 0);
            ELSIF day IS NOT NULL THEN
                RETURN make_timestamp(
                    year, month, day, reconciler.find_bit(hours, 0), reconciler.find_bit(minutes, 0), 0);
            END IF;
        END IF;
        day := 1;
        today := NULL;
        month := reconciler.find_bit(months, month + 1);
        IF month IS NULL THEN
            month := reconciler.find_bit(months, 1);
            year := year + 1;
            EXIT WHEN year > last_year;
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;

-- How far the clocks of a place are ahead of UTC.
CREATE FUNCTION reconciler.find_ahead(at timestamp, place text) RETURNS interval
LANGUAGE sql STABLE
AS $$ SELECT (at AT TIME ZONE 'UTC' AT TIME ZONE place) - at $$;

-- The first time that is wanted after an instant; null for none in 8 years and for what is no rule. own: our own forms
-- count too. Without a pinned search_path: it is called by those that pin it, and not for others to call.
CREATE FUNCTION reconciler.find_time(
    schedule text, after timestamptz, zone text, ambiguous text, nonexistent text, own boolean
) RETURNS timestamptz
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    -- Without a language: in Turkish the small letter of I is another one.
    plain    text COLLATE "C" := schedule;
    fields   text[] COLLATE "C" := string_to_array(plain, ' ');
    start    timestamp := date_trunc('minute', after AT TIME ZONE 'UTC') + interval '1 minute';
    place    text := CASE zone WHEN 'GMT' THEN zone ELSE reconciler.find_zone(zone) END;
    minutes  bigint;
    hours    bigint;
    days     bigint;
    months   bigint;
    weekdays bigint;
    either   boolean;
    ahead    interval := '0';
    other    interval;
    fire     timestamp;
    near     timestamp;
BEGIN
    IF octet_length(plain) > 999 OR NOT isfinite(after) THEN
        RETURN NULL;
    END IF;
    IF cardinality(fields) <> 5 OR strpos(plain, E'\t') > 0 OR strpos(plain, E'\n') > 0 THEN
        -- What pg_cron never runs is a rule all the same.
        fields := CASE WHEN own AND plain IN ('@yearly', '@annually') THEN '{0,0,1,1,*}'
                       ELSE reconciler.split_schedule(plain) END;
        IF fields IS NULL THEN
            -- Null for any other text, also for a start (@reboot), which no clock decides.
            RETURN after + make_interval(secs => nullif(substring(lower(plain),
                '^[ \t\n\v\f\r]*0*([1-5]?[0-9])[ \t\n\v\f\r]*second(?:s[ \t\n\v\f\r]*)?$')::integer, 0));
        END IF;
    END IF;
    minutes := reconciler.read_field(fields[1], 0, 59);
    hours := reconciler.read_field(fields[2], 0, 23);
    months := reconciler.read_field(lower(fields[4]), 1, 12, '{jan,feb,mar,apr,may,jun,jul,aug,sep,oct,nov,dec}');
    IF own AND fields[3] = '*' AND fields[5] ~ '^[0-6](#[1-5]|L)$' THEN
        days := CASE substr(fields[5], 2, 1) WHEN 'L' THEN -1
                ELSE 254::bigint << 7 * (substr(fields[5], 3)::integer - 1) END;
        weekdays := 1::bigint << left(fields[5], 1)::integer;
    ELSE
        days := CASE fields[3] WHEN '$' THEN 0 ELSE reconciler.read_field(fields[3], 1, 31) END;
        weekdays := reconciler.read_field(lower(fields[5]), 0, 7, '{sun,mon,tue,wed,thu,fri,sat}');
    END IF;
    IF num_nulls(minutes, hours, days, months, weekdays) > 0 THEN
        RETURN NULL;
    END IF;
    weekdays := (weekdays | (weekdays >> 7)) & 127;
    either := left(fields[3], 1) <> '*' AND left(fields[5], 1) <> '*';
    -- What comes in every hour keeps its pace.
    ambiguous := coalesce(ambiguous, CASE hours WHEN 16777215 THEN 'both' ELSE 'first' END);
    nonexistent := coalesce(nonexistent, CASE hours WHEN 16777215 THEN 'skip' ELSE 'next' END);

    IF place <> 'GMT' AND nonexistent = 'next' THEN
        -- The clocks may go forward in the first minute that counts.
        ahead := reconciler.find_ahead(start - interval '1 minute', place);
        other := reconciler.find_ahead(start, place);
        IF other > ahead AND reconciler.find_wall_time(
               start + ahead, minutes, hours, days, months, weekdays, either) < start + other THEN
            RETURN start AT TIME ZONE 'UTC';
        END IF;
    END IF;
    LOOP
        IF place <> 'GMT' THEN
            ahead := (start AT TIME ZONE 'UTC' AT TIME ZONE place) - start;
        END IF;
        -- Right if the clocks stay as far ahead as they are.
        fire := reconciler.find_wall_time(start + ahead, minutes, hours, days, months, weekdays, either) - ahead;
        IF (fire <= after AT TIME ZONE 'UTC' + interval '8 years') IS NOT TRUE THEN
            RETURN NULL;
        ELSIF place = 'GMT' THEN
            EXIT;
        END IF;
        near := least(fire, start + interval '2 days');
        IF (near AT TIME ZONE 'UTC' AT TIME ZONE place) - near <> ahead THEN
            -- Nothing fires until they change.
            start := reconciler.find_clock_change(start, near, ahead, place);
            -- What they skip comes at that moment.
            IF nonexistent = 'next' AND fire + ahead < start + reconciler.find_ahead(start, place) THEN
                fire := start;
                EXIT;
            END IF;
        ELSIF near <> fire THEN
            -- However the clocks change meanwhile (by a day at the most), nothing fires until shortly before.
            start := fire - interval '2 days';
        ELSIF ambiguous = 'both' THEN
            EXIT;
        ELSE
            -- The same time may come a second time, or be it. Clocks are not set back by more than three hours.
            near := CASE ambiguous WHEN 'first' THEN fire - interval '4 hours' ELSE fire + interval '4 hours' END;
            other := reconciler.find_ahead(near, place);
            EXIT WHEN other = ahead OR (other > ahead) <> (ambiguous = 'first')
                OR reconciler.find_ahead(fire + ahead - other, place) <> other;
            -- What is repeated, or will be, does not count.
            start := greatest(fire + interval '1 minute', CASE ambiguous
                WHEN 'first' THEN reconciler.find_clock_change(near, fire, other, place) + (other - ahead)
                ELSE reconciler.find_clock_change(fire, near, ahead, place) END);
        END IF;
    END LOOP;
    RETURN fire AT TIME ZONE 'UTC';
END
$$;

CREATE OR REPLACE FUNCTION reconciler.next_fire(schedule text, after timestamptz, zone text) RETURNS timestamptz
LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN reconciler.find_time(schedule, after, zone, 'both', 'skip', false);
END
$$;

-- ambiguous and nonexistent: null for what is usual, first and next; both and skip for what comes in every hour.
CREATE FUNCTION reconciler.next_time(
    schedule text, after timestamptz, zone text, ambiguous text DEFAULT NULL, nonexistent text DEFAULT NULL
) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE WHEN num_nulls(schedule, after, zone) = 0
                THEN reconciler.find_time(schedule, after, zone, ambiguous, nonexistent, true) END;
END
$$;
COMMENT ON FUNCTION reconciler.next_time(text, timestamptz, text, text, text) IS
    'The first instant later than a given one that a rule of local time means; null for none in 8 years';

-- ------------------------------------------------------------------------------------------ timings

CREATE TABLE reconciler.timings (
    name        text        PRIMARY KEY REFERENCES reconciler.definitions (name) ON UPDATE CASCADE ON DELETE CASCADE,
    -- Without a schedule and an interval the entry's own schedule decides, as pg_cron reads it.
    schedule    text,
    -- Counted from the anchor; with a schedule, that says the same by the server's clocks.
    every       interval,
    anchor      timestamptz,
    -- Of the schedule and of the blackouts; null for that of pg_cron (in policies).
    zone        text,
    ambiguous   text        CHECK (ambiguous IN ('first', 'last', 'both')),
    nonexistent text        CHECK (nonexistent IN ('next', 'skip')),
    shift       interval    NOT NULL DEFAULT '0',
    start_at    timestamptz,
    end_at      timestamptz,
    blackout    jsonb       NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(blackout) = 'array')
);
COMMENT ON TABLE reconciler.timings IS
    'When jobs are due whose entry alone cannot say it; apply copies it from the definition';

-- The part of a spread by which a job is put off: its name alone decides.
CREATE FUNCTION reconciler.find_shift(name text, spread interval) RETURNS interval
LANGUAGE sql STABLE
AS $$
    -- 64 bits without a sign, in two halves.
    SELECT CASE WHEN minutes > 0 THEN make_interval(mins => (
               ((hash >> 32 & 4294967295) % minutes * (4294967296 % minutes) + (hash & 4294967295)) % minutes)::integer)
           ELSE interval '0' END
      FROM (SELECT ('x' || left(encode(sha256(convert_to(name, 'UTF8')), 'hex'), 16))::bit(64)::bigint AS hash,
                   (extract(epoch FROM spread) / 60)::bigint AS minutes) AS of
$$;

CREATE VIEW reconciler.declared_timings AS
SELECT j.name,
       rule.schedule                                                                  AS schedule,
       CASE WHEN seconds >= 60 AND (NOT is_even OR rule.schedule IS NOT NULL)
            THEN make_interval(secs => seconds) END                                   AS every,
       CASE WHEN seconds >= 60 AND NOT is_even
            THEN coalesce((s ->> 'start_at')::timestamptz, 'epoch') END               AS anchor,
       s ->> 'timezone'                                                               AS zone,
       coalesce(s ->> 'ambiguous', CASE WHEN rule.as_ever THEN 'both' END)            AS ambiguous,
       coalesce(s ->> 'nonexistent', CASE WHEN rule.as_ever THEN 'skip' END)          AS nonexistent,
       coalesce(reconciler.find_shift(j.name, reconciler.read_duration(s ->> 'spread')), '0') AS shift,
       (s ->> 'start_at')::timestamptz                                                AS start_at,
       (s ->> 'end_at')::timestamptz                                                  AS end_at,
       coalesce(s -> 'blackout', '[]')                                                AS blackout
       -- Read once, not once for each column.
  FROM (SELECT d.name, d.spec::jsonb AS s FROM reconciler.definitions d WHERE d.kind = 'job' OFFSET 0) AS j
  LEFT JOIN reconciler.policies p ON p.name = j.name
 CROSS JOIN LATERAL (
       SELECT split_part(moment, ':', 2)::integer || ' ' || split_part(moment, ':', 1)::integer AS at,
              s #>> '{monthly,day}'                                                 AS day,
              extract(epoch FROM reconciler.read_duration(s ->> 'every'))::bigint   AS seconds
         FROM coalesce(s ->> 'daily', s #>> '{weekly,at}', s #>> '{monthly,at}') AS moment) AS t
       -- What fits into an hour or a day counts from their beginning.
 CROSS JOIN LATERAL (
       SELECT coalesce(NOT s ? 'start_at' AND seconds >= 60 AND seconds % 60 = 0
                       AND (3600 % seconds = 0 OR seconds % 3600 = 0 AND 86400 % seconds = 0), false) AS is_even) AS e
 CROSS JOIN LATERAL (
       SELECT CASE
                  WHEN s ? 'daily' THEN at || ' * * *'
                  WHEN s ? 'weekly' THEN at || ' * * ' || (
                      SELECT string_agg((strpos('sunmontuewedthufrisat', on_day) / 3)::text, ',' ORDER BY number)
                        FROM jsonb_array_elements_text(s #> '{weekly,on}') WITH ORDINALITY AS o (on_day, number))
                  WHEN day = 'last' THEN at || ' $ * *'
                  WHEN day LIKE '% %' THEN at || ' * * ' || strpos('sunmontuewedthufrisat', right(day, 3)) / 3
                      || coalesce('#' || array_position('{first,second,third,fourth,fifth}'::text[],
                                                        split_part(day, ' ', 1)), 'L')
                  WHEN s ? 'monthly' THEN at || ' ' || day || ' * *'
                  -- Its own entry comes when it is due, unless something here moves it.
                  WHEN s ? 'schedule' AND s ?| '{timezone,ambiguous,nonexistent,spread}'
                       -- No clock decides on these, or one that counts seconds.
                       AND s ->> 'schedule' !~* '^\s*(@re|\d+\s*second)' THEN s ->> 'schedule'
                  WHEN is_even AND s ? 'spread' THEN CASE
                      WHEN seconds < 3600 THEN format('*/%s * * * *', seconds / 60)
                      WHEN seconds < 86400 THEN format('0 */%s * * *', seconds / 3600)
                      ELSE '0 0 * * *' END
              END AS schedule,
              -- As pg_cron reads it, where nobody says otherwise.
              s ? 'spread' AND (is_even OR s ? 'schedule' AND NOT s ?| '{timezone,ambiguous,nonexistent}') AS as_ever
       ) AS rule
 WHERE s ?| '{timezone,start_at,end_at,blackout,spread,ambiguous,nonexistent,every,daily,weekly,monthly}'
   AND coalesce(s ->> 'mode', 'managed') = 'managed' AND NOT s ? 'once'
   AND (s ?| '{timezone,start_at,end_at,blackout,spread,ambiguous,nonexistent}'
        OR seconds >= 60 AND NOT is_even OR jsonb_typeof(s #> '{monthly,day}') = 'string'
        -- The usual choices make a difference where clocks are set.
        OR at IS NOT NULL AND coalesce(p.zone, 'GMT') <> ALL (
            '{GMT,UTC,Etc/UTC,Etc/GMT,Zulu,Etc/Zulu,UCT,Etc/UCT,Universal,Greenwich}'));

-- All that decides when a job is due, in few letters and the same in every session.
CREATE FUNCTION reconciler.digest_timing(timing reconciler.timings) RETURNS text
LANGUAGE sql STABLE SET TimeZone = 'UTC' SET IntervalStyle = 'postgres' SET DateStyle = 'ISO'
AS $$ SELECT md5((to_jsonb(timing) - 'name')::text) $$;

-- What an earlier release applied.
INSERT INTO reconciler.timings SELECT * FROM reconciler.declared_timings;
