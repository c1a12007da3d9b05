"""Plans of what files declare: their requests, what is wrong with them, and what of them is drift.

One mechanism for commands and the service; opens no connection.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from reconciler.core.askers import find_actor, find_commit
from reconciler.core.drift import find_drift
from reconciler.core.secret_needs import list_needed_secrets
from reconciler.core.selection import Selection, choose
from reconciler.database.statements import Request
from reconciler.errors import InvalidInputError
from reconciler.loader.problems import describe_place

from .secret_values import SecretStores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reconciler.core.config import Config, Target
    from reconciler.core.specs import Spec
    from reconciler.database.apply import Planned


def make_plan_request(
    config: Config,
    target: Target,
    specs: Sequence[Spec],
    *,
    environment: Mapping[str, str],
    adopt: tuple[str, ...] = (),
    selection: Selection | None = None,
) -> Request:
    """Make the request of a plan or an apply.

    Args:
        config: That declares the secrets, and whose owner asks.
        target: Resolved.
        specs: Everything declared for it.
        environment: Variables with secrets, and with who asks.
        adopt: Names of entries that may be taken over.
        selection: What is planned of all that is declared; None, or an empty one, for everything.

    Returns:
        The request.

    Raises:
        ReconcilerError: The selection fits nothing.
    """
    stores = SecretStores(config=config, environment=environment)
    selected = choose(specs, selection) if selection and not selection.is_empty else None
    planned = specs if selected is None else [spec for spec in specs if spec.name in selected]
    return Request(
        specs=specs,
        selected=selected,
        secrets=stores.collect(list_needed_secrets(planned)),
        owner=config.owner,
        target=target,
        adopt=adopt,
        actor=find_actor(environment),
        commit=find_commit(environment),
    )


def refuse_problems(planned: Planned) -> None:
    """Stop when the server cannot take some of the specs.

    Args:
        planned: The plan, with the problems.

    Raises:
        InvalidInputError: There is at least one problem.
    """
    if planned.problems:
        raise InvalidInputError(
            [describe_place(problem.place, problem.message) for problem in planned.problems]
        )


def keep_drift(planned: Planned) -> Planned:
    """Keep of a plan what was changed on the target behind the files' back.

    Args:
        planned: The plan.

    Returns:
        The plan, with nothing in it but the changes that are drift.
    """
    drifted = find_drift((*planned.plan.changes, *planned.plan.held), planned.observed.definitions)
    return replace(planned, plan=replace(planned.plan, changes=drifted, notices=(), migrations=(), kept=()))
