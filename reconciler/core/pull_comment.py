"""The text of the one comment that shows a plan on a pull request, made of the plan's JSON.

The job that comments needs no database and no spec files. Whoever writes specs, or can write into the
database, writes into this comment: what stands in a plan is foreign text, see `core/markdown.py`. Knows no
forge.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from reconciler.core.change_lines import Part, count_lines, list_parts
from reconciler.core.changes import ACTIONS
from reconciler.core.comment_times import list_lines, list_warnings
from reconciler.core.markdown import fence, fold, measure, prose, reveal, shorten, span
from reconciler.core.names import list_some

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LIMIT: Final = 65_000
"""UTF-16 code units: GitHub refuses comments of more than 65,536 characters; GitLab takes a million."""
_RESERVE: Final = 300
_NAMES: Final = 50
_REMARKS: Final = 10
_LINE: Final = 400
_PART_LINES: Final = 150
_BLOCK: Final = 16_000
_OPEN_LINES: Final = 8
_URL: Final = re.compile(r"https?://[A-Za-z0-9.-]+(?::[0-9]+)?(?:/[A-Za-z0-9._~%/-]*)?")
_UNSAFE: Final = re.compile(r"[^a-z0-9._-]")
# What is taken away comes first: no cut at the limit may hide it.
_FIRST: Final = ("delete", "retire", "release", "update", "create", "adopt")
_ORDER: Final = {action: rank for rank, action in enumerate(_FIRST)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a comment is about, beside the plan.

    Attributes:
        target: The target's name: each target has a comment of its own.
        scope: Tells plans of the same target apart, where one repository has several configurations.
        commit: What was planned; "" where it is not known.
        run_url: Where the whole plan can be had; "" where it is not known.
        is_drift: Whether only what was changed on the target is shown.
    """

    target: str
    scope: str = ""
    commit: str = ""
    run_url: str = ""
    is_drift: bool = False


def make_marker(target: str, scope: str = "") -> str:
    """Make the hidden first line by which the comment is found again.

    Args:
        target: The target's name.
        scope: See `Subject`.

    Returns:
        An HTML comment; different for each target and scope, whatever stands in them.
    """
    name = "/".join(_UNSAFE.sub(lambda match: f"%{ord(match[0]):x};", part) for part in (target, scope))
    return f"<!-- reconciler plan {name} -->"


def render_comment(plan: Mapping[str, Any], subject: Subject, *, limit: int = LIMIT) -> str:
    """Render a plan.

    Args:
        plan: As `plan --format json` prints it, fit for `schemas/plan.schema.json`.
        subject: What it is about.
        limit: UTF-16 code units, at least 30,000.

    Returns:
        Markdown within the limit, the marker as its first line. What does not fit is counted.
    """
    changes = sorted(plan["changes"], key=lambda change: _ORDER[change["action"]])
    head = [*_render_head(plan, subject), *_render_dangers(plan, changes)]
    tail = [*_render_remarks(plan), _render_foot(subject, plan)]
    room = limit - measure("\n\n".join([*head, *tail])) - _RESERVE
    body: list[str] = []
    is_short = False
    for number, change in enumerate(changes):
        block = _render_change(change, is_short=is_short)
        if measure(block) + 2 > room and not is_short:
            is_short = True
            block = _render_change(change, is_short=True)
        if measure(block) + 2 > room:
            body.append(f"**{len(changes) - number} more changes**: {_name_source(subject)}")
            break
        room -= measure(block) + 2
        body.append(block)
    return "\n\n".join([*head, *body, *tail]) + "\n"


def render_failure(subject: Subject) -> str:
    """Render that there is no plan, so that nobody reviews an older one.

    Args:
        subject: What should have been planned.

    Returns:
        Markdown, the marker as its first line.
    """
    head = [make_marker(subject.target, subject.scope), f"### Plan for {span(subject.target)}"]
    what = f" for {span(subject.commit)}" if subject.commit else ""
    text = f"**There is no plan{what}: planning failed.** What was shown here before holds no longer."
    return "\n\n".join([*head, text, _render_foot(subject, {})]) + "\n"


def _render_head(plan: Mapping[str, Any], subject: Subject) -> Iterator[str]:
    yield make_marker(subject.target, subject.scope)
    what = "Drift on" if subject.is_drift else "Plan for"
    yield f"### {what} {span(plan['target'])}, owner {span(plan['owner'])}"
    if subject.is_drift:
        count = len(plan["changes"])
        yield (
            f"**{count} changed on the target behind the files' back;** the next apply puts that right."
            if count
            else "**No drift:** nothing was changed behind the files' back."
        )
        return
    counts = {action: sum(one["action"] == action for one in plan["changes"]) for action in ACTIONS}
    if not plan["empty"]:
        counted = [f"{count} to {action}" for action, count in counts.items() if count]
        yield f"**{', '.join(counted)}.**"
    else:
        marked = f" {counts['adopt']} of them will be marked as ours." if counts["adopt"] else ""
        declared = plan["summary"]["resources"]
        held = plan["summary"].get("held")  # since format 1.3
        left_out = f"{held} changes are left out at this stage." if held else ""
        yield f"**Nothing to change:** {left_out or f'{declared} resources are as declared.'}{marked}"


