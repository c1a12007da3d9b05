"""Read the windows of `blackout`: give them one canonical form, and refuse odd ones."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final

from reconciler.core.canonical import render_canonical
from reconciler.core.declared_times import DAYS, make_blackouts
from reconciler.loader.canonical_values import OMIT, UnreadableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from reconciler.core.specs import Blackout

_CLOCK: Final = re.compile(r"([01]?[0-9]|2[0-4]):([0-5][0-9])", re.ASCII)
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_DAY: Final = 1440
_WEEK: Final = 7 * _DAY


def canonical_windows(windows: Sequence[dict[str, Any]]) -> Any:
    """Give windows their one canonical form.

    Whole days have no times, every day has no `on`, and the end of a day is 24:00.

    Args:
        windows: As the schema takes them.

    Returns:
        Windows without duplicates, sorted; `OMIT` where there are none.

    Raises:
        UnreadableError: One of them is odd, which the path begins with, or they leave no moment.
    """
    found = {}
    for number, window in enumerate(windows):
        canonical = canonical_window(window, number)
        found[render_canonical(canonical)] = canonical
    ordered = [found[text] for text in sorted(found)]
    if _covers_weeks(make_blackouts(ordered)):
        raise UnreadableError(
            "the blackout leaves no moment of the week, so no run would ever start: "
            "leave a gap, give it dates, or write active: false"
        )
    return ordered or OMIT


def canonical_window(window: dict[str, Any], number: int = 0) -> dict[str, Any]:
    """Give one window its canonical form.

    Args:
        window: As the schema takes it.
        number: Where it is in its list; the path of a fault begins with it.

    Returns:
        What `make_blackouts` reads.

    Raises:
        UnreadableError: It is odd.
    """
    result: dict[str, Any] = {}
    if "from" in window:
        start, end = (_read_clock(window[key], (number, key)) for key in ("from", "to"))
        if start == end:
            raise UnreadableError(
                f"from and to are both {window['to']}: write to: 24:00 for the end of the day, "
                "or leave both out for whole days",
                (number, "to"),
            )
        if (start, end) != (0, _DAY):
            result |= {"from": _render_minutes(start), "to": _render_minutes(end or _DAY)}
    days = [day for day in DAYS if day in window.get("on", DAYS)]
    if len(days) < len(DAYS):
        result["on"] = days
    dates = {key: _read_date(window[key], (number, key)) for key in ("first", "last") if key in window}
    result |= {key: day.isoformat() for key, day in dates.items()}
    if len(dates) == 2:
        _check_dates(dates["first"], dates["last"], days, number)
    return result


def _check_dates(first: date, last: date, days: list[str], number: int) -> None:
    if last < first:
        raise UnreadableError(
            f"last is {last}, which is before first, {first}: exchange them, or write a later last",
            (number, "last"),
        )
    dates = (first + timedelta(days=later) for later in range(min((last - first).days + 1, 7)))
    if not any(DAYS[day.isoweekday() % 7] in days for day in dates):
        raise UnreadableError(
            f"there is no {' or '.join(days)} from {first} to {last}, so this window never begins: "
            "leave on out, or the window",
            (number, "on"),
        )


def _covers_weeks(windows: Iterable[Blackout]) -> bool:
    """Tell whether the windows without dates leave no minute of any week."""
    spans: list[tuple[int, int]] = []
    for window in windows:
        if window.first is None and window.last is None:
            length = window.end - window.start + (_DAY if window.end <= window.start else 0)
            for day in window.days or range(7):
                start = day * _DAY + window.start
                spans += [(start, start + length), (start - _WEEK, start - _WEEK + length)]
    reached = 0
    for start, end in sorted(spans):
        if start > reached:
            break
        reached = max(reached, end)
    return reached >= _WEEK


def _read_clock(text: str, path: tuple[int, str]) -> int:
    found = _CLOCK.fullmatch(text)
    minutes = int(found[1]) * 60 + int(found[2]) if found else _WEEK
    if minutes > (_DAY if path[1] == "to" else _DAY - 1):
        raise UnreadableError(f"{text!r} is no time of day: write hours and minutes, such as 02:30", path)
    return minutes


def _render_minutes(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _read_date(text: str, path: tuple[int, str]) -> date:
    fault = "write year, month and day, such as 2026-12-24"
    if _DATE.fullmatch(text):
        try:
            return date.fromisoformat(text)
        except ValueError as error:
            fault = f"{error}; write one that exists"
    raise UnreadableError(f"{text!r} is no date: {fault}", path)
