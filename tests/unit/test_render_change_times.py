from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest

from reconciler.cli import render_text
from reconciler.cli.render_change_times import list_lines, list_warnings, render_rate
from reconciler.core.change_times import ChangeTimes, TimesView
from reconciler.core.changes import Change, Snapshot
from reconciler.core.plan import Plan
from reconciler.core.plan_documents import render_times
from reconciler.core.state import Running
from tests.core_builders import make_document, make_entry

_EIGHT = datetime(2026, 11, 22, 7, tzinfo=UTC)
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


def _view(at: datetime = _EIGHT, **changed: Any) -> TimesView:
    values: dict[str, Any] = {
        "words": f"every day at {at + _HOUR:%H:%M} Europe/Oslo",
        "zone": "Europe/Oslo",
        "next_runs": (at, at + _DAY, at + 2 * _DAY),
        "per_day": 1.0,
    }
    return TimesView(**values | changed)


_NEXT = "2026-11-22 08:00 CET, 2026-11-23 08:00 CET, 2026-11-24 08:00 CET"
_LATER = "2026-11-22 09:00 CET, 2026-11-23 09:00 CET, 2026-11-24 09:00 CET"
_OFF = _view(active=False, next_runs=(), per_day=0.0)


@pytest.mark.parametrize(
    ("times", "lines"),
    [
        (
            ChangeTimes(after=_view(woken_per_day=4.0)),
            [("runs", "every day at 08:00 Europe/Oslo"), ("next", _NEXT)],
        ),
        (ChangeTimes(after=_OFF), [("runs", "every day at 08:00 Europe/Oslo (inactive)")]),
        (ChangeTimes(after=_view(words="once, at noon", per_day=0.0)), [("runs", "once, at noon")]),
        (ChangeTimes(after=_view(words="often", next_runs=(), by_clock=False)), [("runs", "often")]),
        (ChangeTimes(before=_view()), [("runs", "every day at 08:00 Europe/Oslo → no more")]),
        (
            ChangeTimes(before=_view(), after=_view(_EIGHT + _HOUR, per_day=24.0, woken_per_day=48.0)),
            [
                ("runs", "every day at 08:00 Europe/Oslo → every day at 09:00 Europe/Oslo"),
                ("next", f"{_NEXT} → {_LATER}"),
                ("rate", "1/day → 24/day (woken 48/day)"),
            ],
        ),
        (
            ChangeTimes(before=_view(), after=_OFF),
            [
                ("runs", "every day at 08:00 Europe/Oslo → every day at 08:00 Europe/Oslo (inactive)"),
                ("next", f"{_NEXT} → none, inactive"),
                ("rate", "1/day → none"),
            ],
        ),
        (
            ChangeTimes(before=_view(), after=_view(words="in vain", next_runs=())),
            [
                ("runs", "every day at 08:00 Europe/Oslo → in vain"),
                ("next", f"{_NEXT} → none to come"),
                ("rate", "1/day"),
            ],
        ),
        (
            ChangeTimes(before=_OFF, after=_view(words="@", next_runs=(), per_day=0.0, by_clock=False)),
            [
                ("runs", "every day at 08:00 Europe/Oslo (inactive) → @"),
                ("next", "none, inactive → none by the clock"),
            ],
        ),
        (
            ChangeTimes(before=_view(words="other"), after=_view(), same_times=True),
            [("runs", "every day at 08:00 Europe/Oslo (the same times as before)")],
        ),
        (ChangeTimes(running=(Running(run_id=1, run_at=_EIGHT),)), []),
    ],
)
def test_times_before_and_after_stand_beside_each_other(
    times: ChangeTimes, lines: list[tuple[str, str]]
) -> None:
    """In words, as the next runs by the clocks of each side's zone, and as a rate."""
    assert list(list_lines(times)) == lines


