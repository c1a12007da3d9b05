-- The sample schema of this repository's own jobs.d/: a delivery service, its mentors and its events.
--
-- Load it into any database from PostgreSQL 13 on, as any role that may create objects in the schema public.
-- It can be loaded again at any time: what is there stays as it is. The rows are made relative to the time of
-- the first load, so that jobs find something to do and something to leave alone.

-- The orders of the delivery service ----------------------------------------------------------------------

DO $type$
BEGIN
    IF to_regtype('public.order_status') IS NULL THEN  -- types know no IF NOT EXISTS
        CREATE TYPE public.order_status AS ENUM
            ('pending', 'confirmed', 'preparing', 'on_the_way', 'delivered', 'cancelled', 'refunded');
    END IF;
END
$type$;

CREATE TABLE IF NOT EXISTS public.system_settings (
    setting_key text PRIMARY KEY,
    setting_value text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS public.restaurants (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    rating numeric(3, 2) NOT NULL DEFAULT 0,  -- 0: nobody has reviewed it
    is_active boolean NOT NULL DEFAULT true,
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS public.menus (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    title text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS public.restaurant_menus (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    restaurant_id bigint NOT NULL REFERENCES public.restaurants,
    menu_id bigint REFERENCES public.menus,  -- NULL: a place on the page whose menu is still to come
    UNIQUE (restaurant_id, menu_id)
);
CREATE INDEX IF NOT EXISTS restaurant_menus_menu_id_idx ON public.restaurant_menus (menu_id);

CREATE TABLE IF NOT EXISTS public.reviews (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    restaurant_id bigint NOT NULL REFERENCES public.restaurants,
    rating smallint NOT NULL CHECK (rating BETWEEN 1 AND 5),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS reviews_restaurant_id_idx ON public.reviews (restaurant_id) INCLUDE (rating);
CREATE INDEX IF NOT EXISTS reviews_created_at_idx ON public.reviews (created_at);

CREATE TABLE IF NOT EXISTS public.drivers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    is_available boolean NOT NULL DEFAULT false,
    updated_at timestamptz NOT NULL DEFAULT now()  -- when the driver's telephone last sent a location
);
CREATE INDEX IF NOT EXISTS drivers_available_idx ON public.drivers (updated_at) WHERE is_available;

CREATE TABLE IF NOT EXISTS public.orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    restaurant_id bigint NOT NULL REFERENCES public.restaurants,
    driver_id bigint REFERENCES public.drivers,
    status public.order_status NOT NULL DEFAULT 'pending',
    total_amount numeric(10, 2) NOT NULL CHECK (total_amount >= 0),
    placed_at timestamptz,  -- NULL: still a basket
    delivered_at timestamptz,
    cancelled_at timestamptz,
    cancellation_reason text,
    is_active boolean NOT NULL DEFAULT true,  -- false: archived
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS orders_pending_idx ON public.orders (placed_at)
    WHERE status = 'pending' AND is_active;
CREATE INDEX IF NOT EXISTS orders_placed_at_idx ON public.orders (placed_at);
CREATE INDEX IF NOT EXISTS orders_closed_idx
    ON public.orders (coalesce(delivered_at, cancelled_at, updated_at))
    WHERE is_active AND status IN ('delivered', 'cancelled', 'refunded');

CREATE TABLE IF NOT EXISTS public.distance_requests (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id bigint REFERENCES public.orders,
    metres integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS distance_requests_created_at_idx ON public.distance_requests (created_at);

CREATE TABLE IF NOT EXISTS public.user_sessions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id bigint NOT NULL,
    expires_at timestamptz  -- NULL: a service's session, which never expires
);
CREATE INDEX IF NOT EXISTS user_sessions_expires_at_idx ON public.user_sessions (expires_at);

CREATE TABLE IF NOT EXISTS public.daily_order_stats (
    date date PRIMARY KEY,
    total_orders integer NOT NULL,
    cancelled_orders integer NOT NULL,
    total_revenue numeric(12, 2) NOT NULL
);

CREATE TABLE IF NOT EXISTS public.vendor_reports (
    restaurant_id bigint NOT NULL REFERENCES public.restaurants,
    date date NOT NULL,
    total_orders integer NOT NULL,
    cancelled_orders integer NOT NULL,
    total_revenue numeric(12, 2) NOT NULL,
    PRIMARY KEY (date, restaurant_id)
);

-- Mentors, their certifications and their assignments -----------------------------------------------------

CREATE TABLE IF NOT EXISTS public.mentors (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'paused')),
    paused_at timestamptz,
    pause_reason text
);

CREATE TABLE IF NOT EXISTS public.certifications (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mentor_id bigint NOT NULL REFERENCES public.mentors,
    name text NOT NULL,  -- a renewal is a new row of the same name
    expires_on date      -- the last day on which it holds; NULL: for ever
);
CREATE INDEX IF NOT EXISTS certifications_mentor_id_idx
    ON public.certifications (mentor_id, name, expires_on);

CREATE TABLE IF NOT EXISTS public.certification_warnings (
    mentor_id bigint NOT NULL REFERENCES public.mentors,
    certification text NOT NULL,
    expires_on date NOT NULL,
    warned_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (mentor_id, certification, expires_on)
);

CREATE TABLE IF NOT EXISTS public.assignments (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mentor_id bigint NOT NULL REFERENCES public.mentors,
    participant text NOT NULL,
    status text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'done')),
    created_at timestamptz NOT NULL DEFAULT now(),
    last_contact_at timestamptz  -- NULL: they have not met yet
);
CREATE INDEX IF NOT EXISTS assignments_open_idx ON public.assignments (coalesce(last_contact_at, created_at))
    WHERE status = 'open';

