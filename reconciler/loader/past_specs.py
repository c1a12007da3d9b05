"""Build specs of documents that were applied once: by the schema and the rules of this release."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from reconciler.core.specs import SECTIONS
from reconciler.errors import RefusedError
from reconciler.loader.builder import SpecBuilder
from reconciler.loader.declarations import Declaration
from reconciler.loader.policies import find_violation_problems
from reconciler.loader.schema_check import Definition, find_schema_faults
from reconciler.loader.sources import Source

if TYPE_CHECKING:
    from reconciler.core.config import Config, Target
    from reconciler.core.history import Restored
    from reconciler.core.specs import Spec

_SECTION_OF = {kind: section for section, kind in SECTIONS.items()}
_SHOWN = 8


def build_past_specs(restored: Restored, config: Config, target: Target) -> tuple[Spec, ...]:
    """Build the specs of a state of before.

    Args:
        restored: The state.
        config: With the secrets that specs may name.
        target: With the policies that they have to keep to.

    Returns:
        The specs; each one's document is that of then to the letter.

    Raises:
        RefusedError: This release, this configuration or a policy has something against one of them.
    """
    builder = SpecBuilder(config, target)
    source = Source(path=restored.past.label)
    declarations: list[Declaration] = []
    specs: list[Spec] = []
    faults: list[str] = []
    for held in restored.resources.values():
        value = json.loads(held.document)
        one = Declaration(
            kind=held.kind,
            name=held.name,
            place=held.place,
            source=source,
            section=_SECTION_OF[held.kind],
            own=value,
            value=value,
            target=target.name,
        )
        found = find_schema_faults(Definition(schema="jobs", name=held.kind), value, label=one.label)
        if found:
            faults.extend(fault.message for fault in found)
            continue
        spec = builder.build(one)
        if spec is None:
            continue
        if spec.document != held.document:
            faults.append(f"{one.label}: this release reads what was applied then as something else")
        declarations.append(one)
        specs.append(replace(spec, renamed_from=restored.renamed_from.get(held.name, "")))
    problems = [*builder.problems, *find_violation_problems(specs, declarations, target)]
    faults.extend(problem.message for problem in problems)
    if faults:
        more = f"\n  and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise RefusedError(
            f"{restored.past.label} cannot be restored:\n  " + "\n  ".join(faults[:_SHOWN]) + more,
            remedy="nothing was changed; mend the files instead and apply them",
        )
    return tuple(specs)
