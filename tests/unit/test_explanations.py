from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from reconciler.core.specs import Blackout, Daily, Every, Monthly, NthWeekday, Once, Schedule, Succeeded
from reconciler.core.times.clocks import make_clock
from reconciler.core.times.dialects import ANY_DIALECT, dialect_for
from reconciler.core.times.explanations import (
    Server,
    count_starts,
    describe_versions,
    explain_schedule,
    explain_spec,
    find_clock_changes,
)
from reconciler.core.times.local_rules import parse_rule
from reconciler.core.times.timings import Timing, make_entry_timing
from tests.core_builders import PLACE, make_job, make_other

if TYPE_CHECKING:
    from reconciler.core.specs import JobSpec, WorkerSpec
    from reconciler.core.times.explanations import Explanation

_OSLO = "Europe/Oslo"
_NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)
_ANY = Server(zone="GMT", dialect=ANY_DIALECT)
_OLD = Server(zone="GMT", dialect=dialect_for((1, 4, 2)))


def _schedule(text: str, server: Server = _ANY, zone: str = "") -> Explanation:
    return explain_schedule(text, server, zone=zone, after=_NOW, count=2)


def _spec(spec: JobSpec | WorkerSpec, server: Server = _ANY) -> Explanation:
    return explain_spec(spec, server, after=_NOW, count=2)


def _show(found: Explanation) -> list[str]:
    return [f"{run:%F %R}" for run in found.runs]


def test_a_schedule_is_pg_cron_s_own_in_its_zone() -> None:
    """Without a zone of its own it is read as pg_cron does, and each start is a run."""
    found = _schedule("30 2 * * *", Server(zone=_OSLO, dialect=ANY_DIALECT))
    assert found.words == "every day at 02:30 Europe/Oslo"
    assert "not at all" in found.clock_changes
    assert (found.entry, found.starts, found.versions) == ("30 2 * * *", None, "any version")
    assert _show(found) == ["2026-11-22 01:30", "2026-11-23 01:30"]


def test_a_schedule_in_a_zone_is_a_job_s() -> None:
    """It keeps to the usual choices, and its entry on a server in GMT fires more often."""
    found = _schedule("30 2 * * *", zone=_OSLO)
    assert "at the first moment after" in found.clock_changes
    assert found.starts is not None
    assert (found.starts.days, found.starts.fires, found.starts.runs) == (365, 1460, 365)
    assert _show(found) == ["2026-11-22 01:30", "2026-11-23 01:30"]
    assert [(f"{day.at:%F %R}", day.before, day.after) for day in found.changes] == [
        ("2027-03-28 01:00", 3600, 7200),
        ("2027-10-31 01:00", 7200, 3600),
    ]
    assert [[f"{run:%R}" for run in day.runs] for day in found.changes] == [["01:00"], ["00:30"]]


def test_days_of_changed_clocks_are_only_said_where_they_matter() -> None:
    """At 08:00 nobody's clocks are set."""
    found = _schedule("0 8 * * *", zone=_OSLO)
    assert (found.clock_changes, found.changes) == ("", ())


@pytest.mark.parametrize("text", ["30 seconds", "@reboot"])
def test_what_has_no_local_times_has_no_zone(text: str) -> None:
    """A zone is left aside."""
    assert _schedule(text, zone=_OSLO) == _schedule(text)


def test_a_refused_schedule_is_said_to_be_so() -> None:
    """With its right spelling, and without runs."""
    found = _schedule("0 22-2 * * *")
    assert "backwards" in found.problem
    assert (found.suggestion, found.runs, found.words) == ("0 22-23,0-2 * * *", (), "")
    assert "needs pg_cron 1.5" in _schedule("30 seconds", _OLD).problem


def test_a_job_is_explained_with_all_that_moves_its_runs() -> None:
    """Spread, window and blackout are in its words and in its runs."""
    spec = make_job(
        "report",
        trigger=Daily(hour=8, minute=0),
        timezone=_OSLO,
        spread=timedelta(hours=1),
        blackout=(Blackout(first=date(2026, 11, 22), last=date(2026, 11, 22)),),
    )
    found = _spec(spec)
    assert timedelta(0) < found.spread < timedelta(hours=1)
    assert "put off by" in found.words
    assert "not on 2026-11-22" in found.words
    first = datetime(2026, 11, 23, 7, tzinfo=UTC) + found.spread
    assert found.runs == (first, first + timedelta(days=1))
    assert found.kind == "job"