CREATE TABLE IF NOT EXISTS public.reminders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    assignment_id bigint NOT NULL REFERENCES public.assignments,
    created_at timestamptz NOT NULL DEFAULT now(),
    sent_at timestamptz
);
CREATE INDEX IF NOT EXISTS reminders_assignment_id_idx ON public.reminders (assignment_id, created_at);

CREATE OR REPLACE FUNCTION public.trigger_reminders() RETURNS integer
LANGUAGE sql
SET search_path = pg_catalog, public, pg_temp
AS $function$
    -- A week less an hour: a run that starts a little earlier than last week's must not skip a day.
    WITH made AS (
        INSERT INTO reminders (assignment_id)
        SELECT assignment.id
        FROM assignments AS assignment
        JOIN mentors AS mentor ON mentor.id = assignment.mentor_id
        WHERE assignment.status = 'open'
            AND mentor.status = 'active'
            AND coalesce(assignment.last_contact_at, assignment.created_at) <= now() - interval '14 days'
            AND NOT EXISTS (
                SELECT FROM reminders AS earlier
                WHERE earlier.assignment_id = assignment.id
                    AND earlier.created_at > now() - interval '6 days 23 hours'
            )
        ORDER BY assignment.id
        RETURNING id
    )
    SELECT count(*)::integer FROM made
$function$;

COMMENT ON FUNCTION public.trigger_reminders() IS
    'Write a reminder for each open assignment of an active mentor that has had no contact for two weeks and '
    'no reminder for one. Returns how many were written; a second call on the same day writes none.';

-- Events --------------------------------------------------------------------------------------------------

CREATE TABLE IF NOT EXISTS public.events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    title text NOT NULL,
    starts_at timestamptz NOT NULL,
    minutes_before integer NOT NULL DEFAULT 15 CHECK (minutes_before BETWEEN 0 AND 1440),
    is_cancelled boolean NOT NULL DEFAULT false
);
CREATE INDEX IF NOT EXISTS events_starts_at_idx ON public.events (starts_at);

CREATE TABLE IF NOT EXISTS public.event_registrations (
    event_id bigint NOT NULL REFERENCES public.events,
    attendee text NOT NULL,
    attended boolean NOT NULL DEFAULT false,
    PRIMARY KEY (event_id, attendee)
);

