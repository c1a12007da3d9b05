from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from reconciler.core.canonical import render_canonical
from reconciler.core.change_times import ChangeTimes, Timeline, find_change_times
from reconciler.core.changes import Change, Obstacle, Snapshot
from reconciler.core.state import Running
from tests.core_builders import ALL_RIGHTS, make_entry, make_facts

if TYPE_CHECKING:
    from reconciler.core.changes import Action
    from reconciler.core.facts import Facts

_OSLO = ZoneInfo("Europe/Oslo")
_RUN = Running(run_id=812, run_at=datetime(2026, 11, 21, 7, 0, tzinfo=UTC))


def _at(text: str, zone: str = "Europe/Oslo") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


def _side(fires: str = "", /, *, off: bool = False, **fields: Any) -> Snapshot:
    """Make one side of a change: an entry, if it fires at all, and a document."""
    entry = make_entry("a", jobid=1, schedule=fires, active=not off) if fires else None
    return Snapshot(document=render_canonical({"sql": "SELECT 1", **fields}), entry=entry)


def _local(rule: str, zone: str = "Europe/Oslo", **fields: Any) -> Snapshot:
    return _side("0 * * * *", schedule=rule, timezone=zone, ambiguous="first", nonexistent="next", **fields)


_WEEKDAYS, _FIRST_DAYS = _local("0 8 * * 1-5"), _local("0 8 1,2 * *")


def _change(before: Snapshot | None, after: Snapshot | None, **changed: Any) -> Change:
    action: Action = "create" if before is None else "delete" if after is None else "update"
    change = Change(
        action=action, kind="job", name="a", reason="edited", before=before, after=after, source="a.yaml:1"
    )
    return replace(change, **changed)


def _find(
    before: Snapshot | None,
    after: Snapshot | None,
    now: str = "2026-11-21T08:30",
    *,
    running: tuple[Running, ...] = (),
    facts: Facts | None = None,
    zone: str = "GMT",
    **changed: Any,
) -> ChangeTimes | None:
    return find_change_times(
        _change(before, after, **changed), server_zone=zone, now=_at(now), running=running, facts=facts
    )


def _times(*args: Any, **options: Any) -> ChangeTimes:
    times = _find(*args, **options)
    assert times is not None
    return times


def _runs(runs: tuple[datetime, ...], zone: ZoneInfo = _OSLO) -> list[str]:
    return [run.astimezone(zone).strftime("%m-%d %H:%M") for run in runs]


def test_a_job_that_is_made_has_times_to_come() -> None:
    """Words, three runs, and how often it runs and its entry fires."""
    after = _side("0,30 0-1 * * *", daily="02:30", timezone="Europe/Oslo")
    times = _times(None, after)
    assert times.before is None
    assert times.after is not None
    assert (times.after.words, times.after.zone) == ("every day at 02:30 Europe/Oslo", "Europe/Oslo")
    assert _runs(times.after.next_runs) == ["11-22 02:30", "11-23 02:30", "11-24 02:30"]
    assert (times.after.per_day, times.after.woken_per_day, times.after.active) == (1.0, 4.0, True)


def test_a_job_that_goes_had_times() -> None:
    """They are those that its entry has now, and nothing comes after."""
    times = _times(_side("0 6 * * *", schedule="0 5 * * *"), None)
    assert times.after is None
    assert times.before is not None
    assert (times.before.words, times.before.woken_per_day) == ("every day at 06:00 GMT", None)


