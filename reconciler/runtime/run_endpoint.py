"""The run endpoint: calls that claim jobs and do them, put jobs, and ask for one; whoever brings them.

A web framework, or a function of a serverless platform, hands a call in and takes the answer out. Every call
needs one of the endpoint's tokens, or one that whoever runs the endpoint lets in. Knows no framework.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeAlias

from reconciler.core.bearer_tokens import BearerTokens, read_bearer
from reconciler.core.endpoint_requests import Problem, RunRequest, RunRules, parse_new_job, parse_run_request
from reconciler.core.hidden import Hidden
from reconciler.errors import ReconcilerError

from .drains import Drain
from .endpoint_answers import (
    make_method_problem,
    make_problem,
    make_stopping,
    make_too_long,
    make_unauthorized,
    render_cause,
    render_job,
    render_run,
)
from .http_messages import Answer, Call, make_answer, make_problem_answer
from .jobs import enqueue_async, get_job_async
from .performers import Performer
from .shared_connections import Connections, SharedConnections, borrow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from datetime import timedelta

    from .handlers import Handlers

_log: Final = logging.getLogger("reconciler.run_endpoint")
_LARGEST_ID: Final = 2**63 - 1
_LAST_WORDS: Final = 5.0
_SHARE: Final = 0.95
"""Of the time that a platform gives: the rest is for giving back."""
_OPTIONS: Final = (
    *("queue", "run_at", "priority", "unique_key", "ordering_key", "max_attempts", "timeout", "type"),
)

Authorize: TypeAlias = "Callable[[str], Awaitable[Problem | None]]"
"""Lets a token in that is none of the endpoint's own, and says why where it does not."""


