"""When an apply is allowed: windows of the week, and freezes; pure.

Times are on the clocks of the windows' own zone. Where these are set back, a time that comes twice is in a
window both times.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Final

from reconciler.core.times.blackouts import NEVER, find_blackout_end
from reconciler.core.times.clocks import find_zone, read_clock, to_instant, to_seconds
from reconciler.core.times.words import describe_instant, describe_window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.core.specs import Blackout

_DAY: Final = timedelta(days=1)
_MINUTE: Final = timedelta(minutes=1)
# A week and the day that is begun: each weekday comes with each of its times.
_LOOK: Final = 9
# More freezes in a row than this are no end of them.
_MOST: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """A time without any apply.

    Attributes:
        window: When.
        because: Why, for people; "" if nobody said.
    """

    window: Blackout
    because: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeWindows:
    """When a target may be changed.

    Attributes:
        allow: An apply has to begin in one of these; () for at any time.
        freezes: And in none of these.
        timezone: In which they are meant.
    """

    allow: tuple[Blackout, ...] = ()
    freezes: tuple[Freeze, ...] = ()
    timezone: str = "UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Closure:
    """Why an apply is not allowed now.

    Attributes:
        why: For people.
        opens_at: The next moment at which one is, aware; None where there is none.
    """

    why: str
    opens_at: datetime | None


def find_closure(windows: ChangeWindows, *, now: datetime) -> Closure | None:
    """Find why an apply is not allowed.

    Args:
        windows: Of the target.
        now: An aware instant.

    Returns:
        The reason and when it ends; None where it is allowed.

    Raises:
        ValueError: There is no such zone.
    """
    wall = now.astimezone(find_zone(windows.timezone)).replace(tzinfo=None, fold=0)
    frozen = [freeze for freeze in windows.freezes if find_blackout_end(wall, (freeze.window,)) is not None]
    if not frozen and _is_open(wall, windows.allow):
        return None
    shown = f"it is {wall:%a} {describe_instant(now, windows.timezone)}"
    if frozen:
        reasons = "; ".join(
            describe_window(freeze.window) + (f" ({freeze.because})" if freeze.because else "")
            for freeze in frozen
        )
        why = f"{shown}, and apply is frozen {reasons}"
    else:
        open_when = "; ".join(describe_window(window) for window in windows.allow)
        why = f"{shown}, and apply is open {open_when}"
    opening = _find_opening(wall, windows)
    return Closure(
        why=f"{why} {windows.timezone}",
        opens_at=None if opening is None else to_moment(opening, windows.timezone, after=now),
    )


def find_window_end(window: Blackout, timezone: str, *, now: datetime) -> datetime | None:
    """Find when a window that is open now is over.

    Args:
        window: Any.
        timezone: In which it is meant.
        now: An aware instant.

    Returns:
        The first instant after it, `datetime.max` in UTC where there is none; None where it is not open.

    Raises:
        ValueError: There is no such zone.
    """
    wall = now.astimezone(find_zone(timezone)).replace(tzinfo=None, fold=0)
    end = find_blackout_end(wall, (window,))
    if end is None:
        return None
    return datetime.max.replace(tzinfo=UTC) if end == NEVER else to_moment(end, timezone, after=now)


def to_moment(wall: datetime, timezone: str, *, after: datetime) -> datetime:
    """Find when the clocks of a zone show a time.

    Args:
        wall: What they show, naive.
        timezone: The zone.
        after: The moment is not before this, where the time comes twice.

    Returns:
        The instant in UTC; the first moment after a time that the clocks skip.

    Raises:
        ValueError: There is no such zone.
    """
    zone, clock = find_zone(timezone), read_clock(timezone)
    instant = wall.replace(tzinfo=zone).astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None, fold=0) != wall:
        return to_instant(clock.changes[bisect_right(clock.changes, to_seconds(instant)) - 1])
    return instant if instant >= after else wall.replace(tzinfo=zone, fold=1).astimezone(UTC)


def _is_open(wall: datetime, allow: Sequence[Blackout]) -> bool:
    return not allow or find_blackout_end(wall, allow) is not None


def _find_opening(wall: datetime, windows: ChangeWindows) -> datetime | None:
    """Find the first local time, from one on, that is in a window and in no freeze."""
    freezes = [freeze.window for freeze in windows.freezes]
    for _ in range(_MOST):
        frozen = find_blackout_end(wall, freezes)
        if frozen == NEVER:
            return None
        start = frozen or wall
        if not _is_open(start, windows.allow):
            start = min(_find_start(start, window) for window in windows.allow)
        if start == NEVER:
            return None
        if start == wall and frozen is None:
            return wall
        wall = start
    return None


def _find_start(wall: datetime, window: Blackout) -> datetime:
    """Find when a window opens that is not open; `NEVER` where it does not."""
    first = max(wall.date(), window.first or date.min)
    for later in range(min(_LOOK, (date.max - first).days)):
        day = first + later * _DAY
        if window.last is not None and day > window.last:
            break
        start = datetime.combine(day, time()) + window.start * _MINUTE
        if start >= wall and (not window.days or day.isoweekday() % 7 in window.days):
            return start
    return NEVER