@pytest.mark.parametrize(
    ("before", "after", "now", "last", "skipped", "doubled"),
    [
        # Once a day: it was due already, or is not due any more, or nothing happens to it.
        (_local("0 8 * * *"), _local("0 9 * * *"), "2026-11-21T08:30", "11-21 08:00", [], ["11-21 09:00"]),
        (_local("0 9 * * *"), _local("0 8 * * *"), "2026-11-21T08:30", "11-20 09:00", ["11-21 09:00"], []),
        (_local("0 8 * * *"), _local("0 9 * * *"), "2026-11-21T07:30", "", [], []),
        (_local("0 8 * * *"), _local("0 9 * * *"), "2026-11-21T09:30", "", [], []),
        (_local("0 9 * * *"), _local("0 8 * * *"), "2026-11-21T07:30", "", [], []),
        (_local("0 9 * * *"), _local("0 8 * * *"), "2026-11-21T09:30", "", [], []),
        # By half a day, where the step alone says nothing: the day counts.
        (_local("0 8 * * *"), _local("0 20 * * *"), "2026-11-21T09:00", "11-21 08:00", [], ["11-21 20:00"]),
        (_local("0 20 * * *"), _local("0 8 * * *"), "2026-11-21T09:00", "11-20 20:00", ["11-21 20:00"], []),
        (_local("0 8 * * *"), _local("0 20 * * *"), "2026-11-21T07:30", "", [], []),
        (_local("0 20 * * *"), _local("0 8 * * *"), "2026-11-21T07:30", "", [], []),
        (_local("0 8 * * *"), _local("0 20 * * *"), "2026-11-21T08:00", "11-21 08:00", [], ["11-21 20:00"]),
        # Across midnight, the end of a week and that of a month the step is too short for that.
        (_local("59 23 * * *"), _local("1 0 * * *"), "2026-11-21T23:59", "11-21 23:59", [], ["11-22 00:01"]),
        (_local("0 8 * * 0"), _local("0 8 * * 1"), "2026-11-22T12:00", "11-22 08:00", [], ["11-23 08:00"]),
        (_local("0 8 $ * *"), _local("0 8 1 * *"), "2026-11-30T12:00", "11-30 08:00", [], ["12-01 08:00"]),
        (_local("0 8 * * 1"), _local("0 8 * * 0"), "2026-11-22T12:00", "11-16 08:00", ["11-23 08:00"], []),
        # Weeks, months and years.
        (_local("0 8 * * 1"), _local("0 8 * * 2"), "2026-11-23T12:00", "11-23 08:00", [], ["11-24 08:00"]),
        (_local("0 8 * * 5"), _local("0 8 * * 1"), "2026-11-25T12:00", "11-20 08:00", ["11-27 08:00"], []),
        (_local("0 8 3 * *"), _local("0 8 18 * *"), "2026-11-09T12:00", "11-03 08:00", [], ["11-18 08:00"]),
        (_local("0 8 3 2 *"), _local("0 8 3 11 *"), "2026-10-09T12:00", "02-03 08:00", [], ["11-03 08:00"]),
        (_local("0 8 3 11 *"), _local("0 8 3 2 *"), "2026-10-09T12:00", "11-03 08:00", ["11-03 08:00"], []),
        # A step as usual is none too short; but a week of four days has one too few.
        (_local("0 8 * * 1-5"), _local("0 8 * * 2-6"), "2026-11-20T12:00", "", [], []),
        (_local("0 8 * * 2-6"), _local("0 8 * * 1-5"), "2026-11-24T07:30", "", [], []),
        (_local("0 8 * * 2-6"), _WEEKDAYS, "2026-11-27T09:00", "11-27 08:00", ["11-28 08:00"], []),
        (_local("0 8 1,20 * *"), _FIRST_DAYS, "2026-11-03T09:00", "11-01 08:00", ["11-20 08:00"], []),
        # Another pace is no fault.
        (_local("0 20 * * 1"), _local("0 8 * * *"), "2026-11-23T12:00", "", [], []),
        (_local("*/5 * * * *"), _local("*/10 * * * *"), "2026-11-21T08:07", "", [], []),
        (_local("*/5 * * * *"), _local("3-59/5 * * * *"), "2026-11-21T08:02", "", [], []),
        (_local("0 8 * * 1-5"), _local("0 8 * * *"), "2026-11-21T08:30", "", [], []),
        (_local("0 8 * * 1-5"), _local("0 8 * * *"), "2026-11-20T08:30", "", [], []),
        (_local("0 8 * * *"), _local("*/5 * * * *"), "2026-11-21T08:30", "", [], []),
        (_local("*/5 * * * *"), _local("0 8 * * *"), "2026-11-21T08:30", "", [], []),
        (_local("0 8 * * *"), _local("0 8 * * 1"), "2026-11-21T08:30", "", [], []),
        # Every hour at another minute.
        (_local("0 * * * *"), _local("30 * * * *"), "2026-11-21T08:10", "11-21 08:00", [], ["11-21 08:30"]),
        (_local("30 * * * *"), _local("0 * * * *"), "2026-11-21T08:10", "11-21 07:30", ["11-21 08:30"], []),
        # Another zone: 08:00 in New York is 14:00 in Oslo.
        (
            _local("0 8 * * *"),
            _local("0 8 * * *", "America/New_York"),
            "2026-11-21T10:00",
            "11-21 08:00",
            [],
            ["11-21 14:00"],
        ),
        (
            _local("0 8 * * *", "America/New_York"),
            _local("0 8 * * *"),
            "2026-11-21T10:00",
            "11-20 14:00",
            ["11-21 14:00"],
            [],
        ),
        # The day is that of the new zone: 02:00 in Tokyo is 18:00 on the day before in Oslo.
        (_local("0 2 * * *", "Asia/Tokyo"), _local("0 8 * * *"), "2026-11-21T19:00", "", [], []),
        # Intervals have a step and no day.
        (
            _side("0 * * * *", every="2w", start_at="2026-11-16T08:00:00Z"),
            _side("0 * * * *", every="2w", start_at="2026-11-18T08:00:00Z"),
            "2026-11-17T12:00",
            "11-16 09:00",
            [],
            ["11-18 09:00"],
        ),
        (_side("* * * * *", every="91m"), _side("* * * * *", every="133m"), "2026-11-21T09:30", "", [], []),
        # What is left out until a later start.
        (
            _local("0 8 * * *"),
            _local("0 8 * * *", start_at="2026-11-24T00:00:00Z"),
            "2026-11-21T12:00",
            "11-21 08:00",
            ["11-22 08:00", "11-23 08:00"],
            [],
        ),
        # What was over, or never was, has no last run that another could repeat.
        (
            _local("0 8 * * *", end_at="2026-11-01T00:00:00Z"),
            _local("0 9 * * *"),
            "2026-11-21T08:30",
            "",
            [],
            [],
        ),
        (_side("30 seconds", every="30s"), _side("20 seconds", every="20s"), "2026-11-21T08:30", "", [], []),
        (_side("@reboot", schedule="@reboot"), _local("0 9 * * *"), "2026-11-21T08:30", "", [], []),
    ],
)  # fmt: skip
def test_a_run_that_is_left_out_or_comes_twice_is_named(
    before: Snapshot, after: Snapshot, now: str, last: str, skipped: list[str], doubled: list[str]
) -> None:
    """The old runs up to now and the new ones from now on are compared with either alone."""
    times = _times(before, after, now)
    assert (_runs(times.skipped), _runs(times.doubled)) == (skipped, doubled)
    assert _runs((times.last_run,) if times.last_run else ()) == [last] * bool(last)