CREATE TABLE IF NOT EXISTS public.event_reminders (
    event_id bigint NOT NULL REFERENCES public.events,
    starts_at timestamptz NOT NULL,  -- an event that was moved is announced again
    attendee text NOT NULL,
    message text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    sent_at timestamptz,
    PRIMARY KEY (event_id, starts_at, attendee)
);

CREATE TABLE IF NOT EXISTS public.event_reports (
    date date PRIMARY KEY,
    events integer NOT NULL,
    registrations integer NOT NULL,
    attended integer NOT NULL
);

CREATE TABLE IF NOT EXISTS public.monthly_event_reports (
    month date PRIMARY KEY,  -- its first day
    events integer NOT NULL,
    registrations integer NOT NULL,
    attended integer NOT NULL
);

-- A sign of life ------------------------------------------------------------------------------------------

CREATE TABLE IF NOT EXISTS public.heartbeats (
    name text PRIMARY KEY,
    beats bigint NOT NULL,
    first_beat_at timestamptz NOT NULL,
    last_beat_at timestamptz NOT NULL
) WITH (fillfactor = 50);  -- one row, written every minute: room for updates in place

-- Rows ----------------------------------------------------------------------------------------------------

INSERT INTO public.system_settings (setting_key, setting_value)
VALUES ('order_auto_cancel_minutes', '30')
ON CONFLICT DO NOTHING;

DO $sample$
DECLARE
    day CONSTANT interval := interval '1 day';
    minute CONSTANT interval := interval '1 minute';
    restaurant_ids bigint[];
    driver_ids bigint[];
    menu_ids bigint[];
    mentor_ids bigint[];
    event_ids bigint[];