class RunEndpoint:
    """Answers calls. For one event loop.

    Args:
        database: A connection string, or a pool of psycopg_pool (`AsyncConnectionPool`).
        handlers: What does the jobs.
        tokens: Each of them opens it; two while a new one replaces an old one.
        rules: What one call may ask for.
        concurrency: How many jobs are done at once, over all calls.
        max_body: Bytes of a body at the most.
        authorize: Asked about every other token; with it the endpoint may have no token of its own.

    Attributes:
        max_body: As given.
        authorize: As given; whoever serves the endpoint may set it before the first call.

    Raises:
        ConfigError: There is no token, or the connection string is none.
    """

    def __init__(
        self,
        database: str | Connections,
        handlers: Handlers,
        *,
        tokens: str | Hidden | Iterable[str | Hidden],
        rules: RunRules | None = None,
        concurrency: int = 20,
        max_body: int = 8 * 1024 * 1024,
        authorize: Authorize | None = None,
    ) -> None:
        own = [tokens] if isinstance(tokens, str | Hidden) else list(tokens)
        self._tokens = BearerTokens(own) if own or authorize is None else None
        self._rules = rules or RunRules()
        self._own = SharedConnections(database) if isinstance(database, str) else None
        self._connections: Connections = self._own or database  # type: ignore[assignment] # one of both is there
        self._performer = Performer(self._connections, handlers, concurrency=concurrency)
        self._drains: dict[asyncio.Task[None], Drain] = {}
        self.max_body = max_body
        self.authorize = authorize

    async def refuse(self, call: Call) -> Answer | None:
        """Refuse a call that brings no right token, or too much; before its body is read.

        Args:
            call: Its body does not matter here.

        Returns:
            The refusal; None where the call may come in.
        """
        authorization = call.find_header("authorization")
        if self._tokens is None or not self._tokens.has(authorization):
            refusal = await self._refuse_token(authorization)
            if refusal is not None:
                return refusal
        length = call.find_header("content-length") or "0"
        if length.isdigit() and len(length) < 20 and int(length) > self.max_body:
            return self.refuse_body()
        return None

    async def _refuse_token(self, authorization: str | None) -> Answer | None:
        """Refuse a token that is none of ours, unless whoever runs the endpoint lets it in."""
        token = read_bearer(authorization)
        if token is None or self.authorize is None:
            return make_problem_answer(make_unauthorized(is_given=bool(authorization)))
        try:
            problem = await self.authorize(token)
        except ReconcilerError as error:
            return _explain(error)
        return None if problem is None else make_problem_answer(problem)

    def refuse_body(self) -> Answer:
        """Refuse a body that is too long."""
        return make_problem_answer(make_too_long(self.max_body))

    async def answer_run(self, call: Call, *, can_go_on: bool = True) -> Answer:
        """Claim jobs, do them, and answer with what became of each.

        Args:
            call: POST with `queue`, `status`, `limit`, `timeout` and `wait` in its query.
            can_go_on: Whether jobs may run on when the answer is out. Otherwise nobody is answered before all
                that has begun is over.

        Returns:
            200 with the results; 202 where the caller does not wait.
        """
        refusal = await self.refuse(call) or self._refuse_method(call, "POST")
        if refusal is not None:
            return refusal
        prefer = call.find_header("prefer") or ""
        request = parse_run_request(call.read_query(), [prefer], self._rules)
        if isinstance(request, Problem):
            return make_problem_answer(request)
        if self._performer.is_stopping:
            return make_problem_answer(make_stopping())
        if not request.is_waiting and can_go_on:
            is_preferred = "wait=" not in call.query
            return self._begin(request, {"Preference-Applied": "respond-async"} if is_preferred else {})
        drain = Drain(self._performer, request)
        task = self._start(drain)
        try:
            await asyncio.wait([task], timeout=request.budget.total_seconds() if can_go_on else None)
        except asyncio.CancelledError:
            # Nobody listens any more: what was claimed is done, the rest left to others.
            drain.leave()
            raise
        reports = drain.make_reports()
        if drain.error is not None and not reports:
            return make_problem_answer(make_problem(drain.error))
        return make_answer(render_run(request, reports, drain.error))

    async def answer_enqueue(self, call: Call) -> Answer:
        """Put a job on its queue.

        Args:
            call: POST with a JSON object: `name` (or `handler`), `run_at`, `payload`, `queue` and the other
                arguments of `enqueue`.

        Returns:
            201 with its id; 200 with the id of the open job that has its unique key.
        """
        refusal = await self.refuse(call) or self._refuse_method(call, "POST")
        if refusal is not None:
            return refusal
        if len(call.body) > self.max_body:
            return self.refuse_body()
        job = parse_new_job(call.body)
        if isinstance(job, Problem):
            return make_problem_answer(job)
        options = {name: getattr(job, name) for name in _OPTIONS}
        try:
            async with borrow(self._connections) as conn:
                put = await enqueue_async(conn, job.handler, job.payload, **options)
        except ReconcilerError as error:
            return _explain(error)
        return make_answer({"id": put.id, "created": put.created}, status=201 if put.created else 200)

    async def answer_job(self, call: Call, job_id: str) -> Answer:
        """Tell how a job fares.

        Args:
            call: GET.
            job_id: Of the job, as it stands in the path.

        Returns:
            200 with the job; 404 where there is none, or none any more.
        """
        refusal = await self.refuse(call) or self._refuse_method(call, "GET", "HEAD")
        if refusal is not None:
            return refusal
        is_id = job_id.isascii() and job_id.isdigit() and len(job_id) < 20 and int(job_id) <= _LARGEST_ID
        try:
            async with borrow(self._connections) as conn:
                job = await get_job_async(conn, int(job_id)) if is_id else None
        except ReconcilerError as error:
            return _explain(error)
        if job is None:
            problem = Problem(
                status=404,
                detail=f"there is no job {job_id[:20]}",
                remedy="finished jobs are kept for as long as their queue says",
            )
            return make_problem_answer(problem)
        return make_answer(render_job(job))

    def stop(self) -> None:
        """Claim no more jobs; those that run go on. Also for a handler of signals."""
        self._performer.stop()

    def interrupt(self) -> None:
        """Claim no more jobs, end those that run, and give them back."""
        self._performer.stop()
        self._performer.interrupt()

    async def aclose(self, *, grace: float | None = None) -> None:
        """Claim no more jobs, see those that run to their end, and close the connections that are ours.

        Args:
            grace: Seconds after which the rest is interrupted and given back; None for no limit.
        """
        self.stop()
        if self._drains:
            await asyncio.wait(self._drains, timeout=grace)
        if self._drains:
            self._performer.interrupt()
            await asyncio.wait(self._drains, timeout=_LAST_WORDS)
        await self._performer.aclose()
        if self._own is not None:
            await self._own.aclose()

    @staticmethod
    def _refuse_method(call: Call, *allowed: str) -> Answer | None:
        return None if call.method in allowed else make_problem_answer(make_method_problem(allowed))

    def _begin(self, request: RunRequest, headers: Mapping[str, str]) -> Answer:
        """Do the jobs of a call that does not wait."""
        asked = (request.queue, request.status)
        waiting = sum(
            drain.wanted
            for drain in self._drains.values()
            if (drain.request.queue, drain.request.status) == asked
        )
        # However often it is called, no more is put off than one call may ask for.
        limit = min(request.limit, self._rules.max_limit - waiting)
        if limit > 0:
            self._start(Drain(self._performer, replace(request, limit=limit)))
        document = {
            "queue": request.queue,
            "status": request.status,
            "limit": request.limit,
            "accepted": limit,
        }
        return make_answer(document, status=202, headers=headers)

    def _start(self, drain: Drain) -> asyncio.Task[None]:
        """Begin a drain that comes to its end whoever waits for it."""
        task = asyncio.create_task(drain.carry_out())
        self._drains[task] = drain
        task.add_done_callback(self._note_end)
        return task

    def _note_end(self, task: asyncio.Task[None]) -> None:
        drain = self._drains.pop(task)
        counts = Counter(report.status for report in drain.reports)
        if counts:
            _log.info(
                "%s: %s", drain.request.queue, ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))
            )
        if not task.cancelled() and task.exception() is not None:
            _log.error("the jobs of %s were left", drain.request.queue, exc_info=task.exception())