def test_at_most_ten_runs_are_named_that_are_left_out() -> None:
    """A start in a year leaves out hundreds."""
    times = _times(_local("0 8 * * *"), _local("0 8 * * *", start_at="2027-11-24T00:00:00Z"))
    assert len(times.skipped) == 10


def test_what_becomes_inactive_has_no_more_runs() -> None:
    """Nothing is called left out: that is what was asked for."""
    times = _times(_local("0 8 * * *"), _side("0 * * * *", off=True, schedule="0 9 * * *"))
    assert times.before is not None
    assert times.after is not None
    assert (times.before.active, times.after.active) == (True, False)
    assert (times.after.next_runs, times.after.per_day, times.after.woken_per_day) == ((), 0.0, None)
    assert (times.skipped, times.doubled, times.last_run) == ((), (), None)


def test_what_becomes_active_has_runs_to_come() -> None:
    """Nothing comes twice: the last one was not run."""
    after = _local("0 9 * * *")
    times = _times(replace(after, entry=replace(make_entry("a"), active=False)), after)
    assert times.before is not None
    assert times.after is not None
    assert (times.before.next_runs, len(times.after.next_runs), times.doubled) == ((), 3, ())


def test_the_same_times_are_said_to_be_the_same() -> None:
    """An edit of the schedule that changes nothing is worth a word, and no alarm."""
    times = _times(_side("*/5 * * * *", schedule="*/5 * * * *"), _side("*/5 * * * *", every="5m"))
    assert times.same_times
    assert (times.skipped, times.doubled) == ((), ())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (_side("0 8 * * *", schedule="0 8 * * *"), _side("0 8 * * *", schedule="0 8 * * *", sql="SELECT 2")),
        (None, _side(after=["b"])),
        (None, _side(schedule="0 8 * * *")),
        (_side(), _side(timeout="5m")),
        (None, _side("0 * * * *", daily="08:00", timezone="Mars/Olympus")),
        (None, _side("61 * * * *")),
        (None, Snapshot(document="[]", entry=None)),
    ],
)
def test_what_does_nothing_in_time_has_no_times(before: Snapshot | None, after: Snapshot) -> None:
    """Another body, no entry, no trigger of time, and what cannot be known here."""
    assert _find(before, after) is None


