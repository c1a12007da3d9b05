"""The dashboard's pictures of runs: what they show, and what they say to those who do not see them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from reconciler.api.pages.charts import describe_durations, draw_durations, find_top
from reconciler.api.pages.drawings import describe_runs, draw_sparkline
from reconciler.api.pages.marks import draw_mark, find_tone
from reconciler.database.runs import STATUSES, Run

AT = datetime(2026, 11, 21, 8, tzinfo=UTC)


def run(seconds: float | None, status: str = "succeeded") -> Run:
    """Make a run."""
    return Run(
        source="log",
        id=7,
        name="a",
        run_at=AT,
        completed_at=None if seconds is None else AT + timedelta(seconds=seconds),
        status=status,
        trigger="schedule",
        attempt=1,
        chain_id=None,
        rows_affected=None,
        error_message=None,
        error_sqlstate=None,
        role=None,
        backend_pid=None,
    )


def test_each_bad_status_has_a_mark_of_its_own_shape() -> None:
    """So that they are told apart without colours; a state that nobody knows has a mark, too."""
    bad = [status for status in STATUSES if find_tone(status) == "bad"]
    assert bad == ["failed", "timed_out", "lost"]
    shapes = {re.search(r' d="([^"]+)"', draw_mark(status))[1] for status in (*bad, "succeeded", "running")}  # type: ignore[index] # it has one
    assert len(shapes) == 5
    assert "quiet" in draw_mark("<new>")


def test_a_sparkline_says_in_words_what_it_shows() -> None:
    """The newest run is on the right; a usual length is of half height."""
    picture = draw_sparkline(
        ["failed", "succeeded", "succeeded", "skipped", "running"], [0.5, 2.0, 2.0, 0.0, None]
    )
    assert (
        'aria-label="last 5 runs: 2 succeeded, 1 failed, 1 skipped, 1 running; the newest failed in 500 ms"'
        in picture
    )
    assert "M108 11h4v11h-4zM102 11h4v11h-4z" in picture
    assert '<path class="bad" d="M114 0h4v13h-4zM114 17h4v5h-4z"/>' in picture
    assert draw_sparkline([], []) == ""
    assert describe_runs(["running"], [None]) == "last run: 1 running; the newest running"
    assert "v2h" in draw_sparkline(["succeeded"], [0.0])


def test_a_chart_marks_what_failed() -> None:
    """By a cross above its bar; the limit is a line where it is near."""
    runs = [run(8.0, "failed"), run(1.0), run(None, "running"), run(0.0, "skipped")]
    picture = draw_durations(runs, timedelta(seconds=9))
    assert picture.count("<rect") == 3
    assert picture.count('class="signs"') == 1
    assert "time limit 9.0 s" in picture
    assert "<span>10 s</span><span>5 s</span><span>0</span>" in picture
    assert "run 7 · 2026-11-21 08:00:00Z · failed · 8.0 s" in picture
    assert "time limit" not in draw_durations(runs, timedelta(seconds=99))
    assert draw_durations([run(None, "running")]) == ""


def test_a_chart_says_in_words_what_it_shows() -> None:
    """How long half of the runs took at most, the longest, and how many did not succeed."""
    assert describe_durations([run(1.0), run(2.0, "failed"), run(3.0)]) == (
        "How long 3 runs took: half of them at most 2.0 s, the longest 3.0 s; 1 failed"
    )
    assert describe_durations([run(1.0)]).startswith("How long a run took: ")
    assert describe_durations([run(0.0, "skipped")]) == "1 run; 1 skipped"


@pytest.mark.parametrize(
    ("longest", "top"),
    [(0.0, 0.001), (0.0012, 0.002), (0.9, 1), (3, 5), (5.5, 10), (61, 120), (7201, 14400), (90_000, 115_200)],
)
def test_a_scale_ends_at_a_round_number(longest: float, top: float) -> None:
    """Of seconds, minutes or hours."""
    assert find_top(longest) == pytest.approx(top)
