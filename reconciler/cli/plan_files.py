"""Plans in files: written by plan, read by apply and comment. Knows no database."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler.core import plan_documents
from reconciler.core.saved_plans import SavedPlan, find_stale, open_saved, seal
from reconciler.errors import InvalidInputError, StalePlanError

if TYPE_CHECKING:
    from collections.abc import Collection

    from reconciler.core.plan import Fingerprints, Plan
    from reconciler.core.selection import Selection
    from reconciler.database.apply import Planned

PLAN_LIMIT = 256 * 1024 * 1024
"""Bytes; a plan of 10,000 new jobs has 6 MB and more."""
_LATER = frozenset({"times"})
"""Keys that came after format 1.0: a plan of an earlier release lacks them."""
_PRINT = "plan --format json"
_SAVE = "plan --out FILE"


def write_plan(path: Path, planned: Planned, adopt: Collection[str], selection: Selection) -> None:
    """Save a plan, so that exactly this can be applied.

    Args:
        path: The file; what is there is replaced.
        planned: The plan.
        adopt: Names of entries that it takes over.
        selection: What it was made of; paths are seen from the folder of the configuration.

    Raises:
        InvalidInputError: The file cannot be written.
    """
    facts = planned.observed.facts
    value = seal(
        plan_documents.make_value(planned.plan, planned.fingerprints()),
        database=facts.database,
        role=facts.role,
        made_at=planned.observed.now,
        adopt=adopt,
        selection=selection,
    )
    try:
        path.write_text(plan_documents.render_value(value), encoding="utf-8")
    except OSError as error:
        raise InvalidInputError([f"{path}: cannot be written: {error.strerror or error}"]) from error


def read_saved_plan(path: str) -> SavedPlan:
    """Read a plan that is to be applied.

    Args:
        path: The file; `-` is standard input.

    Returns:
        What it says.

    Raises:
        InvalidInputError: It cannot be read, is no plan, was not made to be applied or was altered since.
    """
    try:
        return open_saved(read_plan(path, how=_SAVE))
    except ValueError as error:
        raise InvalidInputError([f"{_name(path)}: {error}"]) from error


def require_same_database(saved: SavedPlan, planned: Planned) -> None:
    """Stop where the connection leads elsewhere than the plan was made for.

    Args:
        saved: The plan as it was reviewed.
        planned: Made anew.

    Raises:
        InvalidInputError: It is another database.
    """
    database = planned.observed.facts.database
    if saved.database != database:
        raise InvalidInputError(
            [f"the plan was made for the database {saved.database!r}, and this one is {database!r}"]
        )


def require_fresh(saved: SavedPlan, plan: Plan, fingerprints: Fingerprints, *, role: str) -> None:
    """Stop where a plan that was reviewed is not what an apply would do now.

    Args:
        saved: The plan as it was reviewed.
        plan: Made anew.
        fingerprints: Of the plan that was made anew.
        role: That is connected now.

    Raises:
        StalePlanError: They differ; the message says in what.
    """
    why = find_stale(saved, plan, fingerprints)
    if not why:
        return
    made = f" of {saved.made_at}" if saved.made_at else ""
    remedy = f"nothing was changed; make a new plan with {_SAVE} and review that"
    if saved.role != role:
        remedy += (
            f"\n  the role {saved.role} made it and {role} is to apply it: give the target a role, and both "
            "sight of all of cron.job"
        )
    text = "\n  ".join(why)
    # Names come from the database, and go to a terminal.
    shown = "".join(
        letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text
    )
    raise StalePlanError(f"the plan{made} holds no longer: {shown}", remedy=remedy)


def read_plan(path: str, *, how: str = _PRINT) -> dict[str, Any]:
    """Read and check the JSON of a plan.

    The release that planned may be another one of the same major format: keys may be unknown, or lacking.

    Args:
        path: The file; `-` is standard input.
        how: The command that makes such a file, for the errors.

    Returns:
        The plan, fit for `schemas/plan.schema.json`.

    Raises:
        InvalidInputError: It cannot be read, or is no plan; where, and what is wrong.
    """
    import jsonschema_rs

    from reconciler.resources import read_resource

    name = _name(path)
    try:
        if path == "-":
            data = sys.stdin.buffer.read(PLAN_LIMIT + 1)
        else:
            with Path(path).open("rb") as stream:
                data = stream.read(PLAN_LIMIT + 1)
        if len(data) > PLAN_LIMIT:
            raise InvalidInputError([f"{name}: is too large for a plan: more than {PLAN_LIMIT} bytes"])
        plan = json.loads(data)
    except OSError as error:
        raise InvalidInputError([f"{name}: cannot be read: {error.strerror or error}"]) from error
    except (ValueError, RecursionError) as error:
        raise InvalidInputError([f"{name}: is no JSON: write it with {how}"]) from error
    schema = _loosen(json.loads(read_resource("schemas", "plan.schema.json")))
    try:
        faults = list(jsonschema_rs.validator_for(schema).iter_errors(plan))
    except ValueError as error:  # lone surrogates, depths without end
        raise InvalidInputError([f"{name}: is no plan: {type(error).__name__}"]) from error
    if faults:
        places = sorted({"/".join(map(str, fault.instance_path)) or "the top" for fault in faults})
        shown = ", ".join(place.encode("unicode_escape").decode()[:100] for place in places[:5])
        raise InvalidInputError(
            [f"{name}: is no plan that this release reads (at {shown}): write it with {how}"]
        )
    return dict(plan)


def _name(path: str) -> str:
    return "standard input" if path == "-" else path


def _loosen(schema: Any) -> Any:
    """Let a schema allow keys that it does not know, and not insist on those that came later."""
    if isinstance(schema, dict):
        kept = {key: value for key, value in schema.items() if key != "additionalProperties" or value}
        if isinstance(kept.get("required"), list):
            kept["required"] = [key for key in kept["required"] if key not in _LATER]
        return {key: _loosen(value) for key, value in kept.items()}
    return [_loosen(value) for value in schema] if isinstance(schema, list) else schema
