"""One try of a job: what its handler does is an outcome, always."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextvars import ContextVar
from datetime import timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.runtime.attempts import Cancelled, Completed, Failed, Returned, Snoozed, attempt
from reconciler.runtime.handlers import Fail, Handlers, Job, Retry, Snooze
from reconciler.runtime.threads import Threads
from tests.attempted import make_job, try_once

if TYPE_CHECKING:
    from collections.abc import Callable

STOPS = ["timed_out", "cancelled", "lost", "stopping"]


def run(function: Callable[..., Any], payload: object = None, **fields: Any) -> Any:
    """Try a job once, in an event loop of its own."""
    return asyncio.run(try_once(function, payload, **fields))


def kinds(function: Callable[[], Any]) -> list[Callable[..., Any]]:
    """Make of a function one that runs in a thread, a coroutine that never waits, and one that waits."""

    async def at_once() -> Any:
        return function()

    async def later() -> Any:
        await asyncio.sleep(0)
        return function()

    return [function, at_once, later]


def raise_(error: BaseException) -> Any:
    """Raise an error, as an expression."""
    raise error


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_what_a_handler_returns_is_the_result(kind: int) -> None:
    """As JSON text; None is no result."""
    assert run(kinds(lambda: {"a": [1]})[kind]) == Completed(result='{"a":[1]}')
    assert run(kinds(lambda: None)[kind]) == Completed()


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_a_result_that_json_cannot_hold_is_done_all_the_same(kind: int) -> None:
    """Doing it again would be worse: a note tells what was not kept."""
    assert run(kinds(lambda: {"a": object()})[kind]) == Completed(
        note="the result was not kept: the result.a is of the class object, which JSON cannot hold"
    )


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_an_error_fails_the_try(kind: int) -> None:
    """Class, message and the handler's own frames are told, none of ours."""
    outcome = run(kinds(lambda: raise_(ValueError("no such order")))[kind])
    assert isinstance(outcome, Failed)
    assert outcome.error.startswith("ValueError: no such order\nTraceback")
    assert "test_attempts.py" in outcome.error
    assert "attempts.py" not in outcome.error.replace("test_attempts.py", "")
    assert (outcome.retry_in, outcome.final) == (None, False)


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("error", [SystemExit(3), StopIteration(1), asyncio.CancelledError("x")])
def test_whatever_is_raised_fails_the_try(kind: int, error: BaseException) -> None:
    """Also what would end a process, a loop or a task."""
    assert isinstance(run(kinds(lambda: raise_(error))[kind]), Failed)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_a_handler_says_how_it_goes_on(kind: int) -> None:
    """Snooze, Retry and Fail are outcomes of their own."""
    assert run(kinds(lambda: raise_(Snooze(60)))[kind]) == Snoozed(delay=timedelta(minutes=1))
    assert run(kinds(lambda: raise_(Retry(5, "busy")))[kind]) == Failed(
        error="busy", retry_in=timedelta(seconds=5)
    )
    assert run(kinds(lambda: raise_(Fail("no such address")))[kind]) == Failed(
        error="no such address", final=True
    )


def test_wrong_arguments_fail_the_try() -> None:
    """A payload that does not fit the handler is told as Python tells it."""
    outcome = run(lambda a: a, {"b": 1})
    assert isinstance(outcome, Failed)
    assert "got an unexpected keyword argument 'b'" in outcome.error


def test_an_unknown_handler_fails_the_try() -> None:
    """The name that was meant is suggested."""
    outcome = run(lambda: None, handler="work.dp")
    assert isinstance(outcome, Failed)
    assert outcome.error.startswith("no handler is named work.dp in this worker; did you mean work.do?")


def test_a_coroutine_that_takes_too_long_is_cancelled() -> None:
    """It fails with its limit, in time, and its finally blocks are run."""
    cleaned = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append(True)

    began = time.monotonic()
    assert run(slow, timeout=0.05) == Failed(error="timed out: it took longer than 0.05 s")
    assert time.monotonic() - began < 1
    assert cleaned


def test_a_function_that_takes_too_long_is_left_behind() -> None:
    """The try fails in time; its thread is counted until it comes back, and others take its place."""
    over = threading.Event()

    async def check() -> None:
        handlers, threads = Handlers(), Threads(1)
        handlers.register(lambda: over.wait(10), "work.do")
        handlers.register(lambda: 7, "other")
        outcome = await attempt(make_job(timeout=0.05), handlers, threads)
        assert outcome == Failed(error="timed out: it took longer than 0.05 s")
        assert threads.hanging == 1
        assert await attempt(make_job("other"), handlers, threads) == Completed(result="7")
        over.set()
        for _ in range(500):
            if threads.hanging:
                await asyncio.sleep(0.01)
        assert await attempt(make_job("other"), handlers, threads) == Completed(result="7")
        threads.close()

    asyncio.run(asyncio.wait_for(check(), 10))