@pytest.mark.parametrize(
    ("times", "warnings"),
    [
        (ChangeTimes(before=_view(), after=_view()), []),
        (
            ChangeTimes(
                before=_view(),
                after=_view(zone="UTC"),
                last_run=_EIGHT - _DAY,
                doubled=(_EIGHT - _DAY + _HOUR,),
            ),
            ["was due at 2026-11-21 08:00 CET, and would run again at 2026-11-21 08:00Z"],
        ),
        (
            ChangeTimes(before=_view(), after=_view(zone="UTC"), last_run=_EIGHT, skipped=(_EIGHT + _DAY,)),
            ["the run at 2026-11-23 08:00 CET would be left out; last due at 2026-11-22 08:00 CET"],
        ),
        (
            ChangeTimes(
                before=_view(), after=_view(), last_run=_EIGHT, skipped=(_EIGHT + _DAY, _EIGHT + 2 * _DAY)
            ),
            [f"the runs at {_NEXT[22:]} would be left out; last due at 2026-11-22 08:00 CET"],
        ),
        (
            ChangeTimes(
                before=_view(),
                running=(
                    Running(run_id=8, run_at=_EIGHT + timedelta(microseconds=7)),
                    Running(run_id=9, run_at=_EIGHT + timedelta(seconds=7)),
                ),
                fate="it ends",
            ),
            [
                "running now: run 8, since 2026-11-22 08:00 CET; it ends",
                "running now: run 9, since 2026-11-22 08:00:07 CET; it ends",
            ],
        ),
        (
            ChangeTimes(running=(Running(run_id=8, run_at=_EIGHT),)),
            ["running now: run 8, since 2026-11-22 07:00Z"],
        ),
    ],
)
def test_what_to_be_warned_of_is_said(times: ChangeTimes, warnings: list[str]) -> None:
    """A run left out or doubled by the clocks of its own side, and each that goes on."""
    assert list(list_warnings(times)) == warnings


@pytest.mark.parametrize(
    ("per_day", "text"),
    [
        (0, "none"),
        (2880, "2880/day"),
        (22.857, "22.9/day"),
        (1, "1/day"),
        (0.96, "1/day"),
        (5 / 7, "5/week"),
        (1 / 7, "1/week"),
        (12 / 365.25, "1/month"),
        (2 / 365.25, "2/year"),
        (0.25 / 365.25, "0.25/year"),
    ],
)
def test_a_rate_is_by_the_shortest_unit_that_has_a_run(per_day: float, text: str) -> None:
    """Nobody reads 0.033 runs a day."""
    assert render_rate(per_day) == text


def _plan(times: ChangeTimes, **changed: Any) -> Plan:
    entry = make_entry("a", jobid=1)
    change = Change(
        action="update",
        kind="job",
        name="a",
        reason="edited",
        before=Snapshot(document=make_document(), entry=entry),
        after=Snapshot(document=make_document(), entry=entry),
    )
    return Plan(target="t", owner="o", changes=(change,), times={"a": times}, **changed)


_ODD = _view(words="every *day*\x1b[31m @all <b>", zone="UTC")
_DOUBLED = ChangeTimes(before=_ODD, after=_view(), last_run=_EIGHT, doubled=(_EIGHT + _HOUR,))


def test_times_stand_under_their_change_in_text() -> None:
    """Aligned with what else is said of it, warnings marked, and harmless for a terminal."""
    text = click.unstyle(render_text.render_plan(_plan(_DOUBLED)))
    assert "\n      runs      every *day*\\x1b[31m @all <b> → every day at 08:00 Europe/Oslo\n" in text
    assert "\n      next      2026-11-22 07:00Z, 2026-11-23 07:00Z, 2026-11-24 07:00Z\n" in text
    assert f"\n              → {_NEXT}\n" in text
    assert "\n      rate      1/day\n" in text
    assert "\n      ! was due at 2026-11-22 07:00Z, and would run again at 2026-11-22 09:00 CET\n" in text


def test_json_has_instants_in_utc() -> None:
    """Fractions are left out, rates are short, and what is not there is null."""
    times = ChangeTimes(
        before=_view(per_day=1 / 3, woken_per_day=2 / 3),
        last_run=_EIGHT,
        running=(Running(run_id=8, run_at=_EIGHT + timedelta(microseconds=7)),),
        fate="it ends",
    )
    assert render_times(times) == {
        "before": {
            "words": "every day at 08:00 Europe/Oslo",
            "zone": "Europe/Oslo",
            "active": True,
            "next_runs": ["2026-11-22T07:00:00Z", "2026-11-23T07:00:00Z", "2026-11-24T07:00:00Z"],
            "per_day": 0.333333,
            "woken_per_day": 0.666667,
        },
        "after": None,
        "same_times": False,
        "last_run": "2026-11-22T07:00:00Z",
        "skipped": [],
        "doubled": [],
        "running": [{"run": 8, "since": "2026-11-22T07:00:00Z"}],
        "fate": "it ends",
    }
    assert render_times(None) is None
    empty = render_times(ChangeTimes())
    assert empty is not None
    assert (empty["last_run"], empty["fate"]) == (None, None)