def test_an_adoption_changes_no_times() -> None:
    """The entry stays, and only our mark is set."""
    before = Snapshot(document="", entry=make_entry("a", schedule="0 8 * * *"))
    assert _find(before, _side("0 8 * * *", daily="08:00"), action="adopt") is None
    assert _times(before, _side("0 8 * * *", daily="08:00")).same_times


def test_an_entry_that_is_taken_over_had_its_own_times() -> None:
    """Nobody declared it: its schedule is all that is known."""
    before = Snapshot(document="", entry=make_entry("a", schedule="0 7 * * *"))
    times = _times(before, _side("0 8 * * *", schedule="0 8 * * *"))
    assert times.before is not None
    assert times.before.words == "every day at 07:00 GMT"


def test_drift_is_seen_in_time() -> None:
    """What the document says is not what happened: the altered entry fires."""
    after = _side("0 8 * * *", schedule="0 8 * * *")
    times = _times(_side("0 7 * * *", schedule="0 8 * * *"), after)
    assert times.before is not None
    assert times.after is not None
    assert (times.before.words, times.after.words) == ("every day at 07:00 GMT", "every day at 08:00 GMT")


def test_a_direct_job_is_shown_in_its_own_zone() -> None:
    """Its entry is exact, so that the document says more of what is meant, where nobody altered the entry."""
    fields: dict[str, Any] = {"daily": "08:00", "timezone": "Asia/Kolkata", "mode": "direct"}
    times = _times(_side("30 1 * * *", **{**fields, "daily": "07:00"}), _side("30 2 * * *", **fields))
    assert times.before is not None
    assert times.after is not None
    assert times.after.words == "every day at 08:00 Asia/Kolkata"
    assert times.before.words == "every day at 01:30 GMT"
    assert _find(_side("30 2 * * *", **fields), _side("30 2 * * *", **fields, timeout="5m")) is None


def test_a_renamed_job_is_put_off_by_its_new_name() -> None:
    """The spread goes by the name; the times before are those of the old one."""
    side = _side("* * * * *", daily="08:00", spread="24h")
    times = _times(side, side, renamed_from="b")
    assert times.before is not None
    assert times.after is not None
    assert times.before.next_runs != times.after.next_runs
    assert _find(side, side) is None


def test_a_one_time_job_has_one_run() -> None:
    """It needs no entry; an inactive one does not run."""
    instant = "2026-12-01T08:00:00Z"
    times = _times(None, _side(once=instant))
    assert times.after is not None
    assert times.after.next_runs == (datetime(2026, 12, 1, 8, tzinfo=UTC),)
    assert (times.after.per_day, times.after.by_clock) == (0.0, True)
    inactive = _times(None, _side(once=instant, active=False, payload={"active": True})).after
    assert inactive is not None
    assert (inactive.active, inactive.next_runs) == (False, ())


def test_what_no_clock_decides_is_no_end() -> None:
    """What runs whenever the launcher starts, or some seconds after its last start, has no times to tell."""
    for schedule, rate in (("@reboot", 0), ("30 seconds", 2880)):
        after = _times(None, _side(schedule, schedule=schedule)).after
        assert after is not None
        assert (after.next_runs, after.per_day, after.by_clock) == ((), rate, False)


def test_a_worker_has_times_too() -> None:
    """Its entry calls its endpoint."""
    times = _times(
        _side("0 * * * *", schedule="0 * * * *"), _side("*/5 * * * *", schedule="*/5 * * * *"), kind="worker"
    )
    assert times.before is not None
    assert times.after is not None
    assert (times.before.per_day, times.after.per_day) == (24.0, 288.0)


