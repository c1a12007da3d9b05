"""What a change does in time, as Markdown for a comment, made of the plan's JSON. Instants stay in UTC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reconciler.core.markdown import prose, span

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


def list_warnings(times: Mapping[str, Any]) -> Iterator[str]:
    """List what to be warned of: runs that come twice, are left out, or go on right now.

    Args:
        times: Of one change, by the definition `times` of `schemas/plan.schema.json`.

    Yields:
        A line of Markdown for each.
    """
    last = f"; it was due last at {span(times['last_run'])}" if times["last_run"] else ""
    if times["doubled"]:
        yield f"**Would run again** at {_list_instants(times['doubled'])}{last}"
    if times["skipped"]:
        yield f"**Would be left out:** {_list_instants(times['skipped'])}{last}"
    fate = f"; {prose(times['fate'])}" if times["fate"] else ""
    for run in times["running"]:
        yield f"**Running now:** run {int(run['run'])}, since {span(run['since'])}{fate}"


def list_lines(times: Mapping[str, Any]) -> Iterator[str]:
    """List when it runs: words, next runs and how often, before and after.

    Args:
        times: As in `list_warnings`.

    Yields:
        A line of Markdown for each.
    """
    before, after = times["before"], times["after"]
    sides = [view for view in (before, after) if view is not None]
    if not sides:
        return
    if times["same_times"]:
        yield f"Runs {_say(sides[-1])}, the same times as before"
        return
    words = [_say(view) for view in sides]
    if after is None:
        words.append("no more")
    yield f"Runs {_join(words)}"
    if after is not None and after["next_runs"]:
        yield f"Next {_list_instants(after['next_runs'])}"
    if len(sides) == 2 and before["per_day"] != after["per_day"]:
        often = [f"{view['per_day']:g} times" for view in sides]
        yield f"On a usual day {_join(often)}"


def _say(view: Mapping[str, Any]) -> str:
    state = "" if view["active"] else ", inactive"
    # Words about times of the day name their zone.
    zone = "" if view["zone"] in view["words"] else f" in {span(view['zone'])}"
    return f"{prose(view['words'])}{zone}{state}"


def _join(sides: Sequence[str]) -> str:
    return " → ".join(dict.fromkeys(sides))


def _list_instants(instants: Sequence[str]) -> str:
    return ", ".join(span(instant) for instant in instants)
