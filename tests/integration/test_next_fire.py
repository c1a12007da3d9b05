"""The database says when pg_cron fires a schedule: reconciler.next_fire beside core.schedules.next_runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.schedules import accepts, dialect_for, find_problem
from tests.fires import (
    BESIDE_A_DATABASE,
    MINUTE,
    NEW_YEAR,
    Question,
    ask,
    ask_one,
    connect_with_schema,
    dialect_of,
    draw_question,
    expect,
    follow,
)
from tests.schedule_texts import VECTORS, any_text, short_fields

if TYPE_CHECKING:
    from collections.abc import Iterable

    import psycopg

    from tests.servers import Database

# --- beside the reading in Python ---


def test_fires_as_python_says(database: Database) -> None:
    """For schedules without problems, any zone and any instant, both readings give the same instant."""
    conn = connect_with_schema(database)
    dialect = dialect_of(database)
    seen = 0

    @BESIDE_A_DATABASE
    @given(st.integers(0, 2**32))
    def compare(seed: int) -> None:
        nonlocal seen
        chance = Random(seed)
        drawn = [draw_question(chance) for _ in range(200)]
        questions = [question for question in drawn if find_problem(question.schedule, dialect) is None]
        expected = [expect(question, dialect) for question in questions]
        answers = ask(conn, questions)
        seen += len(answers)
        assert [
            wrong for wrong in zip(questions, answers, expected, strict=True) if wrong[1] != wrong[2]
        ] == []

    compare()
    assert seen > 2_000


def test_any_text_has_an_answer(database: Database) -> None:
    """No text is an error: what no pg_cron takes never fires, what has no problem fires as Python says."""
    conn = connect_with_schema(database)
    dialect = dialect_of(database)
    lenient = replace(dialect, step_limit=False)
    after = datetime(2026, 2, 27, 23, 59, 30, tzinfo=UTC)

    def check(texts: Iterable[str]) -> None:
        questions = [Question(text, after, "Europe/Oslo") for text in texts]
        for question, answer in zip(questions, ask(conn, questions), strict=True):
            if find_problem(question.schedule, dialect) is None:
                assert answer == expect(question, dialect), question
            elif not accepts(question.schedule, lenient):
                assert answer is None, question

    check(VECTORS)
    check(short_fields())

    @BESIDE_A_DATABASE
    @given(st.integers(0, 2**32))
    def draw(seed: int) -> None:
        chance = Random(seed)
        check([any_text(chance) for _ in range(200)])

    draw()


# --- days ---


def follow_days(conn: psycopg.Connection, schedule: str) -> list[str]:
    """Ask for the next three days on which a schedule fires at midnight."""
    found = follow(conn, schedule, NEW_YEAR, "GMT", 3)
    assert {fire[-11:] for fire in found} == {"00:00 +0000"}
    return [fire[:10] for fire in found]


def test_dates_that_not_every_month_has(database: Database) -> None:
    """The 29th of February waits for a leap year, the 31st for a long month; $ is each month's last day."""
    conn = connect_with_schema(database)
    days = {
        "0 0 29 2 *": ["2028-02-29", "2032-02-29", "2036-02-29"],
        "0 0 31 * *": ["2027-01-31", "2027-03-31", "2027-05-31"],
        "0 0 $ * *": ["2027-01-31", "2027-02-28", "2027-03-31"],
        "0 0 $ 2 *": ["2027-02-28", "2028-02-29", "2029-02-28"],
    }
    assert {schedule: follow_days(conn, schedule) for schedule in days} == days


def test_one_of_two_day_fields_is_enough(database: Database) -> None:
    """Day of month and day of week are joined by OR, also where one of them holds every value."""
    conn = connect_with_schema(database)
    days = {
        "0 0 13 * 5": ["2027-01-08", "2027-01-13", "2027-01-15"],
        "0 0 $ * 1": ["2027-01-04", "2027-01-11", "2027-01-18"],
        "0 0 1-31 * 1": ["2027-01-02", "2027-01-03", "2027-01-04"],
        "0 0 1 * 0-6": ["2027-01-02", "2027-01-03", "2027-01-04"],
        "0 0 13,*/31 * 6": ["2027-01-02", "2027-01-09", "2027-01-13"],
    }
    assert {schedule: follow_days(conn, schedule) for schedule in days} == days