_OLD, _NEW = _side("0 7 * * *", schedule="0 7 * * *"), _side("0 8 * * *", schedule="0 8 * * *")
_OFF = _side("0 7 * * *", off=True, schedule="0 7 * * *")
_STAYS = "apply does not stop it: it goes on with what it began with"
_KILLED = "pg_cron ends it if its entry started it, and the log calls it lost"
_LEFT = "its statement goes on to the end, though pg_cron calls it canceled"
_EITHER = f"where jobs run in background workers, {_KILLED}; elsewhere {_LEFT}"


def _facts(workers: str = "off", **changed: Any) -> Facts:
    settings = {"use_background_workers": workers} if workers else {}
    return make_facts(**{"settings": settings, **changed})


@pytest.mark.parametrize(
    ("before", "after", "facts", "fate"),
    [
        (_OLD, _NEW, _facts(), _STAYS),
        (_OLD, _NEW, _facts("on"), _STAYS),
        (_OLD, None, _facts(), _LEFT),
        (_OLD, None, _facts("on"), _KILLED),
        (_OLD, None, _facts(""), _EITHER),
        (_OLD, _OFF, _facts("on"), _KILLED),
        (_OFF, _OLD, _facts("on"), _STAYS),
        (_OLD, _side(after=["b"]), _facts("on"), _KILLED),
        (_side(once="2026-12-01T08:00:00Z"), None, _facts("on"), _STAYS),
        # A role that may neither alter nor rename takes the entry away and makes it anew.
        (
            _OLD,
            replace(_OLD, entry=make_entry("a", command="SELECT 2")),
            _facts("on", rights=replace(ALL_RIGHTS, alter_job=False)),
            _STAYS,
        ),
        (
            _OLD,
            replace(_OLD, entry=make_entry("b")),
            _facts("on", rights=replace(ALL_RIGHTS, update_entries=False)),
            _KILLED,
        ),
        (_side("* * * * *", handler="work.do"), None, _facts("on"), "a worker goes on with it"),
        (
            _side("* * * * *", http={"url": "https://a.test"}),
            None,
            _facts("on", extensions=frozenset({"pg_net"})),
            "its request was sent and is not taken back",
        ),
        (_side("* * * * *", http={"url": "https://a.test"}), None, _facts("on"), _KILLED),
    ],
)
def test_what_becomes_of_a_run_that_goes_on_is_said(
    before: Snapshot, after: Snapshot | None, facts: Facts, fate: str
) -> None:
    """As pg_cron 1.4 to 1.6 were seen to do it, over connections and in background workers."""
    times = _times(before, after, running=(_RUN,), facts=facts)
    assert (times.running, times.fate) == ((_RUN,), fate)


def test_a_run_that_goes_on_is_told_whatever_changes() -> None:
    """Also where no time changes, and where the zone is not known here; not where there is none."""
    other = replace(_OLD, document=render_canonical({"schedule": "0 7 * * *", "sql": "SELECT 2"}))
    assert _find(_OLD, other, running=(_RUN,), facts=_facts()) == ChangeTimes(running=(_RUN,), fate=_STAYS)
    assert _find(_OLD, other, facts=_facts()) is None
    lost = _side("0 7 * * *", daily="08:00", timezone="Mars/Olympus")
    assert _find(_OLD, lost, running=(_RUN,)) == ChangeTimes(running=(_RUN,))


def test_nothing_becomes_of_a_run_where_nothing_is_done() -> None:
    """A change that is refused leaves everything as it is."""
    obstacle = Obstacle(kind="refused", why="x", remedy="y")
    assert _times(_OLD, None, running=(_RUN,), facts=_facts(), obstacle=obstacle).fate == ""
    assert _times(None, _NEW, running=(_RUN,), facts=_facts()).fate == ""


def test_a_plan_finds_times_when_they_are_asked_for() -> None:
    """By name, with the runs of the name that a job had; a change without times is not there."""
    changes = {
        "a": _change(_OLD, _NEW, renamed_from="old"),
        "b": _change(None, _side(after=["a"]), name="b"),
    }
    timeline = Timeline(
        changes=changes,
        facts=make_facts(),
        server_zone="GMT",
        now=_at("2026-11-21T08:30") + timedelta(0),
        running={"old": (_RUN,), "b": ()},
    )
    assert (list(timeline), len(timeline), timeline.get("b"), "b" in timeline) == (["a"], 1, None, False)
    assert timeline["a"].running == (_RUN,)