@pytest.mark.parametrize("kind", ["coroutine", "function"])
@pytest.mark.parametrize("reason", STOPS)
def test_a_job_is_ended_from_outside(kind: str, reason: str) -> None:
    """A coroutine is cancelled; a function asks, or is left behind where nobody waits any more."""
    outcomes = {
        "timed_out": Failed(error="why"),
        "cancelled": Cancelled(reason="why"),
        "lost": Returned(),
        "stopping": Returned(),
    }

    async def wait() -> None:
        await asyncio.sleep(60)

    def ask(job: Job) -> None:
        while not job.is_cancelled():
            time.sleep(0.005)
        raise asyncio.CancelledError

    async def check() -> None:
        job = make_job()
        asyncio.get_running_loop().call_later(0.05, job.stop, reason, "why")
        assert await try_once(wait if kind == "coroutine" else ask, job=job) == outcomes[reason]
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    asyncio.run(check())


@pytest.mark.parametrize("reason", STOPS)
def test_a_handler_that_was_told_to_end_may_finish(reason: str) -> None:
    """What it returns counts: the work is done."""

    async def finish() -> int:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
        return 7

    async def check() -> None:
        job = make_job()
        asyncio.get_running_loop().call_later(0.02, job.stop, reason, "why")
        assert await try_once(finish, job=job) == Completed(result="7")
        await asyncio.sleep(0.01)  # no cancellation is left over for who tried it

    asyncio.run(check())


def test_a_job_that_was_ended_before_it_began_does_not_begin() -> None:
    """Its handler is not called."""
    job = make_job()
    job.stop("lost", "")
    assert run(lambda: raise_(AssertionError()), job=job) == Returned()


def test_a_handler_that_ends_itself_is_cancelled_at_its_next_wait() -> None:
    """job.stop by the handler's own doing reaches it although nothing waited then."""

    async def suicidal(job: Job) -> None:
        job.stop("cancelled", "by itself")
        await asyncio.sleep(60)

    assert run(suicidal) == Cancelled(reason="by itself")


def test_a_cancelled_caller_is_not_swallowed() -> None:
    """When the task that tries a job is cancelled itself, that goes on its way."""

    async def check() -> None:
        task = asyncio.create_task(try_once(lambda: time.sleep(0.2)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(check())


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_no_context_variable_gets_from_one_job_to_the_next(kind: int) -> None:
    """What a handler sets is gone after it, although the task is the same; within it, it stays."""
    variable: ContextVar[int] = ContextVar("variable", default=0)

    async def waits() -> int:
        variable.set(variable.get() + 1)
        await asyncio.sleep(0)
        return variable.get()

    function = kinds(lambda: (variable.set(variable.get() + 1), variable.get())[1])[kind]

    async def check() -> None:
        for one in (function, waits):
            assert await try_once(one) == await try_once(one) == Completed(result="1")
        assert variable.get() == 0

    asyncio.run(check())


def test_a_coroutine_function_in_disguise_is_awaited() -> None:
    """A decorator that hides it makes a function which returns a coroutine."""

    def disguise(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*values: Any) -> Any:
            return function(*values)

        return call

    async def work(wait: bool) -> int:
        if wait:
            await asyncio.sleep(0.01)
        return 7

    assert run(disguise(work), [True]) == Completed(result="7")
    assert run(lambda: work(wait=True)) == run(lambda: work(wait=False)) == Completed(result="7")


def test_tools_of_asyncio_work_within_a_handler() -> None:
    """Timeouts, task groups and shields see the one task that they expect."""

    async def work() -> list[str]:
        seen = []
        try:
            async with asyncio.timeout(0.02):
                await asyncio.sleep(60)
        except TimeoutError:
            seen.append("timeout")
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        seen.append("group")
        await asyncio.shield(asyncio.sleep(0))
        return seen

    assert run(work) == Completed(result='["timeout","group"]')


def test_jobs_wait_for_a_thread() -> None:
    """No more calls than threads go on at once."""
    lock, now, most = threading.Lock(), [0], [0]

    def work() -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1

    async def check() -> None:
        handlers, threads = Handlers(), Threads(2)
        handlers.register(work, "work.do")
        await asyncio.gather(*(attempt(make_job(), handlers, threads) for _ in range(6)))
        threads.close()

    asyncio.run(check())
    assert most == [2]


def test_a_call_that_nobody_waits_for_is_not_begun() -> None:
    """What is left behind while it waits for a thread is dropped."""
    calls: list[int] = []

    async def check() -> None:
        threads = Threads(1)
        first = threads.start(lambda: time.sleep(0.05))
        second = threads.start(lambda: calls.append(1))
        threads.abandon(second)
        threads.abandon(second)
        await first.future
        await threads.start(lambda: None).future
        assert threads.hanging == 0
        threads.close()

    asyncio.run(check())
    assert calls == []


def test_an_error_that_cannot_be_shown_still_fails_the_try(caplog: pytest.LogCaptureFixture) -> None:
    """Its class is told at least."""

    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    with caplog.at_level(logging.ERROR):
        outcome = run(lambda: raise_(BrokenError()))
    assert isinstance(outcome, Failed)
    assert outcome.error.startswith("BrokenError")
