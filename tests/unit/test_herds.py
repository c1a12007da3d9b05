"""Herds are found, called by one name, and parted by a spread that really resolves them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.specs import Blackout, Every, Once, Schedule, Succeeded
from reconciler.core.times.heat import find_days
from reconciler.core.times.herds import (
    SPREADS,
    Capacity,
    find_capacity,
    find_crowded,
    find_herds,
    list_spreadable,
    make_herd_load,
    render_spreads,
)
from reconciler.core.times.occurrences import find_runs_between
from reconciler.core.times.timetable import Scheduled
from reconciler.core.times.timings import find_shift, make_entry_timing, make_timing
from tests.core_builders import PLACE, SETTINGS, make_facts, make_job, make_other

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.core.specs import JobSpec
    from reconciler.core.times.herds import Herd

MONDAY = date(2026, 11, 23)


def jobs(count: int, schedule: str = "0 0 * * *", prefix: str = "job", **changed: object) -> list[JobSpec]:
    """Declare jobs that come together."""
    return [
        make_job(f"{prefix}-{number}", trigger=Schedule(text=schedule), **changed)  # type: ignore[arg-type]
        for number in range(count)
    ]


def list_scheduled(specs: Sequence[JobSpec], zone: str = "GMT") -> list[Scheduled]:
    """List what a clock starts of them."""
    return [
        Scheduled(name=spec.name, kind="job", timing=timing, schedule="0 0 * * *", owner="shop")
        for spec in specs
        if (timing := make_timing(spec, zone)) is not None
    ]


def herds(specs: Sequence[JobSpec], limit: int, *, zone: str = "GMT", shown: str = "") -> tuple[Herd, ...]:
    """Find the herds of five weeks from a Monday on, with advice."""
    load = make_herd_load(list_scheduled(specs, zone), MONDAY, shown or zone)
    capacity = Capacity(limit=limit, known=True)
    return find_herds(load, shown or zone, capacity, list_spreadable(specs))


@pytest.mark.parametrize(
    ("schedules", "when"),
    [
        (["0 0 * * *"], "each day at 00:00"),
        (["0 8 * * 1"], "on Mondays at 08:00"),
        (["0 8 * * 1-5"], "on workdays at 08:00"),
        (["0 8 * * 0,6"], "on Sundays and Saturdays at 08:00"),
        (["0 0 1 12 *"], "on 2026-12-01 at 00:00"),
        (["30 6 1-5 12 *"], "each day from 2026-12-01 to 2026-12-05 at 06:30"),
        (["0 * * * *"], "every hour"),
        (["*/15 * * * *"], "every 15 minutes"),
        (["* * * * *"], "every minute"),
        (["7 * * * *"], "at minute 7 of every hour"),
        (["0 3,4 * * *"], "each day at 03:00 and 04:00"),
        (["0 9-17 * * 1-5"], "every hour from 09:00 to 17:00 on workdays"),
        (["0 0 */3 * *"], "on 2026-11-25, 2026-11-28, 2026-12-01 and 8 other days at 00:00"),
    ],
)
def test_a_herd_is_one_line(schedules: list[str], when: str) -> None:
    """What comes again and again is said once, not day by day."""
    specs = [job for number, text in enumerate(schedules) for job in jobs(3, text, f"job{number}")]
    assert [herd.when for herd in herds(specs, 2)] == [when]


def test_a_herd_is_called_by_the_clocks_that_are_shown() -> None:
    """Midnight in GMT is one o'clock in Oslo."""
    (herd,) = herds(jobs(3), 2, shown="Europe/Oslo")
    assert herd.when == "each day at 01:00"
    assert herd.first_at == datetime(2026, 11, 23, 0, 0, tzinfo=UTC)


def test_as_many_as_the_server_runs_are_no_herd() -> None:
    """One more is."""
    assert herds(jobs(32), 32) == ()
    (herd,) = herds(jobs(33), 32)
    assert (herd.most, herd.times, len(herd.names)) == (33, 35, 33)


def test_jobs_that_run_all_the_time_leave_less_room() -> None:
    """An interval of seconds takes a slot in each minute, and its job takes part in each herd."""
    base = [make_job(f"fast-{number}", trigger=Schedule(text="10 seconds")) for number in range(2)]
    assert herds([*jobs(3), *base], 5) == ()
    (herd,) = herds([*jobs(4), *base], 5)
    assert (herd.most, herd.when) == (6, "each day at 00:00")
    assert {"fast-0", "job-3"} <= set(herd.names)
    (herd,) = herds(base, 1)
    assert (herd.when, herd.spread) == ("every minute", timedelta(0))


def test_one_time_jobs_are_no_herd() -> None:
    """They are rows of a table, which the runners start one after the other."""
    at = datetime(2026, 12, 1, tzinfo=UTC)
    assert herds([make_job(f"once-{number}", trigger=Once(at=at)) for number in range(9)], 2) == ()


