"""Read the keys of a job that say when it runs; knows no place and no layer of a declaration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo, available_timezones

from reconciler.core.durations import parse_duration
from reconciler.core.names import find_nearest
from reconciler.core.times.cron_fields import INTERVAL, START_WORDS
from reconciler.loader.blackout_windows import canonical_windows
from reconciler.loader.instants import is_local, read_moment, render_instant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_LIMITS: Final = ("start_at", "end_at", "blackout")
_TURNS: Final = ("ambiguous", "nonexistent")
_LOCAL: Final = frozenset({"daily", "weekly", "monthly"})
_WHY_NOT_LOCAL: Final = {
    "every": "which has no local times",
    "once": "which is one moment",
    "after": "which has no time of its own",
    "schedule": "since this one has no local times",
}
_WHY_NO_ZONE: Final = {
    "every": "an interval has no zone",
    "once": "its offset says the zone",
    "after": "which has no time of its own",
    "schedule": "since this one has no local times",
}
_WITHOUT_SUMMER_TIME: Final = {
    "CET": "Europe/Paris",
    "MET": "Europe/Paris",
    "EET": "Europe/Athens",
    "WET": "Europe/Lisbon",
    "EST": "America/New_York",
    "MST": "America/Denver",
    "HST": "Pacific/Honolulu",
}
# What these mean depends on the machine.
_NOWHERE: Final = frozenset({"localtime", "posixrules", "Factory"})
_MINUTE: Final = 60


def find_time_conflicts(trigger: str, value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Find keys about times that do not go with the trigger of a job, but for its zone.

    Args:
        trigger: The key of the trigger.
        value: What is declared, before it is canonical.

    Yields:
        A key, and why it does not go.
    """
    if trigger == "once":
        for key in _LIMITS:
            if key in value:
                yield key, f"{key} does not go with once, which is one moment: leave it out"
    if "spread" in value:
        why = _find_why_not_spread(trigger, value[trigger])
        if why:
            yield "spread", f"spread does not go with {trigger}, {why}: leave it out"
    if not _is_local_trigger(trigger, value[trigger]):
        for key in _TURNS:
            if key in value:
                yield key, f"{key} does not go with {trigger}, {_WHY_NOT_LOCAL[trigger]}: leave it out"


def find_idle_zone(trigger: str, value: Mapping[str, Any]) -> str:
    """Say why the zone of a job means nothing.

    Args:
        trigger: The key of the trigger.
        value: What is declared, before it is canonical.

    Returns:
        Why it does not go; "" where there is no zone, or something that it holds for.
    """
    if "timezone" not in value or value.get("blackout") or _is_local_trigger(trigger, value[trigger]):
        return ""
    if any(is_local(value[key]) for key in ("once", "start_at", "end_at") if key in value):
        return ""
    return f"timezone does not go with {trigger}, {_WHY_NO_ZONE[trigger]}: leave it out"


def make_time_rules(zone: str) -> dict[str, Callable[[Any], Any]]:
    """Make what gives the moments and windows of a job their canonical form.

    Args:
        zone: In which its local times are meant, sound; "" for none.

    Returns:
        Functions by key, as in `canonical_values.RULES`.
    """
    place = ZoneInfo(zone) if zone else None

    def read(text: str) -> str:
        return render_instant(read_moment(text, place))

    def read_limit(text: str) -> str:
        return render_instant(read_moment(text, place, takes_date=True))

    return {"once": read, "start_at": read_limit, "end_at": read_limit, "blackout": canonical_windows}


def find_zone_fault(name: str) -> str:
    """Say why a zone cannot be used.

    Args:
        name: Of the zone.

    Returns:
        What is wrong and what to write; "" where it can be.
    """
    better = _WITHOUT_SUMMER_TIME.get(name)
    if better:
        return (
            f"PostgreSQL takes {name!r} for an abbreviation, which has no summer time: write a place, "
            f"such as {better!r}"
        )
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        is_known = False
    else:
        is_known = name not in _NOWHERE and not name.startswith(("posix/", "right/"))
    if is_known:
        return ""
    nearest = find_nearest(name, available_timezones() - _NOWHERE - _WITHOUT_SUMMER_TIME.keys())
    remedy = f"did you mean {nearest!r}?" if nearest else "write one such as Europe/Oslo, or UTC"
    return f"there is no time zone {name!r}; {remedy}"


def _is_local_trigger(trigger: str, value: Any) -> bool:
    if trigger == "schedule":
        return INTERVAL.fullmatch(value) is None and value not in START_WORDS
    return trigger in _LOCAL


def _find_why_not_spread(trigger: str, value: Any) -> str:
    if trigger == "once":
        return "which is one moment"
    if trigger == "after":
        return "which has no time of its own"
    if trigger == "schedule" and value in START_WORDS:
        return "which no clock decides"
    if (trigger == "schedule" and INTERVAL.fullmatch(value)) or (trigger == "every" and _is_seconds(value)):
        return "which comes more than once a minute"
    return ""


def _is_seconds(every: str) -> bool:
    try:
        return parse_duration(every).total_seconds() < _MINUTE
    except ValueError:
        return False
