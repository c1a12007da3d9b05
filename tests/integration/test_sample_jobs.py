"""The SQL of this repository's own jobs.d/, on the sample schema: the right rows change, and no others."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, LiteralString

import pytest

from tests.sample import JOBS, MANAGED, SCHEMA, Sample, open_sample

if TYPE_CHECKING:
    from tests.servers import Database

UNREPEATABLE = {"heartbeat"}
"""Jobs whose second run is meant to do something again."""


# The amounts are powers of two, so that a sum tells which orders are in it.
ADD_ORDERS_AROUND_MIDNIGHT = """
INSERT INTO orders (restaurant_id, status, total_amount, placed_at)
SELECT restaurant, status::order_status, amount, date_trunc('day', now(), 'UTC') + past_midnight::interval
FROM (VALUES
    (%(first)s, 'delivered', 1, '-24:00:00.000001'),
    (%(first)s, 'delivered', 2, '-24:00'),
    (%(first)s, 'cancelled', 4, '-12:00'),
    (%(second)s, 'pending', 8, '-1:00'),
    (%(first)s, 'delivered', 16, '-00:00:00.000001'),
    (%(first)s, 'delivered', 32, '0:00'),
    (%(first)s, 'refunded', 64, '0:00'),
    (%(first)s, 'pending', 128, NULL),
    (%(first)s, 'delivered', 256, '24:00')
) AS example (restaurant, status, amount, past_midnight)
"""

ADD_CLOSED_ORDERS = """
INSERT INTO orders (restaurant_id, total_amount, cancellation_reason, status, placed_at, delivered_at,
    cancelled_at, updated_at)
SELECT %s, 1, name, status::order_status, now() - interval '1 year', now() - delivered::interval,
    now() - cancelled::interval, now() - updated::interval
