"""What our reading of schedules promises, without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from croniter import CroniterError, croniter
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.schedules import (
    ANY_DIALECT,
    Dialect,
    accepts,
    dialect_for,
    find_problem,
    next_runs,
    parse_version,
)
from reconciler.core.times.cron_fields import START_WORDS, WORDS, read_field, read_value, split_fields
from reconciler.core.times.cron_grammar import FIELDS
from tests.schedule_texts import ANY_TEXTS, SOUND_TEXTS, VECTORS, short_fields

V1_4, V1_5, V1_6_0, V1_6_5 = (
    dialect_for(version) for version in ((1, 4, 2), (1, 5, 2), (1, 6, 0), (1, 6, 5))
)
DIALECTS = (V1_4, V1_5, V1_6_0, V1_6_5, ANY_DIALECT)
UNHURRIED = settings(deadline=None, database=None)


# --- a second reading, straight from the rules, to hold ours against ---


def read_sets(text: str) -> list[set[int]] | None:
    """Read five fields into sets; the last day of the month is 99. None for texts of another form."""
    fields = split_fields(WORDS.get(text, text))
    if len(fields) != 5:
        return None
    read = [read_field(kind, field) for kind, field in zip(FIELDS, fields, strict=True)]
    assert all(read)
    return [{99} if field.last_day else set(field.values) for field in read if field]


def has_single_range(text: str) -> bool:
    """Tell whether a range in the text begins where it ends."""
    ranges = [
        (kind, part.split("/")[0].split("-"))
        for kind, field in zip(FIELDS, split_fields(WORDS.get(text, text)), strict=True)
        for part in field.split(",")
    ]
    return any(len(ends) == 2 and len({read_value(kind, end) for end in ends}) == 1 for kind, ends in ranges)


def day_fits(text: str, day: datetime) -> bool:
    """Tell whether a schedule runs on a day, by pg_cron's rule for its two day fields."""
    sets = read_sets(text)
    assert sets is not None
    fields = WORDS.get(text, text).split()
    is_last = (day + timedelta(days=1)).day == 1
    day_of_month = day.day in sets[2] or (99 in sets[2] and is_last)
    weekday = day.isoweekday() % 7 in sets[4]
    both = fields[2].startswith("*") or fields[4].startswith("*")
    return day.month in sets[3] and (day_of_month and weekday if both else day_of_month or weekday)


def minutes_that_fit(text: str, start: datetime, zone: ZoneInfo, minutes: int) -> list[datetime]:
    """Try each minute of UTC after `start`, as pg_cron does."""
    sets = read_sets(text)
    assert sets is not None
    found = []
    for number in range(1, minutes + 1):
        wall = (start + timedelta(minutes=number)).astimezone(zone)
        if wall.minute in sets[0] and wall.hour in sets[1] and day_fits(text, wall.replace(tzinfo=None)):
            found.append(wall)
    return found


# --- versions ---


@pytest.mark.parametrize(
    ("text", "version"),
    [("1.4", (1, 4, 0)), ("1.6.5", (1, 6, 5)), ("1.4-1", (1, 4, 0)), ("2.10.0", (2, 10, 0))],
)
def test_versions_are_read(text: str, version: tuple[int, int, int]) -> None:
    """A version is read as people and the catalog write it."""
    assert parse_version(text) == version


@pytest.mark.parametrize(
    "text", ["", "1", "v1.6", "1.6.5.1", "1.6.x", " 1.6", "1.6\n", "\u0661.6", "1.4.2-2+b1"]
)
def test_wrong_versions_are_refused(text: str) -> None:
    """Anything else is refused with the text and with what a version looks like."""
    with pytest.raises(ValueError, match=r"is no pg_cron version: write .*1\.6\.5"):
        parse_version(text)


@pytest.mark.parametrize(
    ("version", "features"),
    [
        ((1, 4, 2), {"yearly_runs"}),
        ((1, 5, 0), {"yearly_runs", "seconds", "long_names"}),
        ((1, 6, 0), {"seconds", "long_names", "last_day"}),
        ((1, 6, 4), {"seconds", "long_names", "last_day"}),
        ((1, 6, 5), {"seconds", "long_names", "last_day", "step_limit"}),
        ((2, 0, 0), {"seconds", "long_names", "last_day", "step_limit"}),
    ],
)
def test_each_version_has_its_features(version: tuple[int, int, int], features: set[str]) -> None:
    """A dialect has exactly the features that its version brought or lost."""
    dialect = dialect_for(version)
    names = ("seconds", "last_day", "step_limit", "yearly_runs", "long_names")
    assert {name for name in names if getattr(dialect, name)} == features
    assert dialect.version == version


