"""What the owner of files is told of jobs that were made through the service; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reconciler.core.names import API_OWNER, OWN_PREFIX
from reconciler.core.state import Notice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.core.state import DesiredState, ObservedState


def find_service_notices(desired: DesiredState, observed: ObservedState) -> Iterator[Notice]:
    """Find out whether jobs were made through the service that no file declares.

    Args:
        desired: What one owner's files declare.
        observed: What the target holds.

    Yields:
        One note at the most; none to the service itself, and none of a part of what is declared.
    """
    if desired.owner == API_OWNER or desired.unselected is not None:
        return
    names = tuple(
        sorted(
            name
            for name, definition in observed.definitions.items()
            if definition.owner == API_OWNER
            and not name.startswith(OWN_PREFIX)
            and name not in desired.resources
        )
    )
    if names:
        count = f"{len(names)} job{'s' if len(names) > 1 else ''} of the owner {API_OWNER}"
        yield Notice(
            code="service_jobs",
            message=f"{count}, made through the service, {'are' if len(names) > 1 else 'is'} on this target; "
            f"reconciler import --owner {API_OWNER} writes {'them' if len(names) > 1 else 'it'} to a file",
            names=names,
        )