FROM (VALUES
    ('delivered', 'delivered', '90 days 1 second', NULL, '0'),
    ('boundary', 'delivered', '90 days', NULL, '0'),
    ('cancelled', 'cancelled', NULL, '91 days', '0'),
    ('fresh', 'cancelled', NULL, '89 days', '1 year'),
    ('undated', 'refunded', NULL, NULL, '91 days'),
    ('touched', 'refunded', NULL, NULL, '89 days'),
    ('open', 'on_the_way', NULL, NULL, '1 year'),
    ('stuck', 'pending', '91 days', '91 days', '1 year')
) AS example (name, status, delivered, cancelled, updated)
"""


@pytest.fixture
def sample(database: Database) -> Sample:
    """The sample schema as an ordinary role has loaded it, in an open transaction."""
    return open_sample(database)


def add_order(sample: Sample, restaurant: int, status: str, placed: str | None) -> int:
    """Insert an order that was placed so long ago."""
    return sample.add(
        "INSERT INTO orders (restaurant_id, status, placed_at, total_amount)"
        " VALUES (%s, %s, now() - %s::interval, 10) RETURNING id",
        restaurant,
        status,
        placed,
    )


def test_the_schema_loads_twice(sample: Sample) -> None:
    """A second load changes nothing, also after jobs have run."""
    sample.run("auto-cancel-unconfirmed-orders")
    before = sample.digests()
    sample.conn.execute(SCHEMA)
    assert sample.digests() == before


@pytest.mark.parametrize("name", MANAGED)
def test_each_job_finds_work_once(sample: Sample, name: str) -> None:
    """Each job changes the sample; at once again, it touches not a single row."""
    fresh = sample.digests()
    sample.run(name)
    once = sample.digests()
    assert once != fresh
    sample.run(name)
    assert (sample.digests() == once) == (name not in UNREPEATABLE)


def test_an_order_is_cancelled_after_the_time_of_the_setting(sample: Sample) -> None:
    """Only pending, active orders placed more than 30 minutes ago are cancelled."""
    one = sample.add_restaurant()
    late = add_order(sample, one, "pending", "30 minutes 1 millisecond")
    others = [
        add_order(sample, one, "pending", "30 minutes"),
        add_order(sample, one, "pending", None),
        add_order(sample, one, "confirmed", "2 hours"),
    ]
    archived = add_order(sample, one, "pending", "2 hours")
    sample.conn.execute("UPDATE orders SET is_active = false WHERE id = %s", [archived])
    sample.run("auto-cancel-unconfirmed-orders")
    assert sample.rows(
        "SELECT id, cancelled_at = now(), cancellation_reason FROM orders"
        " WHERE status = 'cancelled' AND id = ANY (%s)",
        [late, archived, *others],
    ) == [(late, True, "Not confirmed by the restaurant within 30 minutes")]


@pytest.mark.parametrize(
    ("setting", "minutes"), [("5", 5), ("0", 0), (None, 30), ("soon", 30), ("-5", 30), ("99999999999", 30)]
)
def test_the_time_to_confirm_is_a_setting(sample: Sample, setting: str | None, minutes: int) -> None:
    """The setting decides; where it is missing or senseless, it is 30 minutes."""
    sample.conn.execute("DELETE FROM system_settings")
    if setting is not None:
        sample.conn.execute("INSERT INTO system_settings VALUES ('order_auto_cancel_minutes', %s)", [setting])
    one = sample.add_restaurant()
    early = add_order(sample, one, "pending", f"{minutes} minutes")
    late = add_order(sample, one, "pending", f"{minutes} minutes 1 second")
    sample.run("auto-cancel-unconfirmed-orders")
    query: LiteralString = "SELECT status::text FROM orders WHERE id = ANY (%s) ORDER BY id"
    assert sample.rows(query, [early, late]) == [("pending",), ("cancelled",)]


def test_a_silent_driver_is_unavailable(sample: Sample) -> None:
    """Available drivers silent for more than 30 minutes become unavailable; their last time stays."""
    sample.empty()
    sample.conn.execute(
        "INSERT INTO drivers (name, is_available, updated_at) VALUES"
        " ('silent', true, now() - interval '30 minutes 1 second'),"
        " ('just', true, now() - interval '30 minutes'), ('home', false, now() - interval '1 day')"
    )
    before = sample.rows("SELECT name, updated_at FROM drivers ORDER BY id")
    sample.run("driver-inactivity-check")
    assert sample.rows("SELECT name FROM drivers WHERE is_available") == [("just",)]
    assert sample.rows("SELECT name, updated_at FROM drivers ORDER BY id") == before


def test_a_rating_is_the_average_of_all_reviews(sample: Sample) -> None:
    """Ratings are averages to two digits, 0 without reviews; who keeps a rating is not written."""
    sample.empty()
    mean, none, same = sample.add_restaurant(), sample.add_restaurant(), sample.add_restaurant()
    sample.conn.execute("UPDATE restaurants SET rating = 3, updated_at = '2020-01-01Z'")
    sample.conn.execute(
        "INSERT INTO reviews (restaurant_id, rating, created_at) VALUES"
        " (%(a)s, 5, now()), (%(a)s, 4, now() - interval '1 year'), (%(a)s, 4, now()), (%(b)s, 3, now())",
        {"a": mean, "b": same},
    )
    sample.run("update-restaurant-ratings")
    assert sample.rows("SELECT id, rating::text, updated_at = now() FROM restaurants ORDER BY id") == [
        (mean, "4.33", True),
        (none, "0.00", True),
        (same, "3.00", False),
    ]


def add_orders_around_midnight(sample: Sample) -> tuple[int, int]:
    """Insert orders around the beginnings of today and of yesterday (UTC), at two restaurants."""
    sample.empty()
    first, second = sample.add_restaurant(), sample.add_restaurant()
    sample.conn.execute(ADD_ORDERS_AROUND_MIDNIGHT, {"first": first, "second": second})
    return first, second


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Etc/GMT+12"])
def test_each_order_counts_on_its_day(sample: Sample, zone: str) -> None:
    """Today and yesterday are counted by UTC days, whatever the session's zone, and counted anew later."""
    sample.conn.execute("SELECT set_config('TimeZone', %s, true)", [zone])
    add_orders_around_midnight(sample)
    query: LiteralString = (
        "SELECT (now() AT TIME ZONE 'UTC')::date - date, total_orders, cancelled_orders, total_revenue::int"
        " FROM daily_order_stats ORDER BY date"
    )
    sample.run("generate-daily-stats")
    assert sample.rows(query) == [(1, 4, 1, 18), (0, 2, 0, 32)]
    sample.conn.execute("UPDATE orders SET status = 'delivered' WHERE total_amount = 8")
    sample.conn.execute("DELETE FROM orders WHERE placed_at >= date_trunc('day', now(), 'UTC')")
    sample.run("generate-daily-stats")
    assert sample.rows(query) == [(1, 4, 1, 26), (0, 0, 0, 0)]