# --- accepts(); the proof against real servers is in tests/integration ---


@pytest.mark.parametrize(
    ("text", "dialects"),
    [
        ("* * * * *", DIALECTS),
        ("0 0 * * sat-sun", DIALECTS),
        ("* * * * * 2027", DIALECTS),
        ("4294967296 * * * *", DIALECTS),
        ("# c\n@daily foo", DIALECTS),
        ("*/60 * * * *", (V1_4, V1_5, V1_6_0, ANY_DIALECT)),
        ("1-10/2147483647 * * * *", ()),
        ("10-1/2147483646 * * * *", (V1_4, V1_5, V1_6_0, ANY_DIALECT)),
        ("0 0 $ * *", (V1_6_0, V1_6_5, ANY_DIALECT)),
        ("30 seconds", (V1_5, V1_6_0, V1_6_5, ANY_DIALECT)),
        ("-4294967295 seconds", (V1_5, V1_6_0, V1_6_5, ANY_DIALECT)),
        ("30" + " " * 1500 + "seconds", (V1_5, V1_6_0, V1_6_5, ANY_DIALECT)),
        ("60 seconds", ()),
        ("* * * *", ()),
        ("*" * 1000 + " * * * *", ()),
        ("1/20 * * * *", ()),
        ("*/0 * * * *", ()),
        ("61 * * * *", ()),
        ("x * * * *", ()),
        ("9" * 30 + " * * * *", ()),
        ("@Daily", ()),
        ("* * * * *\0", ()),
        ("* * * * * \ud800", ()),
    ],
)
def test_each_version_takes_its_own(text: str, dialects: tuple[Dialect, ...]) -> None:
    """accepts() says yes for exactly the versions that take the text."""
    assert tuple(dialect for dialect in DIALECTS if accepts(text, dialect)) == dialects


# --- find_problem() ---

GOOD = (
    "* * * * *", "*/5 * * * *", "*/7 * * * *", "0 8 * * 1-5", "15,45 9-17 1 */3 *", "0 0 */2 * 1",
    "0 0 13 * 5", "0\t0  1 * *", "0 0 31 * *", "0 0 29 2 *", "0 0 29 feb *", "00 00 01 01 00",
    "0 0 1 JAN *", "0 0 * * Sat,sun", "0 0 * * 5-7", "0 0 * * 7", "*/59 * * * *", "0 0 */31 * *",
    "1-5/30 * * * *", "0 0 1,31 2 *", "0 0 */5 2 1", "0 0 */31 2 1,3", "@daily", "@hourly", "@weekly",
    "@monthly", "@midnight", "@reboot", "@restart",
)  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_good_schedules_pass(text: str) -> None:
    """A schedule that every version reads as people do has no problem in any of them."""
    assert [find_problem(text, dialect) for dialect in DIALECTS] == [None] * len(DIALECTS)


@pytest.mark.parametrize(
    "text",
    [
        "30 seconds",
        "1 second",
        "59 SECONDS",
        "05 seconds",
        "30seconds",
        "0 0 $ * *",
        "0 0 $ * 1",
        "0 0 $ 2 *",
    ],
)
def test_newer_forms_pass_where_they_are_known(text: str) -> None:
    """Intervals in seconds and the last day of the month are fine from their version on."""
    assert find_problem(text, V1_6_5) is None
    assert find_problem(text, ANY_DIALECT) is None
    assert find_problem(text, V1_4) is not None


def test_yearly_passes_only_where_it_runs() -> None:
    """@yearly is fine before 1.6.0, and refused from then on and where the version is unknown."""
    assert [find_problem("@yearly", dialect) is None for dialect in DIALECTS] == [
        True,
        True,
        False,
        False,
        False,
    ]
    listed = find_problem("@foo", V1_4)
    assert listed is not None
    assert "@yearly" in listed.reason


@settings(UNHURRIED, max_examples=600)
@given(st.one_of(ANY_TEXTS, SOUND_TEXTS, st.text(max_size=20)), st.sampled_from(DIALECTS))
def test_what_passes_is_taken(text: str, dialect: Dialect) -> None:
    """A text without a problem is taken; a suggestion has no problem; a problem has a reason."""
    problem = find_problem(text, dialect)
    if problem is None:
        assert accepts(text, dialect)
    else:
        assert problem.reason
        assert not problem.suggestion or find_problem(problem.suggestion, dialect) is None


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: ".".join(map(str, dialect.version)))
def test_every_short_field_that_passes_is_taken(dialect: Dialect) -> None:
    """The same for all texts of the fixed list and for every field of up to three characters."""
    texts = (*VECTORS, *short_fields())
    passed = [text for text in texts if find_problem(text, dialect) is None]
    assert len(passed) > 100
    assert [text for text in passed if not accepts(text, dialect)] == []
    problems = [problem for text in texts if (problem := find_problem(text, dialect)) and problem.suggestion]
    assert [problem for problem in problems if find_problem(problem.suggestion, dialect)] == []


