from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from croniter import croniter
from hypothesis import given, settings

from reconciler.core.canonical import render_canonical
from reconciler.core.declared_times import read_timing
from reconciler.core.times.foreign_cron import TRIED, ForeignReading, read_foreign
from reconciler.core.times.occurrences import find_runs
from tests.schedule_texts import ANY_TEXTS

_NOW = datetime(2026, 11, 21, 10, 0, 17, tzinfo=UTC)
_UNHURRIED = settings(deadline=None, database=None, max_examples=60)


def _read(text: str) -> tuple[ForeignReading, ...]:
    return read_foreign(text, after=_NOW, count=TRIED)


@pytest.mark.parametrize(
    ("text", "declared"),
    [
        ("0 8 * * mon#2", {"monthly": {"day": "second mon", "at": "08:00"}}),
        ("0 8 * * 5L", {"monthly": {"day": "last fri", "at": "08:00"}}),
        ("0 8 * * friL", {"monthly": {"day": "last fri", "at": "08:00"}}),
        ("30 2 L * *", {"monthly": {"day": "last", "at": "02:30"}}),
        ("30 2 L 3 *", {"schedule": "30 2 $ 3 *"}),
        ("0 8 ? * MON", {"schedule": "0 8 * * 1"}),
        ("0 22-2 * * *", {"schedule": "0 0-2,22,23 * * *"}),
        ("5/15 * * * *", {"schedule": "5,20,35,50 * * * *"}),
        ("@yearly", {"schedule": "0 0 1 1 *"}),
        ("0 0 8 ? * MON#2", {"monthly": {"day": "second mon", "at": "08:00"}}),
        ("0 0 8 * * *", {"daily": "08:00"}),
        ("0 */5 * * * *", {"schedule": "*/5 * * * *"}),
        ("*/10 * * * * *", {"every": "10s"}),
        ("* * * * * *", {"every": "1s"}),
        ("0 0 0 1 1 ? *", {"schedule": "0 0 1 1 *"}),
    ],
)
def test_what_other_crons_mean_is_said_in_our_keys(text: str, declared: dict[str, Any]) -> None:
    """The keys are read as a job's, and their next runs are those of the other cron, one by one."""
    reading = _read(text)[0]
    assert reading.declared == declared
    assert reading.is_proven
    timing = read_timing(render_canonical(declared), "", name="", kind="job", server_zone="UTC")
    assert timing is not None
    # An interval of seconds counts from its last start: say, at the full minute.
    start = _NOW.replace(second=0) if timing.seconds else _NOW
    ours = [run for run in find_runs(timing, after=start, count=70) if run > _NOW]
    assert len(reading.runs) == TRIED
    assert list(reading.runs) == ours[:TRIED]


@pytest.mark.parametrize(
    "text",
    [
        "0 8 15W * *",
        "0 0 * * 1#2,3#1",
        "0 0 1,L * *",
        "*/7 * * * * *",
        "15 0 8 * * *",
        "0 0 8 * * 1#2,1#4",
        "0 0 0 1 1 ? 2027",
        "0 0 0 1 1 ? 2027-2099",
        "0 8,9 * * 1#2",
        "0 8 13 * 1#2",
        "0 0 31 2 mon",
        "0 8 * 3 1#2",
    ],
)
def test_what_nothing_here_does_is_said_to_be_so(text: str) -> None:
    """Other crons have runs, and no key of a job has the same: it is not made up."""
    reading = _read(text)[0]
    assert reading.runs
    assert not reading.declared
    assert not reading.is_proven


def test_six_fields_are_read_in_both_ways() -> None:
    """Seconds are the first field for most crons, and the last one for some."""
    first, last = _read("0 */5 * * * *")
    assert (first.how, last.how) == ("with seconds first", "with seconds last")
    assert first.runs[0] == datetime(2026, 11, 21, 10, 5, tzinfo=UTC)
    assert last.runs[0] == datetime(2026, 11, 21, 10, 0, 18, tzinfo=UTC)


def test_readings_that_come_to_the_same_are_one() -> None:
    """Every second is every second, wherever the seconds stand."""
    assert len(_read("* * * * * *")) == 1


def test_only_so_many_runs_are_given_as_are_wanted() -> None:
    """The comparison looks at more of them."""
    (reading,) = read_foreign("0 8 * * mon#2", after=_NOW, count=2)
    assert [run.isoformat() for run in reading.runs] == [
        "2026-12-14T08:00:00+00:00",
        "2027-01-11T08:00:00+00:00",
    ]
    assert reading.is_proven


@pytest.mark.parametrize(
    ("text", "declared"),
    [
        ("H 8 * * *", {"daily": "08:00", "spread": "1h"}),
        ("H * * * *", {"every": "1h", "spread": "1h"}),
        ("h h * * *", {"daily": "00:00", "spread": "24h"}),
        ("H H(0-7) * * *", {}),
        ("R 8 * * *", {}),
    ],
)
def test_what_a_name_picks_is_spread_here(text: str, declared: dict[str, Any]) -> None:
    """It comes as often and not at the same minutes, so that it is no proof; chance has no spelling here."""
    (reading,) = _read(text)
    assert reading.declared == declared
    assert not reading.is_proven
    assert "name" in reading.remark


def test_numbers_of_weekdays_come_with_a_warning() -> None:
    """For Quartz 2 is Monday, for all others Tuesday."""
    (numbered,) = _read("0 0 8 ? * 2#2")
    assert numbered.declared == {"monthly": {"day": "second tue", "at": "08:00"}}
    assert "Quartz" in numbered.remark
    (named,) = _read("0 0 8 ? * TUE#2")
    assert named.remark == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "@every 5m",
        "0 0 31 2 *",
        "H",
        "H H H H H H H H",
        "é * * * *",
        "1," * 300 + "1 * * * *",
    ],
)
def test_what_no_cron_reads_has_no_reading(text: str) -> None:
    """Nothing is said, and nothing raised."""
    assert _read(text) == ()


@_UNHURRIED
@given(ANY_TEXTS)
def test_any_text_is_answered(text: str) -> None:
    """Whatever is asked for, an answer comes, its runs ascend, and what is proven is what croniter has."""
    for reading in _read(text):
        assert list(reading.runs) == sorted(set(reading.runs))
        assert reading.runs[0] > _NOW
        if reading.is_proven and "schedule" in reading.declared:
            theirs = croniter(reading.declared["schedule"].replace("$", "L"), _NOW, datetime)
            assert reading.runs[0] - theirs.get_next(datetime) == timedelta(0)
