"""The command `reconcile`: keep a target as the files declare it, round after round."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli import exits
from reconciler.cli.planning import make_request
from reconciler.cli.session import Session, open_session, target_options
from reconciler.cli.watching import Journal, Stop, connect_warily, keep_on, read_interval
from reconciler.core.askers import find_actor
from reconciler.core.names import list_some
from reconciler.errors import ReconcilerError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    from reconciler.core.plan import Plan
    from reconciler.database.apply import Applied, Planned
    from reconciler.database.statements import Request

_INTERVAL = timedelta(minutes=5)
# Between two readings of the files that have to be the same before anything is applied.
_SETTLE = 2.0
_NAMES = 8


@click.command()
@target_options
@click.option(
    "--interval", callback=read_interval, metavar="DURATION", help="Between the begins of two rounds [5m]."
)
@click.option("--once", "is_single", is_flag=True, help="One round; the exit code is that of apply.")
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "json")),
    default="text",
    show_default=True,
    help="Lines for people, or a JSON document a line.",
)
def reconcile(
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    interval: timedelta | None,
    is_single: bool,
    form: str,
) -> int:
    """Keep a target as declared: read the files anew, plan and apply, round after round, until a signal.

    Nobody is asked, so nothing beyond the target's limits is done: what apply would refuse is said once and
    waits, and so does everything outside of windows. It deletes under prune: auto alone, and takes no entry
    over that differs.
    """
    if is_single and interval is not None:
        raise click.UsageError("--interval is for rounds, and --once is one")

    def open_anew() -> Session:
        return open_session(config_path, target_name, dsn)

    journal = Journal(open_anew().target.name, as_json=form == "json")
    if is_single:
        return Rounds(open_session=open_anew, journal=journal).turn()
    with Stop() as stop:
        rounds = Rounds(open_session=open_anew, journal=journal, stop=stop)
        keep_on(rounds.turn, interval=interval or _INTERVAL, journal=journal, stop=stop)
    return exits.DONE


@dataclass(slots=True, kw_only=True)
class Rounds:
    """Makes a target as declared, once each call.

    Attributes:
        open_session: Reads the configuration anew.
        journal: Where it tells.
        stop: What lets an apply come to its end.
        settle: Seconds between two readings of the files.
    """

    open_session: Callable[[], Session]
    journal: Journal
    stop: Stop | None = None
    settle: float = field(default=_SETTLE)

    def turn(self) -> int:
        """Do one round.

        Returns:
            The exit code that apply would have.

        Raises:
            ReconcilerError: The files are wrong, the target cannot be reached, or it moved meanwhile; nothing
                was changed.
        """
        from reconciler.database.apply import plan_target, require_consent
        from reconciler.runtime.plans import refuse_problems

        session = self.open_session()
        request = _make_request(session)
        with connect_warily(session) as conn:
            planned = plan_target(conn, request)
            refuse_problems(planned)
            plan = planned.plan
            try:
                require_consent(plan, request.target.policy, allow_deletes=None)
                if _is_pending(plan):
                    self._wait_until_settled(session, request)
                elif not (request.secrets or planned.is_upgraded):
                    return self._tell_rest(plan)
                return self._apply(conn, planned, request)
            except RefusedError as error:
                # By what the plan holds for and not by the words, since those of a window tell the time.
                key = ("refused", planned.fingerprints(), plan.closed is not None, plan.migrations)
                self._tell_refusal(key, error, plan)
                return exits.REFUSED

    def _wait_until_settled(self, session: Session, request: Request) -> None:
        """Make sure that the files were not read while somebody was at changing them.

        Raises:
            ReconcilerError: They change; nothing was changed on the target.
        """
        from reconciler.loader.checkouts import find_checkout_lock

        time.sleep(self.settle)
        lock = find_checkout_lock(Path(session.config.path).resolve().parent)
        if lock is not None:
            raise ReconcilerError(
                f"git is changing the files ({lock})", remedy="if no git is at work, delete that lock"
            )
        again = self.open_session()
        if again.target != session.target or tuple(again.load_specs()) != tuple(request.specs):
            raise ReconcilerError("the files changed while they were read", remedy="nothing was applied yet")

    def _apply(self, conn: psycopg.Connection, planned: Planned, request: Request) -> int:
        from reconciler.cli.applying import apply_planned

        with nullcontext() if self.stop is None else self.stop.shielded():
            applied = apply_planned(conn, planned, request, report=self._tell_applied)
        return self._tell_rest(applied.plan, did=applied.revision is not None or bool(applied.secrets))

    def _tell_applied(self, applied: Applied) -> None:
        done = [change for change in applied.plan.changes if change.obstacle is None]
        parts = []
        if applied.migrations:
            parts.append(f"migrated {', '.join(applied.migrations)}")
        if applied.revision is not None:
            parts.append(f"applied revision {applied.revision}: {_count(done)}")
        if applied.secrets:
            parts.append(f"brought secrets {', '.join(applied.secrets)}")
        if parts:
            self.journal.tell(
                "applied",
                "; ".join(parts),
                revision=applied.revision,
                migrations=list(applied.migrations),
                secrets=list(applied.secrets),
                changes=[
                    {
                        "action": change.action,
                        "kind": change.kind,
                        "name": change.name,
                        "reason": change.reason,
                    }
                    for change in done
                ],
            )

    def _tell_rest(self, plan: Plan, *, did: bool = False) -> int:
        """Tell how the target stands after a round."""
        if beyond := [change.name for change in plan.beyond_rights]:
            text = f"not done, for lack of rights: {list_some(beyond, _NAMES)}"
            self.journal.tell_standing(("rights", tuple(beyond)), "held", text, is_bad=True, names=beyond)
            return exits.ERROR
        text = f"{plan.resources} resources are as declared"
        if did:
            self.journal.stand("rest", text)
        else:
            self.journal.tell_standing("rest", "rest", f"nothing to change: {text}", resources=plan.resources)
        return exits.DONE

    def _tell_refusal(self, key: object, error: RefusedError, plan: Plan) -> None:
        from reconciler.cli.watching import describe_error

        text = describe_error(error)
        waiting = [change.name for change in plan.pending]
        values: dict[str, Any] = {"message": text, "waiting": waiting}
        if plan.closed is not None:
            count = len(waiting)
            what = (
                "an apply waits"
                if count == 0
                else "1 change waits"
                if count == 1
                else f"{count} changes wait"
            )
            self.journal.tell_standing(key, "closed", f"{what}: {text}", **values)
        else:
            self.journal.tell_standing(key, "refused", f"refused: {text}", is_bad=True, **values)


def _make_request(session: Session) -> Request:
    request = make_request(session)
    actor = find_actor(os.environ)
    return replace(request, actor=f"reconcile ({actor})" if actor else "reconcile")


def _is_pending(plan: Plan) -> bool:
    """Tell whether an apply would do something; what the role cannot do stays undone in each round."""
    return bool(plan.migrations) or any(change.obstacle is None for change in plan.changes)


def _count(changes: list[Any]) -> str:
    parts = []
    for action in dict.fromkeys(change.action for change in changes):
        names = [change.name for change in changes if change.action == action]
        parts.append(f"{action} {list_some(names, _NAMES)}")
    return ", ".join(parts)