BEGIN
    IF EXISTS (SELECT FROM public.restaurants) THEN
        RETURN;
    END IF;

    WITH made AS (
        INSERT INTO public.restaurants (name)
        SELECT format('Restaurant %s', n) FROM generate_series(1, 12) AS n
        RETURNING id
    )
    SELECT array_agg(id ORDER BY id) INTO restaurant_ids FROM made;

    WITH made AS (
        INSERT INTO public.drivers (name, is_available, updated_at)
        SELECT format('Driver %s', n), n % 4 <> 0, now() - n * 5 * minute FROM generate_series(1, 20) AS n
        RETURNING id
    )
    SELECT array_agg(id ORDER BY id) INTO driver_ids FROM made;

    WITH made AS (
        INSERT INTO public.menus (title, created_at)
        SELECT format('Menu %s', n), now() - n * 2 * day FROM generate_series(1, 40) AS n
        RETURNING id
    )
    SELECT array_agg(id ORDER BY id) INTO menu_ids FROM made;

    -- Each fifth menu belongs to no restaurant; one restaurant has a place without a menu.
    INSERT INTO public.restaurant_menus (restaurant_id, menu_id)
    SELECT restaurant_ids[1 + n % 12], menu_ids[n] FROM generate_series(1, 40) AS n WHERE n % 5 <> 0
    UNION ALL
    SELECT restaurant_ids[1], NULL;

    INSERT INTO public.reviews (restaurant_id, rating, created_at)
    SELECT restaurant_ids[1 + n % 10], 1 + (n * 7 + n / 10) % 5, now() - n * interval '3 hours'
    FROM generate_series(1, 300) AS n;

    -- About five orders a day for four months, all closed, and those of the last hours in every state.
    INSERT INTO public.orders
        (restaurant_id, driver_id, status, total_amount, placed_at, delivered_at, cancelled_at, created_at,
            updated_at)
    SELECT
        restaurant_ids[1 + n % 12],
        CASE closed.status WHEN 'cancelled' THEN NULL ELSE driver_ids[1 + n % 20] END,
        closed.status,
        12 + (n * 37) % 60 + 0.50,
        placed.at,
        CASE closed.status WHEN 'cancelled' THEN NULL ELSE placed.at + 40 * minute END,
        CASE closed.status WHEN 'delivered' THEN NULL ELSE placed.at + 60 * minute END,
        placed.at - 3 * minute,
        placed.at + 60 * minute
    FROM generate_series(1, 600) AS n
    CROSS JOIN LATERAL (SELECT now() - interval '3 hours' - n * interval '5 hours' AS at) AS placed
    CROSS JOIN LATERAL (
        SELECT (CASE WHEN n % 25 = 0 THEN 'refunded' WHEN n % 11 = 0 THEN 'cancelled' ELSE 'delivered' END
            )::public.order_status AS status
    ) AS closed;

    INSERT INTO public.orders
        (restaurant_id, driver_id, status, total_amount, placed_at, created_at, updated_at)
    SELECT
        restaurant_ids[1 + n % 12],
        CASE WHEN n % 4 = 0 THEN driver_ids[1 + n % 20] END,
        (ARRAY['on_the_way', 'pending', 'confirmed', 'preparing']::public.order_status[])[1 + n % 4],
        15 + n,
        placed.at,
        placed.at,
        placed.at
    FROM generate_series(1, 32) AS n
    CROSS JOIN LATERAL (SELECT now() - n * 2 * minute - minute / 2 AS at) AS placed
    UNION ALL
    SELECT restaurant_ids[1], NULL, 'pending', 9.90, NULL, now() - 2 * day, now() - 2 * day;  -- a basket

    INSERT INTO public.distance_requests (order_id, metres, created_at)
    SELECT id, 500 + id::integer * 13 % 9000, created_at FROM public.orders;

    INSERT INTO public.user_sessions (user_id, expires_at)
    SELECT n, now() + (n - 30) * interval '1 hour' - minute / 2 FROM generate_series(1, 60) AS n
    UNION ALL
    SELECT 1, NULL;

    WITH made AS (
        INSERT INTO public.mentors (name)
        SELECT format('Mentor %s', n) FROM generate_series(1, 15) AS n
        RETURNING id
    )
    SELECT array_agg(id ORDER BY id) INTO mentor_ids FROM made;

    -- First aid runs out at one mentor after the other, from 40 days ago until 100 days from now; the first
    -- mentor has renewed it in time. The background check holds for ever.
    INSERT INTO public.certifications (mentor_id, name, expires_on)
    SELECT mentor_ids[n], 'first aid', (now() AT TIME ZONE 'UTC')::date + (n * 10 - 50)
    FROM generate_series(1, 15) AS n
    UNION ALL
    SELECT mentor_ids[n], 'background check', NULL FROM generate_series(1, 15) AS n
    UNION ALL
    SELECT mentor_ids[1], 'first aid', (now() AT TIME ZONE 'UTC')::date + 400;

    INSERT INTO public.assignments (mentor_id, participant, status, created_at, last_contact_at)
    SELECT
        mentor_ids[1 + n % 15],
        format('Participant %s', n),
        CASE WHEN n % 6 = 0 THEN 'done' ELSE 'open' END,
        now() - 60 * day,
        CASE WHEN n % 5 = 0 THEN NULL ELSE now() - n * day - interval '1 hour' END
    FROM generate_series(1, 30) AS n;

    -- Every six hours from 70 days ago until two days from now, and one that begins in ten minutes.
    WITH made AS (
        INSERT INTO public.events (title, starts_at, is_cancelled)
        SELECT format('Event %s', n), now() + 2 * day - n * interval '6 hours', n % 13 = 0
        FROM generate_series(1, 288) AS n
        UNION ALL
        SELECT 'Evening class', now() + 10 * minute, false
        RETURNING id
    )
    SELECT array_agg(id ORDER BY id) INTO event_ids FROM made;

    INSERT INTO public.event_registrations (event_id, attendee, attended)
    SELECT event.id, format('Attendee %s', n), event.starts_at < now() AND (event.id + n) % 3 <> 0
    FROM public.events AS event
    CROSS JOIN generate_series(1, 4) AS n
    WHERE event.id = ANY (event_ids);
END
$sample$;