@settings(UNHURRIED, max_examples=300)
@given(st.one_of(SOUND_TEXTS, ANY_TEXTS), st.datetimes(datetime(2024, 1, 1), datetime(2120, 1, 1)))  # noqa: DTZ001 - days
def test_what_passes_runs_within_eight_years(text: str, start: datetime) -> None:
    """A five-field text without a problem has a day that fits in any eight years, and a time on that day."""
    if find_problem(text, V1_6_5) is not None or (sets := read_sets(text)) is None:
        return
    assert sets[0]
    assert sets[1]
    assert any(day_fits(text, start + timedelta(days=number)) for number in range(8 * 366))


@settings(UNHURRIED, max_examples=600)
@given(st.one_of(SOUND_TEXTS, ANY_TEXTS))
def test_fields_are_read_as_croniter_reads_them(text: str) -> None:
    """A five-field text without a problem has for croniter the same values in each field.

    Left out: `$`, which croniter writes L, and ranges of one value such as `8-8`, which croniter 7.0.0 reads
    as any value (with a step: any value in that step).
    """
    if find_problem(text, V1_6_5) is not None or (ours := read_sets(text)) is None or has_single_range(text):
        return
    theirs, _ = croniter.expand(WORDS.get(text, text).replace("$", "L"))
    whole = (range(60), range(24), range(1, 32), range(1, 13), range(7))
    for place, values in enumerate(theirs):
        expected = set(whole[place]) if "*" in values else {99 if value == "l" else value for value in values}
        assert ours[place] == expected


def test_croniter_reads_what_pg_cron_does_not() -> None:
    """The differences that make croniter unfit to judge are still there."""
    for text in (
        "0 0 L * *",
        "1/20 * * * *",
        "*/60 * * * *",
        "* * * * * *",
        "0 0 * * fri-mon",
        "0 0 * * 1#2",
    ):
        assert croniter.is_valid(text)
        assert find_problem(text, V1_6_5) is not None
    with pytest.raises(CroniterError):
        croniter("0 0 $ * *")


# --- next_runs() ---


def test_daylight_saving_skips_and_repeats() -> None:
    """A time that the clocks skip does not run that day; one that comes twice runs twice, in order."""
    spring = next_runs(
        "30 2 * * *",
        after=datetime(2027, 3, 27, 12, tzinfo=UTC),
        count=1,
        zone="Europe/Berlin",
        dialect=V1_6_5,
    )
    assert [run.isoformat() for run in spring] == ["2027-03-29T02:30:00+02:00"]
    autumn = next_runs(
        "*/30 2 * * *",
        after=datetime(2026, 10, 25, 0, 10, tzinfo=UTC),
        count=4,
        zone="Europe/Berlin",
        dialect=V1_6_5,
    )
    assert [run.isoformat() for run in autumn] == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T02:30:00+01:00",
        "2026-10-26T02:00:00+01:00",
    ]


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("0 0 $ * *", ["2027-01-31", "2027-02-28", "2027-03-31"]),
        ("0 0 $ * 1", ["2027-01-04", "2027-01-11", "2027-01-18"]),
        ("0 0 $ * */7", ["2027-01-31", "2027-02-28", "2027-10-31"]),
        ("0 0 13 * 5", ["2027-01-08", "2027-01-13", "2027-01-15"]),
        ("0 0 */2 * 1", ["2027-01-11", "2027-01-25", "2027-02-01"]),
        ("0 0 1-31 * 1", ["2027-01-03", "2027-01-04", "2027-01-05"]),
        ("0 0 1 * 0-6", ["2027-01-03", "2027-01-04", "2027-01-05"]),
        ("0 0 3-3 * *", ["2027-01-03", "2027-02-03", "2027-03-03"]),
        ("0 0 * * 3-3/7", ["2027-01-06", "2027-01-13", "2027-01-20"]),
        ("0 0 29 feb *", ["2028-02-29", "2032-02-29", "2036-02-29"]),
        ("@monthly", ["2027-02-01", "2027-03-01", "2027-04-01"]),
        ("@weekly", ["2027-01-03", "2027-01-10", "2027-01-17"]),
    ],
)
def test_days_follow_the_rule_of_pg_cron(text: str, runs: list[str]) -> None:
    """Day of month or day of week is enough, unless one of the two begins with a star: then both must fit."""
    after = datetime(2027, 1, 2, 12, tzinfo=UTC)
    found = next_runs(text, after=after, count=3, zone="GMT", dialect=V1_6_5)
    assert [run.date().isoformat() for run in found] == runs
    assert {run.time().isoformat() for run in found} == {"00:00:00"}


