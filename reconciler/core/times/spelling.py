"""Spell durations and instants as people read them at a glance, on the terminal and on pages; pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)
_MINUTE = timedelta(minutes=1)
_SECOND = timedelta(seconds=1)
_PLAIN_ZONES = frozenset({"GMT", "UTC", "Etc/UTC", "Etc/GMT", "Z", "Zulu"})


def render_length(duration: timedelta) -> str:
    """Render how long something took.

    Args:
        duration: Any; one below nothing, by a clock that was set back, counts as nothing.

    Returns:
        Two units at the most, such as `0.4 ms`, `12 ms`, `1.2 s`, `2m 05s`, `3h 12m` or `4d 02h`.
    """
    duration = max(duration, timedelta(0))
    milliseconds = duration / timedelta(milliseconds=1)
    # Each limit is where the next unit's rounding begins, so that 999.7 ms is 1.0 s and not 1000 ms.
    if milliseconds < 9.95:
        return f"{milliseconds:.1f} ms"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = timedelta(seconds=round(seconds))
    if whole < _HOUR:
        return f"{whole // _MINUTE}m {whole % _MINUTE // _SECOND:02d}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h {whole % _HOUR // _MINUTE:02d}m"
    return f"{whole // _DAY}d {whole % _DAY // _HOUR:02d}h"


def render_age(age: timedelta) -> str:
    """Render how long ago something was.

    Args:
        age: From then to now; below nothing where the clocks differ.

    Returns:
        One unit, such as `now`, `12s ago`, `2m ago`, `3h ago` or `4d ago`.
    """
    if age < _SECOND:
        return "now"
    for unit, size in (("d", _DAY), ("h", _HOUR), ("m", _MINUTE)):
        if age >= size:
            return f"{age // size}{unit} ago"
    return f"{age // _SECOND}s ago"


def render_distance(at: datetime, now: datetime) -> str:
    """Render how far an instant is from now.

    Args:
        at: Aware.
        now: Aware.

    Returns:
        One unit, such as `now`, `12s ago` or `in 2m`.
    """
    return f"in {render_age(at - now).removesuffix(' ago')}" if at - now >= _SECOND else render_age(now - at)


def render_instant(at: datetime, *, fine: bool = True) -> str:
    """Render an instant in UTC.

    Args:
        at: Aware.
        fine: With seconds.

    Returns:
        For instance `2026-11-22 02:30:00Z`.
    """
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ" if fine else "%Y-%m-%d %H:%MZ")


def render_local(at: datetime, zone: str) -> str:
    """Render an instant as the clocks of a zone show it, to the minute where it is a full one.

    Args:
        at: Aware.
        zone: A zone's name; one that is not known here is taken for UTC.

    Returns:
        For instance `2026-11-22 02:30 CET`, or `2026-11-22 01:30Z` where the zone is UTC.
    """
    fine = at.second != 0
    if zone in _PLAIN_ZONES:
        return render_instant(at, fine=fine)
    try:
        local = at.astimezone(ZoneInfo(zone))
    except (KeyError, ValueError, OSError):
        return render_instant(at, fine=fine)
    return local.strftime("%Y-%m-%d %H:%M:%S %Z" if fine else "%Y-%m-%d %H:%M %Z")