def test_a_star_makes_both_day_fields_count(database: Database) -> None:
    """Where one of the two day fields begins with a star, also as */2, a day has to fit both."""
    conn = connect_with_schema(database)
    days = {
        "0 0 */2 * 1": ["2027-01-11", "2027-01-25", "2027-02-01"],
        "0 0 *,13 * 1": ["2027-01-04", "2027-01-11", "2027-01-18"],
        "0 0 1-7 * */7": ["2027-01-03", "2027-02-07", "2027-03-07"],
        "0 0 $ * */7": ["2027-01-31", "2027-02-28", "2027-10-31"],
    }
    assert {schedule: follow_days(conn, schedule) for schedule in days} == days


def test_weekdays_and_months_have_names(database: Database) -> None:
    """Names of three letters in any case count like their numbers, and 7 is Sunday as 0 is."""
    conn = connect_with_schema(database)
    days = {
        "0 0 * * 7": ["2027-01-03", "2027-01-10", "2027-01-17"],
        "0 0 * * SUN": ["2027-01-03", "2027-01-10", "2027-01-17"],
        "0 0 * * 5-7/2": ["2027-01-03", "2027-01-08", "2027-01-10"],
        "0 0 * * Mon-fri": ["2027-01-04", "2027-01-05", "2027-01-06"],
        "0 0 1 feb-DEC/5 *": ["2027-02-01", "2027-07-01", "2027-12-01"],
        "0 0 01 007,8 *": ["2027-07-01", "2027-08-01", "2028-07-01"],
    }
    assert {schedule: follow_days(conn, schedule) for schedule in days} == days


def test_names_are_read_without_a_language(database: Database) -> None:
    """FRI is Friday also where the text's collation is Turkish, which has another small I."""
    conn = connect_with_schema(database)
    row = conn.execute(
        """SELECT reconciler.next_fire('0 0 * * FRI' COLLATE "tr-x-icu", %s, 'GMT')""", [NEW_YEAR]
    ).fetchone()
    assert row == (datetime(2027, 1, 8, tzinfo=UTC),)


def test_a_schedule_that_never_comes_has_no_time(database: Database) -> None:
    """Dates that no year has, or none of the next eight, give null."""
    conn = connect_with_schema(database)
    for schedule in ("0 0 31 2 *", "0 0 30 feb *", "0 0 31 4,6,9,11 *", "0 0 29 2 */7"):
        assert ask_one(conn, schedule, datetime(2032, 3, 1, tzinfo=UTC)) is None, schedule
    assert ask_one(conn, "0 0 29 2 *", datetime(2096, 2, 29, tzinfo=UTC)) == datetime(2104, 2, 29, tzinfo=UTC)


# --- the clocks ---


def test_the_next_minute_is_later_than_the_instant(database: Database) -> None:
    """A fire is always later than the given instant, at a full minute."""
    conn = connect_with_schema(database)
    noon = datetime(2027, 1, 1, 12, tzinfo=UTC)
    assert ask_one(conn, "0 12 * * *", noon) == noon + timedelta(days=1)
    assert ask_one(conn, "0 12 * * *", noon - timedelta(microseconds=1)) == noon
    assert ask_one(conn, "* * * * *", noon + timedelta(seconds=59)) == noon + MINUTE


def test_skipped_times_do_not_fire(database: Database) -> None:
    """A time that the clocks skip in spring does not fire on that day."""
    conn = connect_with_schema(database)
    assert follow(conn, "30 2 * * *", datetime(2027, 3, 27, tzinfo=UTC), "Europe/Oslo", 2) == [
        "2027-03-27 02:30 +0100",
        "2027-03-29 02:30 +0200",
    ]
    assert follow(conn, "0 12 * 12 *", datetime(2011, 12, 29, tzinfo=UTC), "Pacific/Apia", 2) == [
        "2011-12-29 12:00 -1000",
        "2011-12-31 12:00 +1400",
    ]


