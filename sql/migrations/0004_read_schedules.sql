-- When pg_cron fires a schedule, told inside the database; reconciler.core.schedules.next_runs has the same rules.
--
-- pg_cron turns each minute of UTC into its zone's time and compares that with the schedule. So a time that the
-- clocks skip does not fire on that day, and a time that comes twice fires twice. Nothing here tries minute after
-- minute: the values that a field allows are the bits of one number, and the next value is its next bit.
--
-- The helpers rely on the search_path that next_fire pins: they are not for others to call.

-- The lowest bit that is set at or above a position; null for none. log10 is exact enough for powers of two.
CREATE FUNCTION reconciler.find_bit(bits bigint, low integer) RETURNS integer
LANGUAGE sql IMMUTABLE
AS $$
    SELECT (log(nullif(bits & (-1::bigint << low) & -(bits & (-1::bigint << low)), 0)::double precision)
            / log(2::double precision))::integer
$$;

-- A number, or a name, the first of which is `low`; null for anything else and for numbers of three digits.
CREATE FUNCTION reconciler.read_value(word text, low integer, names text[]) RETURNS integer
LANGUAGE sql IMMUTABLE
AS $$
    SELECT CASE
        WHEN translate(word, '0123456789', '') <> '' THEN low - 1 + array_position(names, word)
        WHEN word <> '' AND length(ltrim(word, '0')) < 3 THEN word::integer END
$$;

-- The values that one field allows. Null where a pg_cron refuses the text, or reads it otherwise than people do.
CREATE FUNCTION reconciler.read_field(field text, low integer, high integer, names text[] DEFAULT '{}') RETURNS bigint
LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    bits   bigint := 0;
    part   text;
    pieces text[];
    ends   text[];
    first  integer;
    last   integer;
    step   integer;
BEGIN
    IF field = '*' THEN
        RETURN (2::bigint << high) - (1::bigint << low);
    END IF;
    FOREACH part IN ARRAY string_to_array(field, ',') LOOP
        -- Regular expressions would say this better, but take several times as long.
        pieces := string_to_array(part, '/');
        IF pieces[1] = '*' THEN
            first := low;
            last := high;
        ELSE
            ends := string_to_array(pieces[1], '-');
            first := reconciler.read_value(ends[1], low, names);
            last := reconciler.read_value(ends[cardinality(ends)], low, names);
            IF cardinality(ends) > 2 OR (cardinality(ends) = 1 AND cardinality(pieces) > 1) THEN
                RETURN NULL;
            END IF;
        END IF;
        step := CASE cardinality(pieces) WHEN 1 THEN 1 WHEN 2 THEN reconciler.read_value(pieces[2], 0, '{}') END;
        IF (low <= first AND first <= last AND last <= high AND step BETWEEN 1 AND high) IS NOT TRUE THEN
            RETURN NULL;
        ELSIF step = 1 THEN
            bits := bits | ((2::bigint << last) - (1::bigint << first));
        ELSE
            FOR value IN first..last BY step LOOP
                bits := bits | (1::bigint << value);
            END LOOP;
        END IF;
    END LOOP;
    RETURN nullif(bits, 0);
END
$$;

-- The five fields of a text that is not just five fields with single blanks between them. pg_cron skips empty lines
-- and comments, blanks before the first field, and whatever follows the last one. Null for another form.
CREATE FUNCTION reconciler.split_schedule(schedule text) RETURNS text[]
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    fields text[] := regexp_split_to_array(
        substring(schedule, '^(?:[ \t]*(?:#[^\n]*)?\n)*[ \t]*([^\n]*)'), '[ \t]+');
BEGIN
    IF left(fields[1], 1) <> '@' THEN
        RETURN CASE WHEN cardinality(fields) >= 5 THEN fields[1:5] END;
    END IF;
    -- From 1.6.0 on these two are taken and never fire; what the catalog calls 1.5 can be that one too.
    IF fields[1] IN ('@yearly', '@annually')
       AND EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_cron' AND extversion !~ '^1\.[0-5](-|$)') THEN
        RETURN NULL;
    END IF;
    RETURN CASE fields[1]
        WHEN '@hourly'   THEN '{0,*,*,*,*}'
        WHEN '@daily'    THEN '{0,0,*,*,*}'
        WHEN '@midnight' THEN '{0,0,*,*,*}'
        WHEN '@weekly'   THEN '{0,0,*,*,0}'
        WHEN '@monthly'  THEN '{0,0,1,*,*}'
        WHEN '@yearly'   THEN '{0,0,1,1,*}'
        WHEN '@annually' THEN '{0,0,1,1,*}'
    END;
END
$$;

