"""The drift that metrics tell of: looked for in the background, so that no scrape waits for a plan."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from reconciler.errors import ReconcilerError
from reconciler.runtime.endpoint_answers import render_cause

from .plan_reading import read_plan
from .problems import ProblemError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from .context import Service

_log: Final = logging.getLogger("reconciler.service")


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftLook:
    """What a look found.

    Attributes:
        is_good: Whether a plan could be made.
        at: When it was.
        drifted: Resources that were changed behind the files' back.
        changes: That an apply would make.
    """

    is_good: bool
    at: datetime | None = None
    drifted: int = 0
    changes: int = 0


class DriftWatch:
    """Looks for drift when somebody asks and the last look is old.

    Args:
        service: Whose files and target.
        every: Seconds from one look to the next.
        clock: Seconds of a clock that never goes back.
    """

    def __init__(self, service: Service, *, every: float, clock: Callable[[], float]) -> None:
        self._service = service
        self._every = every
        self._clock = clock
        self._lock = threading.Lock()
        self._began_at: float | None = None
        self._thread: threading.Thread | None = None
        self._last: DriftLook | None = None

    def find(self) -> DriftLook | None:
        """Find what the last look saw, and begin another one where it is time.

        Returns:
            The last look that is over; None where none is, or where the service knows no files.
        """
        if self._service.files is None:
            return None
        with self._lock:
            is_going_on = self._thread is not None and self._thread.is_alive()
            if not is_going_on and (self._began_at is None or self._clock() - self._began_at >= self._every):
                self._began_at = self._clock()
                self._thread = threading.Thread(target=self._look, name="reconciler-drift", daemon=True)
                self._thread.start()
            return self._last

    def wait(self, seconds: float) -> None:
        """Wait for the look that goes on.

        Args:
            seconds: At the most.
        """
        if self._thread is not None:
            self._thread.join(seconds)

    def _look(self) -> None:
        self._last = _look(self._service)


def _look(service: Service) -> DriftLook:
    try:
        reading = read_plan(service)
    except ReconcilerError as error:
        _log.warning("drift could not be looked for: %s", render_cause(error))
        return DriftLook(is_good=False)
    except ProblemError as error:
        _log.warning("drift could not be looked for: %s", error)
        return DriftLook(is_good=False)
    except Exception:  # noqa: BLE001 - a thread of its own: nobody else would hear of it
        _log.exception("drift could not be looked for")
        return DriftLook(is_good=False)
    if reading.value is None or reading.drift is None:
        _log.warning("drift could not be looked for: %s", "; ".join(reading.problems[:3]))
        return DriftLook(is_good=False)
    return DriftLook(
        is_good=True,
        at=reading.at,
        drifted=len(reading.drift["changes"]),
        changes=len(reading.value["changes"]),
    )
