"""Read of a stored document when its resource runs; pure.

A document is canonical: it was checked when it was made, and this module trusts it. What cannot be read gives
nothing, since other releases may have written it.
"""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from reconciler.core.durations import parse_duration
from reconciler.core.specs import (
    Blackout,
    Daily,
    Every,
    JobSpec,
    Monthly,
    Once,
    Place,
    Schedule,
    SqlBody,
    Succeeded,
    Trigger,
    Weekly,
)
from reconciler.core.times.month_days import DAY_NAMES, read_month_day
from reconciler.core.times.occurrences import UTC_NAMES
from reconciler.core.times.timings import divides_evenly, make_entry_timing, make_timing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from reconciler.core.specs import Kind
    from reconciler.core.times.timings import Timing

DAYS: Final = tuple(name[:3] for name in DAY_NAMES)
"""Days of the week as documents spell them, in the order of pg_cron's numbers."""

_TRIGGERS: Final = ("schedule", "every", "daily", "weekly", "monthly", "once", "after")
_OWN_TIMES: Final = frozenset({"timezone", "spread", "ambiguous", "nonexistent"})
_LIMITS: Final = frozenset({"start_at", "end_at", "blackout"})
_GUARDING: Final = _OWN_TIMES | _LIMITS
_LOCAL: Final = frozenset({"daily", "weekly", "monthly"})
_MINUTE: Final = timedelta(minutes=1)
_NO_SPREAD: Final = timedelta(0)
_NOWHERE: Final = Place(path="", line=0, column=0)
_NO_BODY: Final = SqlBody(text="")


def read_timing(
    document: str, entry_schedule: str, *, name: str, kind: Kind, server_zone: str
) -> Timing | None:
    """Read when a job or a worker runs.

    Args:
        document: Canonical JSON of the resource; "" for none.
        entry_schedule: Of its row in cron.job: it decides where the job has no time of its own that the
            guard of its runs would keep, also after somebody altered it by hand; "" goes by the document.
        name: Of the resource: it decides how far a spread puts it off.
        kind: Of the resource.
        server_zone: In which pg_cron reads schedules.

    Returns:
        The timing; None for what comes after other jobs alone, for queues and channels, and for what cannot
        be read.
    """
    if kind not in {"job", "worker"}:
        return None
    try:
        declared = json.loads(document) if document else {}
        trigger = next((key for key in _TRIGGERS if key in declared), "")
        if entry_schedule and not (kind == "job" and _is_guarded(declared, trigger, server_zone)):
            return _read_entry(entry_schedule, server_zone)
        if kind == "worker" or (trigger == "schedule" and _GUARDING.isdisjoint(declared)):
            return _read_entry(declared["schedule"], server_zone)
        return _read_job(declared, trigger, entry_schedule, name, server_zone)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def make_trigger(key: str, value: Any) -> Trigger:
    """Make a trigger.

    Args:
        key: Of the trigger.
        value: In canonical form.

    Returns:
        The trigger.
    """
    if key == "schedule":
        return Schedule(text=value)
    if key == "every":
        return Every(interval=_read_duration(value))
    if key == "once":
        return Once(at=read_instant(value))
    if key == "after":
        return Succeeded()
    hour, minute = map(int, (value if key == "daily" else value["at"]).split(":"))
    if key == "daily":
        return Daily(hour=hour, minute=minute)
    if key == "weekly":
        return Weekly(days=tuple(DAYS.index(day) for day in value["on"]), hour=hour, minute=minute)
    return Monthly(day=read_month_day(value["day"]), hour=hour, minute=minute)


def make_blackouts(windows: Iterable[Mapping[str, Any]]) -> tuple[Blackout, ...]:
    """Make typed windows.

    Args:
        windows: In canonical form.

    Returns:
        The same windows in the same order.
    """
    return tuple(
        Blackout(
            first=date.fromisoformat(window["first"]) if "first" in window else None,
            last=date.fromisoformat(window["last"]) if "last" in window else None,
            days=tuple(DAYS.index(day) for day in window.get("on", ())),
            start=_read_minutes(window.get("from", "00:00")),
            end=_read_minutes(window.get("to", "24:00")),
        )
        for window in windows
    )


def read_instant(text: str) -> datetime:
    """Read an instant in its canonical form, such as `2026-12-01T08:00:00Z`.

    Args:
        text: The instant.

    Returns:
        The same, aware.

    Raises:
        ValueError: The text is none.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no offset")
    return moment


def _is_guarded(declared: Mapping[str, Any], trigger: str, server_zone: str) -> bool:
    """Tell whether more than its entry decides when a job runs, as `reconciler.declared_timings` does."""
    if declared.get("mode") == "direct" or not trigger:
        return False
    return (
        not _GUARDING.isdisjoint(declared)
        or (trigger in _LOCAL and server_zone not in UTC_NAMES)
        or (trigger == "monthly" and not isinstance(declared["monthly"]["day"], int))
        or (trigger == "every" and not _is_even(declared["every"]))
    )


def _is_even(every: str) -> bool:
    """Tell whether an interval's entry says it by itself."""
    interval = _read_duration(every)
    return interval < _MINUTE or divides_evenly(interval)


_read_duration = lru_cache(maxsize=1024)(parse_duration)


@lru_cache(maxsize=4096)
def _read_entry(schedule: str, zone: str) -> Timing:
    return make_entry_timing(schedule, zone)


def _read_job(
    declared: Mapping[str, Any], trigger: str, entry_schedule: str, name: str, server_zone: str
) -> Timing | None:
    value = declared[trigger]
    goes_by_entry = trigger == "schedule" or (
        trigger == "every" and "start_at" not in declared and _is_even(value)
    )
    if entry_schedule and goes_by_entry and _OWN_TIMES.isdisjoint(declared):
        trigger, value = "schedule", entry_schedule  # which the window and the blackouts limit
    spec = JobSpec(
        name=name,
        place=_NOWHERE,
        document="",
        trigger=make_trigger(trigger, value),
        body=_NO_BODY,
        timezone=declared.get("timezone", ""),
        start_at=read_instant(declared["start_at"]) if "start_at" in declared else None,
        end_at=read_instant(declared["end_at"]) if "end_at" in declared else None,
        blackout=make_blackouts(declared.get("blackout", ())),
        spread=_read_duration(declared["spread"]) if "spread" in declared else _NO_SPREAD,
        ambiguous=declared.get("ambiguous", ""),
        nonexistent=declared.get("nonexistent", ""),
    )
    return make_timing(spec, server_zone)


def _read_minutes(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)