def _explain(error: ReconcilerError) -> Answer:
    problem = make_problem(error)
    if problem.status >= 500:
        _log.error("%s", render_cause(error))
    return make_problem_answer(problem)


async def handle_run_request_async(
    database: str | Connections,
    handlers: Handlers,
    *,
    tokens: str | Hidden | Iterable[str | Hidden],
    method: str = "POST",
    query: str = "",
    headers: Mapping[str, str] | None = None,
    rules: RunRules | None = None,
    concurrency: int = 20,
    deadline: timedelta | None = None,
) -> Answer:
    """Answer one call of the run endpoint, and leave nothing behind: for functions that come and go.

    Nothing goes on when the answer is out, so there is no answer before the jobs are done: `wait=false` and
    `Prefer: respond-async` change nothing here.

    Args:
        database: A connection string, or an `AsyncConnectionPool` of psycopg_pool.
        handlers: What does the jobs.
        tokens: Each of them opens it.
        method: Of the call.
        query: What follows the question mark.
        headers: Of the call, by name in any case.
        rules: What a call may ask for; `budget` is the time in which jobs may begin.
        concurrency: How many jobs are done at once.
        deadline: When the platform ends the function, from now: jobs that still run a moment before are
            interrupted and given back. None waits for them, each up to its own timeout.

    Returns:
        Status, headers and body.

    Raises:
        ConfigError: There is no token, or the connection string is none.
    """
    endpoint = RunEndpoint(database, handlers, tokens=tokens, rules=rules, concurrency=concurrency)
    timer = None
    if deadline is not None:
        timer = asyncio.get_running_loop().call_later(deadline.total_seconds() * _SHARE, endpoint.interrupt)
    try:
        call = Call(method=method.upper(), query=query, headers=headers or {})
        return await endpoint.answer_run(call, can_go_on=False)
    finally:
        if timer is not None:
            timer.cancel()
        await endpoint.aclose()


def handle_run_request(
    database: str,
    handlers: Handlers,
    *,
    tokens: str | Hidden | Iterable[str | Hidden],
    method: str = "POST",
    query: str = "",
    headers: Mapping[str, str] | None = None,
    rules: RunRules | None = None,
    concurrency: int = 20,
    deadline: timedelta | None = None,
) -> Answer:
    """Do the same as `handle_run_request_async`, where there is no event loop.

    Args:
        database: A connection string.
        handlers: As there.
        tokens: As there.
        method: As there.
        query: As there.
        headers: As there.
        rules: As there.
        concurrency: As there.
        deadline: As there.

    Returns:
        Status, headers and body.

    Raises:
        ConfigError: As there.
    """
    return asyncio.run(
        handle_run_request_async(
            database,
            handlers,
            tokens=tokens,
            method=method,
            query=query,
            headers=headers,
            rules=rules,
            concurrency=concurrency,
            deadline=deadline,
        )
    )