def _render_dangers(plan: Mapping[str, Any], changes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    taken = {
        words: [change["name"] for change in changes if change["action"] == action]
        for action, words in (("delete", "Deletes"), ("retire", "Retires"))
    }
    for words, names in taken.items():
        if names:
            yield f"> **{words} {len(names)}:** {_list_names(names)}"
    if consent := plan.get("consent"):  # since format 1.2
        yield f"> To consent to exactly these: {span(f'--allow-deletes {consent}')}"
    kinds = [change["obstacle"]["kind"] for change in changes if change["obstacle"]]
    if count := kinds.count("refused"):
        yield f"> **Cannot be applied:** {count} refused, and nothing is applied until that is mended."
    if count := kinds.count("rights"):
        # Seldom the role that applies: a plan for a reviewer is made by one that may only read.
        yield f"> The role that planned could not make {count} of these; one that only reads never can."
    for finding in plan["findings"][:_REMARKS]:
        label = "Danger" if finding["severity"] == "error" else "Warning"
        message, remedy = prose(finding["message"]), prose(finding["remedy"])
        yield f"> **{label}** {span(finding['code'])}: {message}  \n> To do: {remedy}"
    if more := plan["findings"][_REMARKS:]:
        yield f"> **{len(more)} more dangers and warnings**; `reconciler doctor` lists them."


def _render_change(change: Mapping[str, Any], *, is_short: bool) -> str:
    renamed = change["renamed_from"]
    blocks = [
        f"**{change['action']}** {change['kind']} {span(change['name'])}"
        + (f", renamed from {span(renamed)}" if renamed else "")
        + f" ({change['reason']}, {span(change['source'])})"
    ]
    if (obstacle := change["obstacle"]) is not None and obstacle["kind"] == "refused":
        blocks.append(
            f"> **Cannot be done:** {prose(obstacle['why'])}  \n> To do: {prose(obstacle['remedy'])}"
        )
    if (times := change.get("times")) is not None:  # since format 1.1
        warnings, lines = list(list_warnings(times)), list(list_lines(times))
        blocks += ["> " + "  \n> ".join(warnings)] if warnings else []
        blocks += ["  \n".join(lines)] if lines and not is_short else []
    if not is_short:
        parts = [_render_part(part) for part in list_parts(change) if part.lines]
        if sum(map(measure, parts)) > _BLOCK:
            parts = ["The difference is too long for a comment."]
        blocks += parts
    return "\n\n".join(blocks)


def _render_part(part: Part) -> str:
    lines = [shorten(reveal(line), _LINE) for line in part.lines[:_PART_LINES]]
    if len(part.lines) > _PART_LINES:
        lines.append(f"… {len(part.lines) - _PART_LINES} more lines")
    block = fence(lines)
    if not part.title and len(part.lines) <= _OPEN_LINES:
        return block
    return fold(part.title or "fields", part.words or count_lines(len(part.lines)), block)


def _render_remarks(plan: Mapping[str, Any]) -> Iterator[str]:
    for notice in plan["notices"][:_REMARKS]:
        names = f"  \n> {_list_names(notice['names'])}" if notice["names"] else ""
        yield f"> **Note** {span(notice['code'])}: {prose(notice['message'])}{names}"
    if more := plan["notices"][_REMARKS:]:
        yield f"> **{len(more)} more notes**; `reconciler plan` shows them."
    if plan["migrations"]:
        yield f"Migrations to run first: {_list_names(plan['migrations'])}"
    if plan["kept"]:
        yield f"Kept, though no longer declared (`prune: never`): {_list_names(plan['kept'])}"


def _render_foot(subject: Subject, plan: Mapping[str, Any]) -> str:
    parts = [f"reconciler {span(plan['reconciler_version'])}" if plan else "reconciler"]
    if subject.commit:
        parts.append(f"commit {span(subject.commit)}")
    if link := _link(subject, "the run"):
        parts.append(link)
    return f"<sub>{' · '.join(parts)}</sub>"


def _name_source(subject: Subject) -> str:
    return f"see the artifact of {_link(subject, 'the run') or 'the run'}, or `reconciler plan`."


def _link(subject: Subject, words: str) -> str:
    return f"[{words}]({subject.run_url})" if _URL.fullmatch(subject.run_url) else ""


def _list_names(names: Sequence[str]) -> str:
    return list_some([span(name, 80) for name in names], _NAMES)
