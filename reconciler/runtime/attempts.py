"""One try of a queued job: call its handler, and say as data how it ended. Knows nothing of the database.

A coroutine is driven by hand, in the caller's task: one that never waits costs no task, no timer and no turn
of the event loop. Each try has a context of its own: no context variable gets from one job to the next.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import types
from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from reconciler.core.results import encode_result
from reconciler.database.endings import make_ending

from .handlers import Fail, Retry, Snooze
from .threads import AbandonedError
from .tracing import is_tracing, span

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from contextvars import Context
    from datetime import timedelta

    from .handlers import Handler, Handlers, Job
    from .threads import Threads
    from .tracing import Value

_log: Final = logging.getLogger("reconciler.worker")
_OWN_FILES: Final = (__file__, __file__.replace("attempts", "threads"))
_LONGEST_ERROR: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """It is done.

    Attributes:
        result: What the handler returned, as a JSON text; None for None.
        note: Why the result is not kept, where it cannot be.
    """

    result: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The try failed.

    Attributes:
        error: Class, message and the end of the traceback.
        retry_in: When to try again, in place of the queue's backoff.
        final: Whether there are to be no more tries.
    """

    error: str
    retry_in: timedelta | None = None
    final: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Snoozed:
    """It is to be done later, and this was no try.

    Attributes:
        delay: How much later.
    """

    delay: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """It was not done, and this was no try: who runs it stops, or lost its lease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """Somebody cancelled it, and it ended.

    Attributes:
        reason: For people; "" to name who cancelled it.
    """

    reason: str = ""


Outcome: TypeAlias = Completed | Failed | Snoozed | Returned | Cancelled

_DONE: Final = Completed()
_RETURNED: Final = Returned()


async def attempt(
    job: Job, handlers: Handlers, threads: Threads, *, on_wait: Callable[[], object] | None = None
) -> Outcome:
    """Call a job's handler once.

    Args:
        job: As claimed; `job.stop` ends it from outside.
        handlers: That are known here.
        threads: In which functions that are no coroutines are called.
        on_wait: Called when the handler first waits for something.

    Returns:
        How it ended, whatever the handler did. After `job.stop` the handler's own answer counts where it
        gives one; else it is Failed for timed_out, Cancelled for cancelled, Returned for lost and stopping.

    Raises:
        asyncio.CancelledError: The caller's own task was cancelled, not by `job.stop`.
    """
    if is_tracing():
        return await _attempt_traced(job, handlers, threads, on_wait)
    return await _attempt(job, handlers, threads, on_wait)


async def _attempt_traced(
    job: Job, handlers: Handlers, threads: Threads, on_wait: Callable[[], object] | None
) -> Outcome:
    """Make the try a span, and what the handler does its children."""
    claimed = job.claimed
    attributes: dict[str, Value] = {
        "messaging.system": "reconciler",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": claimed.queue,
        "messaging.message.id": str(claimed.id),
        "reconciler.job.handler": claimed.handler,
        "reconciler.job.attempt": claimed.attempt,
    }
    with span(f"process {claimed.queue}", kind="consumer", attributes=attributes) as seen:
        outcome = await _attempt(job, handlers, threads, on_wait)
        ended = type(outcome).__name__.lower()
        seen.note(job__outcome=ended)
        if isinstance(outcome, Failed):
            seen.fail(job.stop_reason or ended)
        return outcome


async def _attempt(
    job: Job, handlers: Handlers, threads: Threads, on_wait: Callable[[], object] | None
) -> Outcome:
    if job.stop_reason:
        return _judge_stop(job)
    handler = handlers.find(job.claimed.handler)
    if handler is None:
        return _refuse(job, handlers)
    context = copy_context()
    try:
        if handler.is_async:
            coroutine = handler.bind(job)()
            try:
                blocked = context.run(coroutine.send, None)
            except StopIteration as stop:
                value = stop.value
            else:
                if on_wait is not None:
                    on_wait()
                value = await _go_on(job, coroutine, context, blocked)
        else:
            value = await _call_in_thread(job, handler, context, threads, on_wait)
    except BaseException as error:  # noqa: BLE001 - whatever a handler raises is an outcome
        return _judge(job, error)
    if value is None:
        return _DONE
    result, note = encode_result(value)
    return Completed(result=result, note=note)


def render_error(error: BaseException) -> str:
    """Describe what a handler raised.

    Args:
        error: With its traceback.

    Returns:
        Class and message; below, the end of the traceback without frames of ours.
    """
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename in _OWN_FILES:
        frames = frames.tb_next
    ending = make_ending(error.with_traceback(frames), "failed")
    head = f"{ending.message} (SQLSTATE {ending.sqlstate})" if ending.sqlstate else ending.message or ""
    where = ending.context if frames is not None or ending.sqlstate else None
    text = "\n".join(part for part in (head, ending.detail, where) if part)
    return text[:_LONGEST_ERROR]


def _refuse(job: Job, handlers: Handlers) -> Failed:
    name = job.claimed.handler
    nearest = handlers.suggest(name)
    hint = f"; did you mean {nearest}?" if nearest else ""
    return Failed(
        error=f"no handler is named {name} in this worker{hint or '.'} "
        f"Register it, or let a worker that has it serve the queue {job.claimed.queue}"
    )


def _judge(job: Job, error: BaseException) -> Outcome:
    match error:
        case Snooze():
            return Snoozed(delay=error.delay)
        case Retry():
            return Failed(error=str(error), retry_in=error.delay)
        case Fail():
            return Failed(error=str(error), final=True)
        case asyncio.CancelledError() | AbandonedError() if job.stop_reason:
            return _judge_stop(job)
        case asyncio.CancelledError():
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise error
    return Failed(error=render_error(error))


def _judge_stop(job: Job) -> Outcome:
    match job.stop_reason:
        case "timed_out":
            return Failed(error=job.stop_text)
        case "cancelled":
            return Cancelled(reason=job.stop_text)
    return _RETURNED


async def _go_on(job: Job, coroutine: Coroutine[Any, Any, Any], context: Context, blocked: Any) -> Any:
    """Bring a coroutine to its end that waits for something, with its time limit."""
    loop = asyncio.get_running_loop()
    timer = loop.call_later(job.claimed.timeout, _stop_late, job)
    try:
        return await _drive(job, coroutine, context, blocked)
    finally:
        timer.cancel()


@types.coroutine
def _drive(
    job: Job, coroutine: Coroutine[Any, Any, Any], context: Context, blocked: Any
) -> Generator[Any, Any, Any]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - only tasks drive coroutines
    told = 0

    def interrupt(_reason: str) -> None:
        nonlocal told
        told += 1
        task.cancel()

    try:
        while True:
            # It may have been stopped by something that it called itself.
            if job.stop_reason and not told:
                interrupt(job.stop_reason)
            job.interrupt = interrupt
            step: Callable[[Any], Any] = coroutine.send
            try:
                value = yield blocked
            except BaseException as error:  # noqa: BLE001 - goes to the handler
                step, value = coroutine.throw, error
            job.interrupt = None
            try:
                blocked = context.run(step, value)
            except StopIteration as stop:
                return stop.value
    finally:
        job.interrupt = None
        for _ in range(told):
            task.uncancel()


def _stop_late(job: Job) -> None:
    job.is_late = True
    job.stop("timed_out", describe_lateness(job))


def describe_lateness(job: Job) -> str:
    """Say for people that a job's time is over.

    Args:
        job: The job.
    """
    return f"timed out: it took longer than {job.claimed.timeout:g} s"


async def _call_in_thread(
    job: Job, handler: Handler, context: Context, threads: Threads, on_wait: Callable[[], object] | None
) -> Any:
    """Call a function in a thread; one that outlasts its time is left behind there."""
    work = threads.start(lambda: context.run(handler.bind(job)))
    if on_wait is not None:
        on_wait()
    timer = asyncio.get_running_loop().call_later(job.claimed.timeout, _stop_late, job)

    def interrupt(reason: str) -> None:
        # A function cannot be ended from outside. One that is cancelled, or lost its lease, is waited for.
        if reason in {"timed_out", "stopping"}:
            threads.abandon(work)

    job.interrupt = interrupt
    try:
        value = await work.future
    finally:
        timer.cancel()
        job.interrupt = None
        if not work.future.done() or work.future.cancelled():
            threads.abandon(work)
    if inspect.isawaitable(value):
        value = await _await_late(job, value, context)
    return value


async def _await_late(job: Job, value: Any, context: Context) -> Any:
    """Await what a function in a thread returned: it was a coroutine function in disguise."""

    async def wait() -> Any:
        return await value

    coroutine = wait()
    try:
        blocked = context.run(coroutine.send, None)
    except StopIteration as stop:
        return stop.value
    return await _go_on(job, coroutine, context, blocked)