def test_intervals_count_from_the_given_instant() -> None:
    """An interval in seconds is added to `after`, across a change of the clocks too."""
    after = datetime(2026, 10, 25, 0, 59, 30, tzinfo=UTC)
    runs = next_runs("30 seconds", after=after, count=2, zone="Europe/Berlin", dialect=V1_5)
    assert [run.isoformat() for run in runs] == ["2026-10-25T02:00:00+01:00", "2026-10-25T02:00:30+01:00"]


def test_a_time_that_the_clocks_always_skip_never_comes() -> None:
    """02:30 on the last Sunday of March: summer time begins then."""
    after = datetime(2027, 1, 1, tzinfo=UTC)
    found = next_runs("30 2 25-31 3 */7", after=after, count=1, zone="Europe/Oslo", dialect=V1_6_5)
    assert found == ()


@pytest.mark.parametrize("word", sorted(START_WORDS))
def test_starts_have_no_times(word: str) -> None:
    """A job that runs when the launcher starts has no times to tell."""
    assert next_runs(word, after=datetime(2027, 1, 1, tzinfo=UTC), count=5, zone="GMT", dialect=V1_4) == ()


def test_no_runs_when_none_are_wanted() -> None:
    """A count of nothing gives nothing."""
    assert (
        next_runs("* * * * *", after=datetime(2027, 1, 1, tzinfo=UTC), count=0, zone="GMT", dialect=V1_4)
        == ()
    )


def test_the_given_instant_itself_is_not_a_run() -> None:
    """Runs are later than `after`, by seconds if need be."""
    after = datetime(2027, 1, 1, 12, 0, tzinfo=UTC)
    for instant in (after, after - timedelta(microseconds=1), after + timedelta(seconds=59)):
        (run,) = next_runs("* * * * *", after=instant, count=1, zone="UTC", dialect=V1_4)
        assert timedelta(0) < run - instant <= timedelta(minutes=1)
        assert run.second == run.microsecond == 0


@pytest.mark.parametrize(
    ("text", "after", "zone", "message"),
    [
        (
            "0 0 * * sat-sun",
            datetime(2027, 1, 1, tzinfo=UTC),
            "GMT",
            "'0 0 \\* \\* sat-sun': .*runs backwards",
        ),
        ("* * * * *", datetime(2027, 1, 1), "GMT", "needs a time zone"),  # noqa: DTZ001 - naive on purpose
        ("* * * * *", datetime(2027, 1, 1, tzinfo=UTC), "Mars/Olympus", "no time zone 'Mars/Olympus'"),
        ("* * * * *", datetime(2027, 1, 1, tzinfo=UTC), "../etc", "no time zone"),
        ("* * * * *", datetime(2027, 1, 1, tzinfo=UTC), "", "no time zone"),
    ],
)
def test_wrong_questions_are_refused(text: str, after: datetime, zone: str, message: str) -> None:
    """A schedule with a problem, a naive instant and an unknown zone are refused in plain words."""
    with pytest.raises(ValueError, match=message):
        next_runs(text, after=after, count=1, zone=zone, dialect=V1_6_5)


@settings(UNHURRIED, max_examples=60)
@given(
    SOUND_TEXTS,
    st.sampled_from(
        (
            datetime(2026, 10, 24, 20, 7, tzinfo=UTC),
            datetime(2026, 10, 25, 0, 30, 15, tzinfo=UTC),
            datetime(2027, 3, 27, 20, 0, tzinfo=UTC),
            datetime(2028, 2, 28, 11, 59, tzinfo=UTC),
        )
    ),
    st.sampled_from(("Europe/Berlin", "GMT", "Australia/Lord_Howe", "Asia/Kathmandu")),
)
def test_runs_are_those_that_trying_each_minute_finds(text: str, after: datetime, zone: str) -> None:
    """The runs are exactly the minutes of UTC whose time in the zone fits, as pg_cron finds them."""
    if find_problem(text, V1_6_5) is not None:
        return
    minutes = 3 * 24 * 60
    expected = minutes_that_fit(text, after.replace(second=0), ZoneInfo(zone), minutes)[:200]
    found = next_runs(text, after=after, count=max(len(expected), 1), zone=zone, dialect=V1_6_5)
    assert list(found[: len(expected)]) == expected
    assert expected or found[0] > after + timedelta(minutes=minutes - 1)
