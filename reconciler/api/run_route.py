"""The run endpoint within the service: what OpenAPI says of it, and which tokens of the API it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from reconciler.core.bearer_tokens import make_challenge, read_bearer
from reconciler.core.endpoint_requests import Problem
from reconciler.runtime.endpoint_answers import make_unauthorized

from .problems import PROBLEMS
from .security import find_caller
from .values import Json

if TYPE_CHECKING:
    from reconciler.runtime.run_endpoint import Authorize

    from .context import Service


class RunCounts(BaseModel):
    """How many jobs came to which end."""

    completed: int
    failed: int
    pending: int
    cancelled: int
    running: int
    lost: int


class RunJob(BaseModel):
    """What became of a job."""

    id: int
    handler: str
    status: Literal["completed", "failed", "pending", "cancelled", "running", "lost"]
    attempt: int
    max_attempts: int
    result: Json
    error: str | None
    duration_seconds: float
    result_omitted: bool = False


class RunAnswer(BaseModel):
    """What became of the jobs of a call."""

    queue: str
    status: Literal["pending", "failed"]
    limit: int
    claimed: int
    counts: RunCounts
    jobs: list[RunJob]
    problem: str = ""


class RunAccepted(BaseModel):
    """What of a call that does not wait will be done."""

    queue: str
    status: Literal["pending", "failed"]
    limit: int
    accepted: int


def _describe(name: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


RUN_DOCUMENT: Final[dict[str, Any]] = {
    "summary": "Do jobs of a queue: the run endpoint, which push workers call",
    "responses": {
        200: {"model": RunAnswer},
        202: {"model": RunAccepted, "description": "The caller does not wait"},
        404: PROBLEMS[404],
    },
    "openapi_extra": {
        "security": [{"HTTPBearer": ["run"]}],
        "parameters": [
            _describe(
                "queue",
                "Whose jobs; `failed` alone: the failed jobs of `default`",
                type="string",
                minLength=1,
                maxLength=200,
                pattern=r"^[^\u0000]*$",
                default="default",
            ),
            _describe(
                "status",
                "Those that are due, or dead ones: each is tried once more",
                type="string",
                enum=["pending", "failed"],
                default="pending",
            ),
            _describe("limit", "How many at the most", type="integer", minimum=1, maximum=1000, default=1),
            _describe(
                "timeout",
                "The time in which jobs may begin; the answer comes when it is over",
                type="string",
                pattern=r"^([1-9]|[1-9][0-9]|[1-8][0-9]{2})s?$",
                default="25s",
            ),
            _describe("wait", "`false`: answer 202 at once", type="string", enum=["true", "false"]),
        ],
    },
}
"""What the route's decorator takes: the endpoint itself reads its parameters."""


def make_run_access(service: Service) -> Authorize:
    """Make what lets tokens of the API run jobs: those with the scope `run`.

    Args:
        service: Whose tokens.

    Returns:
        For `RunEndpoint.authorize`.
    """

    async def authorize(token: str) -> Problem | None:
        caller = await run_in_threadpool(find_caller, service, token)
        if caller is None:
            return make_unauthorized(is_given=True)
        if "run" not in caller.scopes:
            return Problem(
                status=403,
                detail=f"the token {caller.name} lacks the scope run",
                remedy="make one with reconciler token create --scope run",
                headers={"WWW-Authenticate": make_challenge("insufficient_scope", scope="run")},
            )
        return None

    return authorize


async def explain_without_handlers(service: Service, authorization: str | None) -> Problem:
    """Explain to who calls the run endpoint that there is none; to nobody else.

    Args:
        service: Without handlers.
        authorization: The header of that name.

    Returns:
        What is answered: 401 or 403 where the token does not open it.
    """
    token = read_bearer(authorization)
    if token is None:
        return make_unauthorized(is_given=bool(authorization))
    return await make_run_access(service)(token) or Problem(
        status=404,
        detail="this service does no jobs: it has no handlers",
        remedy="start reconciler serve with --app, or call the process that has them",
    )
