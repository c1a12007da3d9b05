"""The commands `policies` and `policies check`: what rules there are, and what they say of a saved plan."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli import exits
from reconciler.cli.parameters import read_instant
from reconciler.cli.render_text import clean, render_notice
from reconciler.cli.session import config_option, open_session, target_option
from reconciler.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import TextIO

    from reconciler.core.change_windows import ChangeWindows
    from reconciler.core.changes import Change
    from reconciler.core.policies import ChangePolicy, Match, Policy


@click.group(invoke_without_command=True)
@config_option
@target_option
@click.pass_context
def policies(ctx: click.Context, config_path: Path | None, target_name: str | None) -> int:
    """List the policies and windows of a target; reads reconciler.yaml alone."""
    if ctx.invoked_subcommand is not None:
        ctx.obj = (config_path, target_name)
        return exits.DONE
    governance = open_session(config_path, target_name, "").target.governance
    every: list[Policy] = [*governance.specs, *governance.changes]
    for policy in sorted(every, key=lambda one: one.name):
        level = "" if policy.level == "refuse" else "  (warns only)"
        click.echo(f"{click.style(policy.name, bold=True)}  {policy.place}{level}")
        click.echo(f"  {clean(policy.because)}")
        click.echo(f"  {'; '.join(_describe(policy))}")
    if governance.windows is not None:
        click.echo(click.style("windows", bold=True))
        for line in _describe_windows(governance.windows):
            click.echo(f"  {line}")
    if not every and governance.windows is None:
        click.echo("No policies, and no windows.")
    return exits.DONE


@policies.command()
@config_option
@target_option
@click.option(
    "--plan",
    "file",
    type=click.File(encoding="utf-8"),
    required=True,
    help="What plan --format json wrote; - reads it.",
)
@click.option("--at", "moment", metavar="INSTANT", help="When it would be applied [now].")
@click.pass_context
def check(
    ctx: click.Context,
    config_path: Path | None,
    target_name: str | None,
    file: TextIO,
    moment: str | None,
) -> int:
    """Judge the changes of a saved plan by policies and windows, without a database.

    Policies on specs are checked by validate, and what else hinders a change stands in the plan. The target
    is the plan's own unless it is named. Exits with 4 where an apply would be refused.
    """
    from reconciler.core.change_policies import judge_changes
    from reconciler.core.times.words import describe_instant

    config, target = ctx.obj
    target_in_plan, changes = _read_plan(file)
    session = open_session(config_path or config, target_name or target or target_in_plan, "")
    now = datetime.now(UTC) if moment is None else read_instant(moment)
    verdict = judge_changes(changes, session.target.governance, now=now)
    refused = [change.obstacle for change in verdict.changes if change.obstacle]
    if verdict.closed is not None and changes:
        refused.insert(0, verdict.closed)
    label = click.style("refused:", fg="red", bold=True)
    for obstacle in refused:
        click.echo(f"{label} {clean(obstacle.why)}\n  {clean(obstacle.remedy)}")
    for notice in verdict.notices:
        if notice.code != "closed":
            click.echo(render_notice(notice))
    if not refused:
        click.echo(f"On {now:%a} {describe_instant(now, 'UTC')} nothing is in the way.")
    return exits.REFUSED if refused else exits.DONE


def _read_plan(file: TextIO) -> tuple[str, list[Change]]:
    import json

    from reconciler.core.change_policies import read_change

    try:
        value = json.load(file)
        version = value["format_version"]
        if not version.startswith("1."):
            raise InvalidInputError([f"{file.name}: this release reads plans of format 1, not of {version}"])
        changes = [read_change(change) for change in value["changes"]]
        # What policies refused when the plan was made they may take now; what the role cannot do is not done.
        judged = [replace(change, obstacle=None) for change in changes if not _is_beyond_rights(change)]
        return str(value["target"]), judged
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InvalidInputError(
            [f"{file.name}: this is no plan: write one with reconciler plan --format json"]
        ) from None


def _is_beyond_rights(change: Change) -> bool:
    return change.obstacle is not None and change.obstacle.kind == "rights"


def _describe(policy: Policy) -> Iterator[str]:
    from reconciler.core.policies import SpecPolicy

    if not isinstance(policy, SpecPolicy):
        yield _describe_changes(policy)
        return
    yield f"of {_describe_match(policy.match)}"
    if policy.labels:
        yield f"require labels {', '.join(policy.labels)}"
    if policy.needs:
        yield f"require {', '.join(policy.needs)}"
    for what, values in (
        ("mode", policy.modes),
        ("body", policy.bodies),
        ("role", policy.roles),
        ("database", policy.databases),
        ("url", policy.bad_urls),
        ("url other than", policy.good_urls),
    ):
        if values:
            yield f"forbid {what} {' or '.join(values)}"
    yield from _describe_limits(policy.runs_per_hour, policy.timeout, policy.retries)


def _describe_limits(*limits: Any) -> Iterator[str]:
    from reconciler.core.durations import render_duration

    runs, timeout, retries = limits
    if runs is not None:
        yield f"at most {runs} runs in an hour"
    if timeout is not None:
        yield f"timeout at most {render_duration(timeout)}"
    if retries is not None:
        yield f"at most {retries} retries"


def _describe_changes(policy: ChangePolicy) -> str:
    from reconciler.core.times.words import describe_window

    when = "always" if policy.window is None else f"{describe_window(policy.window)} {policy.timezone}"
    return f"forbid to {' or '.join(policy.verbs)} {_describe_match(policy.match)} {when}"


def _describe_match(match: Match) -> str:
    parts = [" or ".join(f"{kind}s" for kind in match.kinds) or "anything"]
    if match.names:
        parts.append(f"named {' or '.join(match.names)}")
    if match.labels:
        parts.append(f"labelled {', '.join(f'{name}: {text}' for name, text in match.labels)}")
    return " ".join(parts)


def _describe_windows(windows: ChangeWindows) -> Iterator[str]:
    from reconciler.core.times.words import describe_window

    for window in windows.allow:
        yield f"apply is open {describe_window(window)} {windows.timezone}"
    for freeze in windows.freezes:
        why = f": {clean(freeze.because)}" if freeze.because else ""
        yield f"apply is frozen {describe_window(freeze.window)} {windows.timezone}{why}"
