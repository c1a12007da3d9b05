"""Carry out what a generator asks for, one step after the other, waiting in a thread or being awaited.

Who plans the steps decides: he is told the answer to each, or the error it ended with, and yields the next.
So what is decided stands once, although it is done over connections of two kinds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

_Step = TypeVar("_Step")
_Result = TypeVar("_Result")


def carry_out(steps: Generator[_Step, Any, _Result], do: Callable[[_Step], Any]) -> _Result:
    """Carry steps out.

    Args:
        steps: Yields them; it is thrown the error of one that failed.
        do: Does one, and returns its answer.

    Returns:
        What the generator returns.
    """
    try:
        step = next(steps)
        while True:
            try:
                answer = do(step)
            except BaseException as error:  # noqa: BLE001 - who planned the steps decides what follows
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as stop:
        result: _Result = stop.value
        return result


async def carry_out_async(
    steps: Generator[_Step, Any, _Result], do: Callable[[_Step], Awaitable[Any]]
) -> _Result:
    """Do the same as `carry_out` with steps that are awaited.

    Args:
        steps: As there.
        do: Does one; its answer is awaited.

    Returns:
        As there.
    """
    try:
        step = next(steps)
        while True:
            try:
                answer = await do(step)
            except BaseException as error:  # noqa: BLE001 - the same
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as stop:
        result: _Result = stop.value
        return result