def test_each_vendor_gets_the_report_of_yesterday(sample: Sample) -> None:
    """Each restaurant with orders yesterday has one row; a later run corrects it."""
    first, second = add_orders_around_midnight(sample)
    sample.add_restaurant()
    query: LiteralString = (
        "SELECT restaurant_id, (now() AT TIME ZONE 'UTC')::date - date, total_orders, cancelled_orders,"
        " total_revenue::int FROM vendor_reports ORDER BY restaurant_id"
    )
    sample.run("daily-vendor-reports")
    assert sample.rows(query) == [(first, 1, 3, 1, 18), (second, 1, 1, 0, 0)]
    sample.conn.execute("UPDATE orders SET status = 'delivered' WHERE total_amount = 8")
    sample.run("daily-vendor-reports")
    assert sample.rows(query) == [(first, 1, 3, 1, 18), (second, 1, 1, 0, 8)]


def test_expired_sessions_go(sample: Sample) -> None:
    """Sessions past their end are deleted; one that ends now, and one without end, stay."""
    sample.empty()
    sample.conn.execute(
        "INSERT INTO user_sessions (user_id, expires_at) VALUES (1, now() - interval '1 second'),"
        " (2, now()), (3, NULL), (4, now() + interval '1 hour'), (5, '-infinity')"
    )
    sample.run("cleanup-expired-sessions")
    assert sample.rows("SELECT user_id FROM user_sessions ORDER BY 1") == [(2,), (3,), (4,)]


def test_orphaned_menus_go_although_a_place_is_empty(sample: Sample) -> None:
    """Old menus that no restaurant has are deleted, also when a restaurant has a place without a menu."""
    sample.empty()
    sample.conn.execute(
        "INSERT INTO menus (title, created_at) VALUES ('orphan', now() - interval '30 days 1 second'),"
        " ('young', now() - interval '30 days'), ('used', now() - interval '1 year')"
    )
    one = sample.add_restaurant()
    sample.conn.execute(
        "INSERT INTO restaurant_menus (restaurant_id, menu_id)"
        " SELECT %(id)s, id FROM menus WHERE title = 'used' UNION ALL SELECT %(id)s, NULL",
        {"id": one},
    )
    sample.run("cleanup-orphaned-menus")
    assert sample.rows("SELECT title FROM menus ORDER BY id") == [("young",), ("used",)]


def test_a_menu_in_use_elsewhere_is_left_for_the_next_night(sample: Sample, database: Database) -> None:
    """A menu that another session has locked holds the clean-up up for no moment."""
    orphan = sample.add(
        "INSERT INTO menus (title, created_at) VALUES ('orphan', now() - interval '1 year') RETURNING id"
    )
    sample.conn.commit()
    other = database.connect("app", autocommit=False)
    other.execute("SELECT FROM menus WHERE id = %s FOR KEY SHARE", [orphan])
    sample.conn.execute("SET LOCAL lock_timeout = '2s'")
    sample.run("cleanup-orphaned-menus")
    assert sample.rows("SELECT count(*) FROM menus WHERE id = %s", orphan) == [(1,)]
    other.rollback()
    sample.run("cleanup-orphaned-menus")
    assert sample.rows("SELECT count(*) FROM menus WHERE id = %s", orphan) == [(0,)]


