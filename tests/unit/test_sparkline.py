"""What status and runs are spelt with: sparklines, durations, ages, local times, tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
import pytest

from reconciler.cli.sparkline import is_plain, render_sparkline
from reconciler.cli.tables import render_json_rows, render_table, shorten
from reconciler.cli.times import render_age, render_instant, render_length, render_local

AT = datetime(2026, 12, 1, 8, 0, tzinfo=UTC)


def draw(*runs: float | str, plain: bool = False) -> str:
    """Draw runs, given as seconds of good ones or as the status of others, without colours."""
    statuses = [run if isinstance(run, str) else "succeeded" for run in runs]
    seconds = [None if run == "running" else 0.1 if isinstance(run, str) else run for run in runs]
    return click.unstyle(render_sparkline(statuses, seconds, plain=plain))


@pytest.mark.parametrize(
    ("runs", "blocks", "digits"),
    [
        ((), "", ""),
        ((1.0, 1.0, 1.0), "▅▅▅", "555"),
        ((1.0, 2.0, 8.0), "▂▃█", "238"),
        ((0.0, 0.0), "▁▁", "11"),
        ((3600.0,), "▅", "5"),
        ((1.0, "failed", "timed_out", "lost"), "▅✗✗✗", "5xxx"),
        (("skipped", "cancelled", "running"), "·✗»", ".x>"),
        # A failure after an hour does not flatten the good runs.
        ((1.0, 1.0, "failed"), "▅▅✗", "55x"),
    ],
)
def test_sparkline(runs: tuple[float | str, ...], blocks: str, digits: str) -> None:
    """Each run is one character: its height against the usual length, or the sign of how it ended."""
    assert draw(*runs) == blocks
    assert draw(*runs, plain=True) == digits


def test_sparkline_colours() -> None:
    """Failures are red, good and skipped runs have no colour."""
    text = render_sparkline(["succeeded", "failed", "skipped"], [1.0, 1.0, 0.0])
    assert text == "▅" + click.style("✗", fg="red") + "·"


@pytest.mark.parametrize(
    ("encoding", "is_terminal", "term", "plain"),
    [
        ("utf-8", True, "xterm-256color", False),
        ("utf-8", False, "xterm-256color", True),
        ("utf-8", True, "dumb", True),
        ("latin-1", True, "xterm", True),
        ("ascii", True, "", True),
        ("no-such-encoding", True, "xterm", True),
    ],
)
def test_plain_terminals(*, encoding: str, is_terminal: bool, term: str, plain: bool) -> None:
    """Only a terminal whose encoding has the blocks gets them."""
    assert is_plain(encoding=encoding, is_terminal=is_terminal, term=term) is plain


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (-5, "0.0 ms"),
        (0, "0.0 ms"),
        (0.37, "0.4 ms"),
        (9.94, "9.9 ms"),
        (9.96, "10 ms"),
        (999.4, "999 ms"),
        (999.6, "1.0 s"),
        (1234, "1.2 s"),
        (59_940, "59.9 s"),
        (59_960, "1m 00s"),
        (125_400, "2m 05s"),
        (3_599_600, "1h 00m"),
        (3_661_000, "1h 01m"),
        (86_399_600, "1d 00h"),
        (4 * 86_400_000 + 2 * 3_600_000, "4d 02h"),
    ],
)
def test_lengths(milliseconds: float, text: str) -> None:
    """A duration is spelt in two units at the most, and never rounds up to 1000 ms or 60 s."""
    assert render_length(timedelta(milliseconds=milliseconds)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-30, "now"),
        (0.5, "now"),
        (1, "1s ago"),
        (59.9, "59s ago"),
        (60, "1m ago"),
        (3599, "59m ago"),
        (3600, "1h ago"),
        (86_399, "23h ago"),
        (86_400, "1d ago"),
        (40 * 86_400, "40d ago"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    """An age is spelt in the largest unit that it fills."""
    assert render_age(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("at", "zone", "text"),
    [
        (AT, "GMT", "2026-12-01 08:00Z"),
        (AT, "UTC", "2026-12-01 08:00Z"),
        (AT, "Europe/Oslo", "2026-12-01 09:00 CET"),
        (AT + timedelta(days=200), "Europe/Oslo", "2027-06-19 10:00 CEST"),
        (AT + timedelta(seconds=5), "GMT", "2026-12-01 08:00:05Z"),
        (AT + timedelta(seconds=5), "Europe/Oslo", "2026-12-01 09:00:05 CET"),
        (AT, "Mars/Olympus", "2026-12-01 08:00Z"),
        (AT, "", "2026-12-01 08:00Z"),
    ],
)
def test_local_times(at: datetime, zone: str, text: str) -> None:
    """A time is that of the zone's clocks; a zone that is not known here counts as UTC."""
    assert render_local(at, zone) == text


def test_instants() -> None:
    """An instant is shown in UTC, whatever its own zone."""
    east = AT.astimezone(datetime.fromisoformat("2026-01-01T00:00:00+05:30").tzinfo)
    assert render_instant(east) == "2026-12-01 08:00:00Z"
    assert render_instant(east, fine=False) == "2026-12-01 08:00Z"


def test_table_widths_ignore_colours() -> None:
    """Columns line up by what is seen, and no line ends with blanks."""
    text = render_table(("a", "b"), [(click.style("xx", fg="red"), "1"), ("y", "")])
    assert click.unstyle(text).splitlines() == ["a   b", "xx  1", "y"]


def test_json_rows_are_json() -> None:
    """Each object has a line of its own, and nothing gives an empty list."""
    assert render_json_rows([{"a": "ø"}, {"a": 1}]) == '[\n  {"a": "ø"},\n  {"a": 1}\n]'
    assert render_json_rows([]) == "[]"


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("all of it", "all of it"),
        ("0123456789", "0123456789"),
        ("0123456789x", "0123456..."),
        ("one\ntwo", "one ..."),
        ("one\n\n", "one"),
        ("0123456789\ntwo", "0123456789"),
        ("", ""),
    ],
)
def test_shortening(text: str, short: str) -> None:
    """A text is cut to its first line and to a width."""
    assert shorten(text, 10) == short