def test_a_time_that_is_always_skipped_has_no_time(database: Database) -> None:
    """A schedule for the skipped hour of the days on which the clocks change gives null."""
    conn = connect_with_schema(database)
    assert ask_one(conn, "30 2 25-31 3 */7", zone="Europe/Oslo") is None
    assert ask_one(conn, "30 3 25-31 3 */7", zone="Europe/Oslo") is not None


def test_repeated_times_fire_twice(database: Database) -> None:
    """A time that comes twice in autumn fires both times, in the order of time."""
    conn = connect_with_schema(database)
    assert follow(conn, "*/30 2 * * *", datetime(2026, 10, 25, 0, 10, tzinfo=UTC), "Europe/Oslo", 4) == [
        "2026-10-25 02:30 +0200",
        "2026-10-25 02:00 +0100",
        "2026-10-25 02:30 +0100",
        "2026-10-26 02:00 +0100",
    ]
    # From the far side of a summer, with the same offset at both ends.
    assert follow(conn, "30 1 1 11 *", datetime(2026, 1, 15, tzinfo=UTC), "America/New_York", 2) == [
        "2026-11-01 01:30 -0400",
        "2026-11-01 01:30 -0500",
    ]


def test_a_name_that_is_also_an_abbreviation_is_a_zone(database: Database) -> None:
    """CET has summer time, as pg_cron reads it, although CET is an abbreviation to AT TIME ZONE."""
    conn = connect_with_schema(database)
    july = datetime(2026, 7, 1, tzinfo=UTC)
    hours = {
        zone: ask_one(conn, "0 12 * * *", july, zone) for zone in ("CET", "met", "EET", "WET", "EST", "HST")
    }
    assert {zone: fire and fire.astimezone(UTC).hour for zone, fire in hours.items()} == {
        "CET": 10,
        "met": 10,
        "EET": 9,
        "WET": 11,
        "EST": 17,
        "HST": 22,
    }


def test_an_unknown_zone_is_gmt(database: Database) -> None:
    """A zone that the server does not know counts as GMT."""
    conn = connect_with_schema(database)
    expected = NEW_YEAR + timedelta(hours=12)
    for zone in ("Mars/Olympus", "", "../etc", "a\nb", "x" * 400, "GMT"):
        assert ask_one(conn, "0 12 * * *", zone=zone) == expected, zone


# --- other forms ---


def test_intervals_are_added(database: Database) -> None:
    """An interval in seconds is added to the given instant, with its fraction."""
    conn = connect_with_schema(database)
    after = datetime(2026, 10, 25, 0, 59, 30, 250_000, tzinfo=UTC)
    seconds = {"30 seconds": 30, "1 second": 1, "59SECONDS": 59, "\t05 seconds ": 5}
    for schedule, number in seconds.items():
        assert ask_one(conn, schedule, after, "Europe/Oslo") == after + timedelta(seconds=number), schedule
    for schedule in ("0 seconds", "60 seconds", "30 secs", "30 second ", "-5 seconds"):
        assert ask_one(conn, schedule, after) is None, schedule


def test_words_stand_for_fields(database: Database) -> None:
    """@hourly and its like fire when their five fields do."""
    conn = connect_with_schema(database)
    words = {
        "@hourly": "0 * * * *",
        "@daily": "0 0 * * *",
        "@midnight": "0 0 * * *",
        "@weekly": "0 0 * * 0",
        "@monthly": "0 0 1 * *",
    }
    for word, fields in words.items():
        assert ask_one(conn, word) == ask_one(conn, fields) is not None, word


@pytest.mark.parametrize("word", ["@yearly", "@annually"])
def test_yearly_fires_only_where_pg_cron_runs_it(database: Database, word: str) -> None:
    """pg_cron before 1.6 runs @yearly in the new year's first minute; later ones take it and never run it."""
    conn = connect_with_schema(database)
    runs = dialect_for(database.server.pg_cron).yearly_runs
    assert ask_one(conn, word) == (datetime(2028, 1, 1, tzinfo=UTC) if runs else None)