def test_orders_are_archived_90_days_after_they_were_closed(sample: Sample) -> None:
    """Delivered, cancelled and refunded orders are archived by when they were closed, open ones never."""
    sample.empty()
    one = sample.add_restaurant()
    sample.conn.execute(ADD_CLOSED_ORDERS, [one])
    sample.run("archive-old-orders")
    assert sample.rows(
        "SELECT cancellation_reason FROM orders WHERE NOT is_active AND updated_at = now() ORDER BY id"
    ) == [("delivered",), ("cancelled",), ("undated",)]
    assert sample.rows("SELECT count(*) FROM orders WHERE is_active") == [(5,)]


def test_old_distance_requests_go_in_portions(sample: Sample) -> None:
    """Requests older than 90 days are deleted, the oldest first and 20,000 at a time."""
    sample.empty()
    sample.conn.execute(
        "INSERT INTO distance_requests (metres, created_at)"
        " SELECT n, now() - interval '90 days' + (n - 20100) * interval '1 second'"
        " FROM generate_series(1, 20101) AS n"
    )
    query: LiteralString = "SELECT min(metres), count(*) FROM distance_requests"
    sample.run("cleanup-distance-requests")
    assert sample.rows(query) == [(20001, 101)]
    sample.run("cleanup-distance-requests")
    assert sample.rows(query) == [(20100, 2)]


def test_old_runs_go_from_the_history_of_pg_cron(sample: Sample, database: Database) -> None:
    """Own runs of a week ago are deleted, also those without an end; younger ones and others' stay."""
    sample.run("cleanup-cron-details")
    sample.conn.commit()
    rows = database.connect().execute("SELECT runid FROM cron.job_run_details ORDER BY 1").fetchall()
    assert rows == [(14,), (15,), (16,), (17,)]


def test_the_heart_beats(sample: Sample) -> None:
    """Each run counts one up in the same row and keeps the time of the first."""
    sample.run("heartbeat")
    sample.conn.commit()
    sample.run("heartbeat")
    query: LiteralString = "SELECT name, beats, last_beat_at = now(), first_beat_at < now() FROM heartbeats"
    assert sample.rows(query) == [("pg_cron", 2, True, True)]


def test_the_direct_jobs_run_outside_of_a_transaction(sample: Sample) -> None:
    """What is handed to pg_cron as it is runs on its own, and the vacuum leaves its mark."""
    sample.conn.rollback()
    sample.conn.autocommit = True
    direct = [job["sql"] for job in JOBS.values() if job.get("mode") == "direct"]
    assert direct == ["VACUUM (ANALYZE) orders"]
    query: LiteralString = (
        "SELECT count(*) FROM pg_stats WHERE schemaname = 'public' AND tablename = 'orders'"
    )
    assert sample.rows(query) == [(0,)]
    for body in direct:
        sample.conn.execute(body)
    assert sample.rows(query) != [(0,)]


@pytest.mark.firing
def test_the_heartbeat_fires_within_a_minute(sample: Sample, database: Database) -> None:
    """Scheduled as declared, the heartbeat is in its table when the next minute has begun."""
    sample.conn.commit()
    admin = database.connect()
    job = JOBS["heartbeat"]
    admin.execute("SELECT cron.schedule('heartbeat', %s, %s)", [job["schedule"], job["sql"]])
    give_up_at = time.monotonic() + 70
    while not admin.execute("SELECT FROM heartbeats").rowcount:
        assert time.monotonic() < give_up_at
        time.sleep(0.5)
