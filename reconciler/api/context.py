"""What every request of the service works with: connections, spec files, tokens, limits and the clock.

Decides nothing; made once, by `reconciler.api.service`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Protocol

from fastapi import Depends, Request

from reconciler.runtime.shared_answers import SharedAnswers

from .callers import KnownCallers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from reconciler.core.config import Config, Target
    from reconciler.core.specs import Spec
    from reconciler.database.statements import Request as PlanRequest
    from reconciler.runtime.thread_connections import ThreadConnections


class SpecFiles(Protocol):
    """The spec files that the service knows, read anew when they changed."""

    def load(self) -> tuple[Config, Target, Sequence[Spec]]:
        """Load configuration, target and specs as the files are now."""
        ...

    def make_request(self) -> PlanRequest:
        """Make the request of a plan, as the command line does."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one caller may ask of the service.

    Attributes:
        max_body: Bytes of a body at the most.
        body_time: Seconds in which it has to come.
        rate: Requests a second that one token, or one address without a token, may send on average.
        burst: How many it may send at once.
        failed_rate: Requests a second with a token that is no good, from one address on average.
        failed_burst: How many of these at once.
        page: Items of a page, where the caller does not say.
        max_page: Items of a page at the most.
        metrics_per_job: So many jobs, and so many queues, are told of one by one in the metrics; with more of
            them only their owners' sums are.
    """

    max_body: int = 1024 * 1024
    body_time: float = 60.0
    rate: float = 1000.0
    burst: int = 2000
    failed_rate: float = 1.0
    failed_burst: int = 20
    page: int = 50
    max_page: int = 500
    metrics_per_job: int = 1000


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What every request works with.

    Attributes:
        connections: To the target.
        target: Its name; "" where the service knows no configuration.
        files: The spec files; None where the service knows none.
        limits: What one caller may ask for.
        allowed_hosts: Hosts that jobs made through the service may call although their addresses are private.
        hosts: Names by which the service may be called, without ports; any where there is none.
        now: The clock.
        known_callers: Whose tokens were found good a moment ago.
        answers: What takes long to find, kept for a moment for all who ask.
    """

    connections: ThreadConnections
    target: str = ""
    files: SpecFiles | None = None
    limits: Limits = field(default_factory=Limits)
    allowed_hosts: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    now: Callable[[], datetime] = _now
    known_callers: KnownCallers = field(default_factory=KnownCallers)
    answers: SharedAnswers = field(default_factory=SharedAnswers, compare=False)


async def find_service(request: Request) -> Service:
    """Find what the application of a request was made with; what is no coroutine would cost a thread."""
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(find_service)]