def test_a_server_s_own_clocks_decide_about_the_entry() -> None:
    """A server whose data know no summer time in Oslo needs one start a day."""
    clocks = {_OSLO: make_clock([(datetime(2025, 1, 1, tzinfo=UTC), 3600)])}
    spec = make_job(trigger=Daily(hour=8, minute=0), timezone=_OSLO)
    assert _spec(spec, replace(_ANY, clocks=clocks)).entry == "0 7 * * *"
    assert _spec(spec).entry == "0 6,7 * * *"


def test_a_one_time_job_has_no_entry() -> None:
    """It has a moment, or had one."""
    assert _spec(make_job(trigger=Once(at=_NOW + timedelta(days=1)))).runs == (_NOW + timedelta(days=1),)
    past = _spec(make_job(trigger=Once(at=_NOW)))
    assert (past.entry, past.runs) == ("", ())


@pytest.mark.parametrize(
    ("others", "words"),
    [
        (("a",), "whenever a has succeeded since its last run"),
        (("a", "b", "c"), "whenever a, b and c have succeeded since its last run"),
    ],
)
def test_a_job_that_others_start_says_so(others: tuple[str, ...], words: str) -> None:
    """No clock starts it."""
    found = _spec(make_job(trigger=Succeeded(), after=others, active=False))
    assert (found.words, found.after, found.active, found.runs) == (words, others, False, ())


def test_a_worker_is_explained_by_its_schedule() -> None:
    """It calls when pg_cron fires."""
    worker = make_other("worker", "w")
    assert worker.kind == "worker"
    found = _spec(worker)
    assert (found.kind, found.words, found.entry) == ("worker", "every minute", "* * * * *")
    assert "pg_cron 1.5" in _spec(replace(worker, schedule="30 seconds"), _OLD).problem


def test_what_this_pg_cron_cannot_do_is_a_problem_of_the_job() -> None:
    """Of a trigger that is no schedule it comes from the compiler."""
    found = _spec(make_job(trigger=Every(interval=timedelta(seconds=30))), _OLD)
    assert "pg_cron 1.5" in found.problem
    assert (found.entry, found.starts) == ("", None)


@pytest.mark.parametrize(
    ("spec", "is_possible"),
    [
        (make_job(mode="direct", trigger=Daily(hour=8, minute=0), timezone=_OSLO), False),
        (make_job(mode="direct", trigger=Monthly(day=NthWeekday(weekday=1, nth=2), hour=1, minute=0)), False),
        (make_job(mode="direct", trigger=Daily(hour=8, minute=0), timezone="Asia/Kolkata"), True),
        (make_job(mode="direct", trigger=Schedule(text="*/5 * * * *")), True),
        (make_job(mode="direct", trigger=Once(at=_NOW)), True),
    ],
)
def test_direct_jobs_need_a_schedule_that_says_just_that(spec: JobSpec, is_possible: bool) -> None:
    """Nobody passes over their starts."""
    found = _spec(spec)
    assert bool(found.problem) != is_possible
    assert found.suggestion == ("" if is_possible else "mode: managed")


def test_starts_are_counted_over_a_month_or_a_year() -> None:
    """What comes often over four weeks, what comes seldom over a year."""
    often = make_entry_timing("*/5 * * * *", "GMT")
    rarely = make_entry_timing("0 0 1 * *", "GMT")
    found = count_starts(rarely, often, after=_NOW)
    assert (found.days, found.fires, found.runs) == (28, 28 * 288, 1)
    found = count_starts(rarely, rarely, after=_NOW)
    assert (found.days, found.fires, found.runs) == (365, 12, 12)


def test_a_zone_that_sets_its_clocks_no_more_has_no_such_days() -> None:
    """Nothing is said of what does not come."""
    timing = Timing(zone="Asia/Kolkata", rule=parse_rule("30 2 * * *"))
    assert find_clock_changes(timing, after=_NOW, count=2) == ()


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ("0 8 * * *", "any version"),
        ("30 seconds", "from 1.5 on"),
        ("0 8 $ * *", "from 1.6 on"),
        ("@yearly", "before 1.6"),
        ("0 8 * * mon#2", ""),
    ],
)
def test_versions_are_said_as_people_do(text: str, versions: str) -> None:
    """From the first that takes it, or before the first that does not."""
    assert describe_versions(text) == versions


def test_the_place_of_a_job_does_not_matter() -> None:
    """Two declarations of the same times are explained alike."""
    assert _spec(make_job(place=PLACE)) == _spec(make_job(place=replace(PLACE, line=99)))