-- A name for AT TIME ZONE: GMT where it knows no such zone. It would take the names of these zones for
-- abbreviations, which have no summer time; pg_cron never does.
CREATE FUNCTION reconciler.find_zone(zone text) RETURNS text
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    name  text := CASE upper(zone)
        WHEN 'CET' THEN 'Europe/Brussels'
        WHEN 'MET' THEN 'Europe/Brussels'
        WHEN 'EET' THEN 'Europe/Athens'
        WHEN 'WET' THEN 'Europe/Lisbon'
        WHEN 'EST' THEN 'America/Panama'
        WHEN 'MST' THEN 'America/Phoenix'
        WHEN 'HST' THEN 'Pacific/Honolulu'
        ELSE zone END;
    probe timestamp;
BEGIN
    probe := now() AT TIME ZONE name;
    RETURN name;
EXCEPTION
    WHEN invalid_parameter_value THEN
        RETURN 'GMT';
END
$$;

-- The first minute after `early` at which the clocks of a zone are no longer `ahead` of UTC by so much, as at `late`.
CREATE FUNCTION reconciler.find_clock_change(early timestamp, late timestamp, ahead interval, zone text)
RETURNS timestamp
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    middle timestamp;
BEGIN
    LOOP
        middle := date_trunc('minute', early + (late - early) / 2);
        IF middle <= early THEN
            RETURN late;
        ELSIF (middle AT TIME ZONE 'UTC' AT TIME ZONE zone) - middle = ahead THEN
            early := middle;
        ELSE
            late := middle;
        END IF;
    END LOOP;
END
$$;

-- The first time from `wall` on that the clock on a wall can show and the fields allow; null for none in nine years.
-- No days at all stand for the last day of the month. `either`: one of the two day fields is enough.
CREATE FUNCTION reconciler.find_wall_time(
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
            month_days := CASE days WHEN 0 THEN 1::bigint << month_end ELSE days END;
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

CREATE FUNCTION reconciler.next_fire(schedule text, after timestamptz, zone text) RETURNS timestamptz
LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp
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
    ahead    interval := '0';
    fire     timestamp;
    near     timestamp;
BEGIN
    IF octet_length(plain) > 999 OR NOT isfinite(after) THEN
        RETURN NULL;
    END IF;
    IF cardinality(fields) <> 5 OR strpos(plain, E'\t') > 0 OR strpos(plain, E'\n') > 0 THEN
        fields := reconciler.split_schedule(plain);
        IF fields IS NULL THEN
            -- Null for any other text, also for a start (@reboot), which no clock decides.
            RETURN after + make_interval(secs => nullif(substring(lower(plain),
                '^[ \t\n\v\f\r]*0*([1-5]?[0-9])[ \t\n\v\f\r]*second(?:s[ \t\n\v\f\r]*)?$')::integer, 0));
        END IF;
    END IF;
    minutes := reconciler.read_field(fields[1], 0, 59);
    hours := reconciler.read_field(fields[2], 0, 23);
    days := CASE fields[3] WHEN '$' THEN 0 ELSE reconciler.read_field(fields[3], 1, 31) END;
    months := reconciler.read_field(lower(fields[4]), 1, 12, '{jan,feb,mar,apr,may,jun,jul,aug,sep,oct,nov,dec}');
    weekdays := reconciler.read_field(lower(fields[5]), 0, 7, '{sun,mon,tue,wed,thu,fri,sat}');
    IF num_nulls(minutes, hours, days, months, weekdays) > 0 THEN
        RETURN NULL;
    END IF;
    weekdays := (weekdays | (weekdays >> 7)) & 127;

    LOOP
        IF place <> 'GMT' THEN
            ahead := (start AT TIME ZONE 'UTC' AT TIME ZONE place) - start;
        END IF;
        -- Right if the clocks stay as far ahead as they are.
        fire := reconciler.find_wall_time(start + ahead, minutes, hours, days, months, weekdays,
            either => left(fields[3], 1) <> '*' AND left(fields[5], 1) <> '*') - ahead;
        IF (fire <= after AT TIME ZONE 'UTC' + interval '8 years') IS NOT TRUE THEN
            RETURN NULL;
        ELSIF place = 'GMT' THEN
            EXIT;
        END IF;
        near := least(fire, start + interval '2 days');
        IF (near AT TIME ZONE 'UTC' AT TIME ZONE place) - near <> ahead THEN
            -- Nothing fires until they change.
            start := reconciler.find_clock_change(start, near, ahead, place);
        ELSIF near = fire THEN
            EXIT;
        ELSE
            -- However the clocks change meanwhile (by a day at the most), nothing fires until shortly before.
            start := fire - interval '2 days';
        END IF;
    END LOOP;
    RETURN fire AT TIME ZONE 'UTC';
END
$$;
COMMENT ON FUNCTION reconciler.next_fire(text, timestamptz, text) IS
    'The first instant later than a given one at which pg_cron fires a schedule in a zone; null for none in 8 years';