def test_starts_have_no_time(database: Database) -> None:
    """What runs when the launcher starts is decided by no clock."""
    conn = connect_with_schema(database)
    assert ask_one(conn, "@reboot") is None
    assert ask_one(conn, "@restart") is None


def test_blanks_and_comments_around_the_fields_do_not_count(database: Database) -> None:
    """pg_cron skips empty and comment lines and blanks before the fields, and whatever follows them."""
    conn = connect_with_schema(database)
    expected = NEW_YEAR + timedelta(hours=3)
    for schedule in (
        " 0 3 * * *",
        "0\t3  *\t \t* *",
        "0 3 * * * ",
        "# at three\n \n\t0 3 * * *\n",
        "0 3 * * * * 2027",
        "0 3 * * *\nand so on",
    ):
        assert ask_one(conn, schedule) == expected, schedule
    assert ask_one(conn, " # c\n @daily foo") == NEW_YEAR + timedelta(days=1)


def test_garbage_has_no_time(database: Database) -> None:
    """What is no schedule, or means to pg_cron what people do not mean, gives null and never an error."""
    conn = connect_with_schema(database)
    wrong = (
        *(
            "",
            " ",
            "#",
            "\n",
            "@",
            "@Daily",
            "@ daily",
            "@every 5m",
            "x",
            "* * * *",
            "*\n* * * *",
            "é * * * *",
        ),
        *("60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *", "* * * * 8", "-1 * * * *"),
        *(
            "1/20 * * * *",
            "*/0 * * * *",
            "*/60 * * * *",
            "0 */24 * * *",
            "5- * * * *",
            "-5 * * * *",
            "+5 * * * *",
        ),
        *("1,, * * * *", ", * * * *", "1-2-3 * * * *", "*/5/5 * * * *", "1-5/ * * * *", "/5 * * * *"),
        *("** * * * *", "*-5 * * * *", "5*  * * * *", "jan * * * *", "0jan * * * *", "\u0665 * * * *"),
        *("0 0 * * Sunday", "0 0 * * jan", "0 0 * mon *", "0 0 * * sat-sun", "0 22-2 * * *", "0 0 * * 1#2"),
        *("0 0 15,$ * *", "0 0 $5 * *", "$ * * * *", "5~30 * * * *", "5.5 * * * *", "0 0 L * *", "0 0 ? * *"),
        *(
            "4294967296 * * * *",
            "9" * 600 + " * * * *",
            "* * * * *" + " " * 991,
            "*/" + "9" * 600 + " * * * *",
        ),
    )
    assert [text for text in wrong if ask_one(conn, text) is not None] == []


def test_infinity_has_no_time(database: Database) -> None:
    """Nothing fires after the end of time, nor is there a first fire after its beginning."""
    conn = connect_with_schema(database)
    for schedule in ("* * * * *", "30 seconds"):
        for end in ("infinity", "-infinity"):
            row = conn.execute(
                "SELECT reconciler.next_fire(%s, %s::timestamptz, 'Europe/Oslo')", [schedule, end]
            ).fetchone()
            assert row == (None,)


def test_a_hostile_search_path_changes_nothing(database: Database) -> None:
    """Operators and functions that somebody else puts first in the search path are not used."""
    conn = connect_with_schema(database)
    conn.execute(
        "CREATE SCHEMA evil;"
        "CREATE FUNCTION evil.shift(bigint, integer) RETURNS bigint LANGUAGE sql AS 'SELECT 1 / 0';"
        "CREATE OPERATOR evil.<< (FUNCTION = evil.shift, LEFTARG = bigint, RIGHTARG = integer);"
        "CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE sql AS 'SELECT $1::integer::text';"
        "SET search_path = evil, pg_catalog"
    )
    assert ask_one(conn, "*/5 * * * mon-fri") == NEW_YEAR + 5 * MINUTE