def test_other_jobs_at_another_time_are_another_herd() -> None:
    """Herds of the same days are told apart by who takes part; the largest comes first."""
    found = herds([*jobs(3, prefix="a"), *jobs(4, "0 3 * * *", "b")], 2)
    assert [(herd.when, herd.most, herd.names[0]) for herd in found] == [
        ("each day at 03:00", 4, "b-0"),
        ("each day at 00:00", 3, "a-0"),
    ]


def test_an_hourly_herd_stays_one_where_others_join() -> None:
    """The daily ones are part of it; the worst minute counts."""
    found = herds([*jobs(3, "0 * * * *", "a"), *jobs(4, "0 3 * * *", "b")], 2)
    assert [(herd.when, herd.most, len(herd.names)) for herd in found] == [("every hour", 7, 7)]


def test_the_change_of_clocks_does_not_part_an_hourly_herd() -> None:
    """A day without its third hour, and one that has it twice, are days like others."""
    specs = jobs(3, "0 * * * *")
    for first in (date(2026, 3, 20), date(2026, 10, 20)):
        load = make_herd_load(list_scheduled(specs, "Europe/Oslo"), first, "Europe/Oslo")
        found = find_herds(load, "Europe/Oslo", Capacity(limit=2, known=True))
        assert [herd.when for herd in found] == ["every hour"]


def count_starts(specs: Sequence[JobSpec]) -> Counter[datetime]:
    """Count starts the slow way."""
    begins = find_days(MONDAY, 35, "GMT")
    starts: Counter[datetime] = Counter()
    for spec in specs:
        timing = make_timing(spec, "GMT")
        assert timing is not None
        low, high = begins[0] - timedelta(seconds=1), begins[-1] - timedelta(seconds=1)
        starts.update(find_runs_between(timing, after=low, until=high))
    return starts


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 12),
            st.sampled_from(["0 0 * * *", "0 0 * * 1", "5 0 * * *", "0 */6 * * *", "0 0 1 * *"]),
        ),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 8),
)
def test_a_spread_that_is_advised_resolves(crowd: list[tuple[int, str]], limit: int) -> None:
    """With all advice taken no minute of a resolved herd is crowded, and a smaller spread was not enough."""
    specs = [job for number, (count, text) in enumerate(crowd) for job in jobs(count, text, f"job{number}")]
    found = herds(specs, limit)
    spreads = {name: herd.spread for herd in found for name in herd.moved}
    starts = count_starts([replace(spec, spread=spreads.get(spec.name, timedelta(0))) for spec in specs])
    before = count_starts(specs)
    if all(herd.spread or "above" in herd.advice for herd in found):
        assert max(starts.values()) <= limit
    assert bool(found) == (max(before.values()) > limit)
    if len(found) == 1 and found[0].spread > SPREADS[0]:
        smaller = SPREADS[SPREADS.index(found[0].spread) - 1]
        tried = [replace(spec, spread=smaller) if spec.name in spreads else spec for spec in specs]
        assert max(count_starts(tried).values()) > limit


def test_the_smallest_spread_is_advised() -> None:
    """With how many start at most then, and lines to paste."""
    specs = jobs(12)
    (herd,) = herds(specs, 4)
    assert herd.spread == timedelta(minutes=5)
    assert herd.moved == tuple(sorted(spec.name for spec in specs))
    shifts = Counter(find_shift(spec.name, herd.spread) for spec in specs)
    assert herd.advice == f"spread: 5m in 12 jobs leaves {max(shifts.values())} at most"
    lines = render_spreads(herd, list_spreadable(specs)).splitlines()
    assert lines[:2] == ["jobs:", f"  job-0: {{spread: 5m}}  # {PLACE}"]
    assert len(lines) == 13


def test_no_spread_is_advised_where_none_is_enough() -> None:
    """More than two hours hold need something else."""
    (herd,) = herds(jobs(200), 1)
    assert herd.spread == timedelta(0)
    assert herd.moved == ()
    assert herd.advice.startswith("not even spread: 2h is enough (")


def test_only_jobs_that_can_be_spread_are_moved() -> None:
    """Those of others stay where they are, and count."""
    mine = jobs(6)
    strangers = [
        Scheduled(
            name=f"x-{number}", kind="entry", timing=make_entry_timing("0 0 * * *", "GMT"), schedule="x"
        )
        for number in range(4)
    ]
    load = make_herd_load([*list_scheduled(mine), *strangers], MONDAY, "GMT")
    (herd,) = find_herds(load, "GMT", Capacity(limit=5, known=True), list_spreadable(mine))
    assert herd.spread
    assert set(herd.moved) == {spec.name for spec in mine}
    assert len(herd.names) == 10
    (herd,) = find_herds(load, "GMT", Capacity(limit=3, known=True), list_spreadable(mine))
    assert herd.spread == timedelta(0)
    (herd,) = find_herds(load, "GMT", Capacity(limit=3, known=True), {})
    assert herd.advice == "none of these jobs can be given a spread here"


