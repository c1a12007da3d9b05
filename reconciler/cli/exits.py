"""Exit codes: documented, tested, stable."""

from __future__ import annotations

from reconciler.errors import ApplyLockError, ReconcilerError, RefusedError, StalePlanError

DONE = 0
ERROR = 1
USAGE = 2
CHANGES = 3
REFUSED = 4
STALE = 5
LOCKED = 6
DRIFT = 7

_BY_ERROR: dict[type[ReconcilerError], int] = {
    RefusedError: REFUSED,
    StalePlanError: STALE,
    ApplyLockError: LOCKED,
}


def pick_exit_code(error: ReconcilerError) -> int:
    """Pick the exit code of an error.

    Args:
        error: What ended the command.

    Returns:
        1, or the code of its own that the error has.
    """
    return next((code for kind, code in _BY_ERROR.items() if isinstance(error, kind)), ERROR)
