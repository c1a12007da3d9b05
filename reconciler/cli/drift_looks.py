"""What `drift` looks for and shows: once, or again and again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from reconciler.core.drift import compare_drift, describe_drift
from reconciler.core.names import list_some

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import psycopg

    from reconciler.cli.session import Session
    from reconciler.cli.watching import Journal
    from reconciler.core.changes import Change
    from reconciler.core.drift import DriftNews
    from reconciler.core.plan import Plan
    from reconciler.database.apply import Planned
    from reconciler.database.statements import Request


def look_for_drift(conn: psycopg.Connection, request: Request, *, tell: bool) -> Planned:
    """Look at a target once.

    Args:
        conn: To the target, in autocommit mode.
        request: What is declared.
        tell: Whether to open alerts of what drifts, and to close those of what does no longer.

    Returns:
        The plan, with nothing in it but the changes that are drift.

    Raises:
        InvalidInputError: The server cannot take some of the specs.
    """
    from reconciler.database.apply import plan_target
    from reconciler.runtime.plans import keep_drift, refuse_problems

    planned = plan_target(conn, request)
    refuse_problems(planned)
    drift = keep_drift(planned)
    if tell:
        from reconciler.database.alerts import open_drift_alerts, require_outbox

        require_outbox(conn)
        messages = {change.name: describe_drift(change) for change in drift.plan.changes}
        open_drift_alerts(conn, messages, owner=request.owner, among=request.selected)
    return drift


def show_drift(planned: Planned, form: str) -> None:
    """Print what drifts.

    Args:
        planned: From `look_for_drift`.
        form: text, json or markdown.
    """
    plan = planned.plan
    if form == "text":
        text = _render_all(plan) if plan.changes else _render_none(plan)
    else:
        from reconciler.core import plan_documents

        value = plan_documents.make_value(plan, planned.fingerprints())
        if form == "json":
            text = plan_documents.render_value(value)
        else:
            from reconciler.core.pull_comment import Subject, render_comment

            text = render_comment(value, Subject(target=plan.target, is_drift=True))
    click.echo(text, nl=False)


def _render_none(plan: Plan) -> str:
    return f"No drift on {plan.target}: nothing was changed behind the files' back.\n"


def _render_all(plan: Plan) -> str:
    from reconciler.cli.render_text import render_finding

    count = len(plan.changes)
    lines = [click.style(f"Drift on {plan.target}, owner {plan.owner}", bold=True), ""]
    lines += [_render_changes(plan.changes, plan), ""]
    for finding in plan.findings:
        lines += [render_finding(finding), ""]
    edited = sum(change.reason == "both" for change in plan.changes)
    also = f", {edited} of them edited in the files as well" if edited else ""
    lines.append(
        f"Drift: {count} {'was' if count == 1 else 'were'} changed on the target{also}; "
        "the next apply puts that right."
    )
    return "\n".join(lines) + "\n"


def _render_changes(changes: Iterable[Change], plan: Plan) -> str:
    from reconciler.cli.render_text import render_change

    blocks = ["\n".join(render_change(change, plan.times.get(change.name))) for change in changes]
    return "\n\n".join(blocks)


@dataclass(slots=True, kw_only=True)
class DriftWatch:
    """Looks at a target again and again, and tells what is new.

    Attributes:
        open_session: Reads the configuration anew.
        make_request: Reads the files anew.
        connect: Opens a connection to the target of a session.
        journal: Where it tells.
        tell: Whether to open and close alerts.
        known: What drifted at the last look; None before the first one.
    """

    open_session: Callable[[], Session]
    make_request: Callable[[Session], Request]
    connect: Callable[[Session], Any]
    journal: Journal
    tell: bool
    known: tuple[Change, ...] | None = field(default=None, init=False)

    def look(self) -> None:
        """Look once.

        Raises:
            ReconcilerError: The files are wrong, or the target cannot be read; what was known stays so.
        """
        session = self.open_session()
        request = self.make_request(session)
        with self.connect(session) as conn:
            plan = look_for_drift(conn, request, tell=self.tell).plan
        news = compare_drift(self.known or (), plan.changes)
        is_first, self.known = self.known is None, plan.changes
        names = [change.name for change in plan.changes]
        standing = f"{len(names)} drift: {', '.join(names[:8])}" if names else "no drift"
        if news:
            self.journal.tell("drift", _describe_news(news, plan), **_make_document(news, plan))
            self.journal.stand(("drift", tuple(names)), standing)
        elif is_first:
            self.journal.tell_standing(("drift", tuple(names)), "clear", standing, drifting=names)
        else:
            # Told only where a round has failed since.
            self.journal.tell_standing(
                ("drift", tuple(names)), "back", f"looks again: {standing}", drifting=names
            )


def _describe_news(news: DriftNews, plan: Plan) -> str:
    parts = [
        f"{what}: {list_some(names, 8)}"
        for what, names in (
            ("drift appeared", [change.name for change in news.appeared]),
            ("drift changed", [change.name for change in news.changed]),
            ("drift ended", list(news.ended)),
        )
        if names
    ]
    left = f"{len(plan.changes)} drift now" if plan.changes else "no drift now"
    head = f"{'; '.join(parts)} ({left})"
    shown = (*news.appeared, *news.changed)
    return f"{head}\n{_render_changes(shown, plan)}" if shown else head


def _make_document(news: DriftNews, plan: Plan) -> dict[str, Any]:
    from reconciler.core.plan_documents import render_change

    return {
        "appeared": [change.name for change in news.appeared],
        "changed": [change.name for change in news.changed],
        "ended": list(news.ended),
        "drifting": [change.name for change in plan.changes],
        "changes": [
            render_change(change, plan.times.get(change.name)) for change in (*news.appeared, *news.changed)
        ],
    }
