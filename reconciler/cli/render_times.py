"""Render when things run: explanations in lines with labels, and as JSON."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli.render_text import clean
from reconciler.cli.times import render_instant, render_local

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from reconciler.core.state import ObservedState
    from reconciler.core.times.explanations import ClockChange, Explanation, Server, Starts
    from reconciler.core.times.foreign_cron import ForeignReading

_WIDTH = 11
_MANY = 6


def render_explanations(
    found: Sequence[Explanation], server: Server, *, observed: ObservedState | None
) -> str:
    """Render explanations for people.

    Args:
        found: At least one.
        server: The pg_cron that is meant.
        observed: What the target holds; None where nobody looked.

    Returns:
        Blocks of lines.
    """
    return "\n\n".join("\n".join(_render(each, server, observed)) for each in found)


def to_json(found: Explanation) -> dict[str, Any]:
    """Give an explanation as JSON holds it."""
    return {
        "text": found.text,
        "kind": found.kind,
        "words": found.words or None,
        "timezone": found.zone or None,
        "spread_seconds": found.spread.total_seconds(),
        "clock_changes": found.clock_changes or None,
        "changes": [
            {
                "at": _iso(change.at),
                "offset_before_seconds": change.before,
                "offset_after_seconds": change.after,
                "runs": list(map(_iso, change.runs)),
            }
            for change in found.changes
        ],
        "pg_cron": found.versions or None,
        "entry": found.entry or None,
        "starts": None
        if found.starts is None
        else {"days": found.starts.days, "fires": found.starts.fires, "runs": found.starts.runs},
        "next_runs": list(map(_iso, found.runs)),
        "after": list(found.after),
        "active": found.active,
        "problem": found.problem or None,
        "suggestion": found.suggestion or None,
        "elsewhere": [
            {
                "how": reading.how or None,
                "next_runs": [run.strftime("%Y-%m-%dT%H:%M:%S") for run in reading.runs],
                "here": dict(reading.declared) or None,
                "is_proven": reading.is_proven,
                "remark": reading.remark or None,
            }
            for reading in found.elsewhere
        ],
    }


def render_when(run: datetime, zone: str) -> tuple[str, str]:
    """Render an instant for two columns.

    Args:
        run: Aware.
        zone: Of whose clocks it is shown.

    Returns:
        Weekday, local time and its zone; and the instant in UTC, "" where that is the same.
    """
    local = render_local(run, zone)
    utc = render_instant(run, fine=run.second != 0)
    day = _read_local(run, zone).strftime("%a")
    return f"{day} {local}", "" if local == utc else utc


def render_spec(declared: Mapping[str, Any]) -> str:
    """Render keys of a job as they are written in a spec file, on one line.

    Args:
        declared: Texts, and one level of mappings of texts.

    Returns:
        For instance `monthly: {day: second mon, at: "08:00"}`.
    """
    return "  ".join(f"{key}: {_render_value(value)}" for key, value in declared.items())


def _render(found: Explanation, server: Server, observed: ObservedState | None) -> Iterator[str]:
    about = "" if found.kind == "schedule" else f"  {found.kind}" + ("" if found.active else ", inactive")
    yield click.style(clean(found.text), bold=True) + about
    rows = [*_list_rows(found, server, observed)]
    last = ""
    for label, text in rows:
        yield f"  {'' if label == last else label:{_WIDTH}}{text}".rstrip()
        last = label


def _list_rows(
    found: Explanation, server: Server, observed: ObservedState | None
) -> Iterator[tuple[str, str]]:
    if found.problem:
        yield "problem", click.style(clean(found.problem), fg="red")
    if found.suggestion:
        yield "write", found.suggestion
    for reading in found.elsewhere:
        yield from _list_elsewhere(reading)
    if found.words:
        yield "runs", found.words
    if found.after and not found.words.startswith("whenever "):
        yield "waits", f"until {', '.join(found.after)} succeeded since its last run"
    if found.clock_changes:
        yield "clocks", found.clock_changes
    for change in found.changes:
        yield "clocks", _describe_change(change, found.zone)
    if found.versions:
        yield "pg_cron", found.versions
    if found.kind != "schedule" or found.starts is not None:
        yield from _list_entry(found, server, observed)
    times = [render_when(run, found.zone) for run in found.runs]
    width = max((len(local) for local, _ in times), default=0)
    for local, utc in times:
        yield "next", f"{local:{width}}  {utc}".rstrip()
    if not found.runs and (" " in found.entry or found.words.startswith("once, ")):
        yield "next", "never: no run is left"


def _list_elsewhere(reading: ForeignReading) -> Iterator[tuple[str, str]]:
    times = ", ".join(run.strftime("%a %F %T" if run.second else "%a %F %R") for run in reading.runs)
    yield "elsewhere", " ".join(filter(None, ("read", reading.how or "by other crons", "as", times)))
    if reading.remark:
        yield "elsewhere", reading.remark
    if reading.is_proven:
        from reconciler.core.times.foreign_cron import TRIED

        yield "here", f"{render_spec(reading.declared)}  (the same next {TRIED} runs)"
    elif reading.declared:
        yield "here", f"{render_spec(reading.declared)}  (as often, at other minutes)"
    else:
        yield "here", "one job cannot say that"


def _list_entry(
    found: Explanation, server: Server, observed: ObservedState | None
) -> Iterator[tuple[str, str]]:
    if found.entry:
        often = "" if found.starts is None else f": {_describe_starts(found.starts)}"
        yield "entry", f"{found.entry} ({server.zone}){often}"
    elif found.words.startswith("once, "):
        yield "entry", "none: a row of reconciler.jobs"
    if observed is None or found.kind == "schedule":
        return
    from reconciler.core.matching import match_entries

    entry = match_entries(observed).get(found.text)
    if entry is None and found.entry:
        yield "entry", click.style("it is not in cron.job yet: reconciler apply", fg="yellow")
    elif entry is not None and entry.schedule != found.entry:
        yield "entry", click.style(f"in cron.job it is {clean(entry.schedule)}: reconciler plan", fg="yellow")
    elif entry is not None and entry.active != found.active:
        yield (
            "entry",
            click.style(
                f"in cron.job it is {'active' if entry.active else 'inactive'}: reconciler plan", fg="yellow"
            ),
        )
    pause = observed.pauses.get(found.text)
    if pause is not None:
        until = f"until {render_instant(pause.until)}" if pause.until else "until somebody resumes it"
        yield "paused", f"{until}: its runs are skipped"


def _describe_starts(starts: Starts) -> str:
    """Say how often an entry fires and how much of that is runs, by the day or by the year."""
    unit, share = ("day", 1 / starts.days) if starts.runs >= starts.days else ("year", 365 / starts.days)
    fires, runs = (f"{number * share:.4g}" for number in (starts.fires, starts.runs))
    return f"{fires} starts a {unit}, {runs} of them {'a run' if runs == '1' else 'runs'}"


def _describe_change(change: ClockChange, zone: str) -> str:
    before, after = (
        (change.at.astimezone(UTC) + timedelta(seconds=offset)).strftime("%H:%M")
        for offset in (change.before, change.after)
    )
    way = "forward" if change.after > change.before else "back"
    day = (change.at + timedelta(seconds=change.after)).strftime("%a %Y-%m-%d")
    if not change.runs:
        runs = "no run that day"
    elif len(change.runs) > _MANY:
        runs = f"{len(change.runs)} runs that day"
    else:
        runs = "runs at " + ", ".join(render_local(run, zone)[11:] for run in change.runs)
    return f"{day} they go {way} from {before} to {after}: {runs}"


def _read_local(run: datetime, zone: str) -> datetime:
    from reconciler.core.times.clocks import find_zone

    try:
        return run.astimezone(find_zone(zone))
    except ValueError:
        return run.astimezone(UTC)


def _render_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_render_value(each)}" for key, each in value.items()) + "}"
    text = str(value)
    return text if text.replace(" ", "").isalnum() and not text.isdigit() else f'"{text}"'


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