def test_who_can_be_spread() -> None:
    """Managed jobs that recur, and have no spread yet."""
    specs = [
        make_job("a"),
        make_job("b", spread=timedelta(minutes=5)),
        make_job("c", trigger=Once(at=datetime(2026, 12, 1, tzinfo=UTC))),
        make_job("d", trigger=Succeeded()),
        make_job("e", mode="direct"),
        make_other("worker", "f"),
    ]
    assert list_spreadable(specs) == {"a": PLACE}


def test_what_comes_each_minute_is_not_moved() -> None:
    """It would start in the same minutes."""
    dense = [*jobs(2, "* * * * *", "dense"), make_job("other", trigger=Every(interval=timedelta(minutes=1)))]
    (herd,) = herds([*jobs(3), *dense], 5)
    assert herd.moved == ("job-0", "job-1", "job-2")
    # Those of every six minutes are not enough: all are tried that can be moved.
    crowd = [*jobs(2, "*/6 * * * *"), *jobs(3, "*/5 * * * *", "often"), *jobs(3, "* * * * *", "dense")]
    (herd,) = herds(crowd, 7)
    assert herd.moved == ("job-0", "job-1", "often-0", "often-1", "often-2")


def test_no_run_is_moved_into_its_blackout() -> None:
    """A job that would lose its run stays, and the others make room."""
    tight = [replace(job, blackout=(Blackout(start=1, end=600),)) for job in jobs(3, prefix="tight")]
    (herd,) = herds([*tight, *jobs(3)], 4)
    kept = {spec.name for spec in tight if find_shift(spec.name, herd.spread)}
    assert herd.spread
    assert kept
    assert not kept & set(herd.moved)


def test_jobs_that_mostly_come_at_other_times_stay() -> None:
    """A job of every five minutes is not put off for the sake of midnight, unless it is needed."""
    often = jobs(3, "*/5 * * * *", "often")
    (herd,) = herds([*jobs(9), *often], 8)
    assert herd.spread
    assert not any(name.startswith("often") for name in herd.moved)
    assert [herd.moved != () for herd in herds([*jobs(2, "*/6 * * * *"), *often], 4)] == [True]


def test_advice_for_one_herd_counts_for_the_next() -> None:
    """Jobs that are part of two herds are moved once."""
    found = herds([*jobs(5, "0 0,12 * * *", "a"), *jobs(1, "0 0 * * *", "b")], 4)
    assert [(herd.when, herd.most) for herd in found] == [("each day at 00:00", 6), ("each day at 12:00", 5)]
    assert found[0].spread
    assert (found[1].spread, found[1].advice) == (timedelta(0), "what is advised above parts this one too")


@pytest.mark.parametrize(
    ("settings_", "expected"),
    [
        ({**SETTINGS, "max_running_jobs": "3"}, (3, True)),
        (SETTINGS, (32, False)),
        ({}, (32, False)),
        ({"use_background_workers": "on"}, (5, False)),
    ],
)
def test_how_many_jobs_a_server_runs_at_once(settings_: dict[str, str], expected: tuple[int, bool]) -> None:
    """What it says, else pg_cron's default: 32, and 5 in background workers."""
    capacity = find_capacity(make_facts(settings=settings_))
    assert (capacity.limit, capacity.known) == expected
    assert find_capacity(None) == Capacity(limit=32, known=False)


def test_crowded_minutes_are_bits() -> None:
    """One for each minute with a herd."""
    load = make_herd_load(list_scheduled(jobs(3)), MONDAY, "GMT", days=2)
    assert find_crowded(load, Capacity(limit=2, known=True)) == 1 | 1 << 1440


def test_a_herd_of_many_times_names_the_first_ones() -> None:
    """Times that no pace says are counted."""
    specs = [replace(one, trigger=Every(interval=timedelta(minutes=90))) for one in jobs(3)]
    (herd,) = herds(specs, 2)
    assert herd.when == "each day at 00:00, 01:30, 03:00, 04:30 and 12 other times"


def test_of_a_few_days_a_herd_is_called_by_its_dates() -> None:
    """Two days say nothing about every day, nor about weekdays."""
    load = make_herd_load(list_scheduled(jobs(3)), MONDAY, "GMT", days=2)
    (herd,) = find_herds(load, "GMT", Capacity(limit=2, known=True))
    assert herd.when == "on 2026-11-23 and 2026-11-24 at 00:00"
