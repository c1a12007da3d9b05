"""Places for jobs: as many as there are, to those first who came first."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from reconciler.runtime.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Coroutine


def run(scenario: Coroutine[None, None, None]) -> None:
    """Run a scenario to its end, which has to come soon."""
    asyncio.run(asyncio.wait_for(scenario, 5))


def test_no_more_than_there_are_are_handed_out() -> None:
    """Who wants more gets what is left; who finds none and does not wait gets none."""

    async def scenario() -> None:
        slots = Slots(3)
        assert [await slots.take(2, seconds=0) for _ in range(3)] == [2, 1, 0]
        assert await slots.take(1, seconds=0.05) == 0
        slots.give(3)
        assert await slots.take(9, seconds=0) == 3

    run(scenario())


def test_who_came_first_is_served_first() -> None:
    """Nobody who comes later overtakes one who waits, not even where a place is free in this very moment."""

    async def scenario() -> None:
        slots = Slots(2)
        await slots.take(2, seconds=0)
        first = asyncio.create_task(slots.take(2, seconds=5))
        second = asyncio.create_task(slots.take(1, seconds=5))
        await asyncio.sleep(0)
        slots.give(1)
        assert await slots.take(1, seconds=0) == 0
        slots.give(1)
        assert [await first, await second] == [1, 1]

    run(scenario())


def test_a_place_is_not_lost_with_who_waited_for_it() -> None:
    """One who gave up, or was cancelled in the moment in which he got a place, keeps none."""

    async def scenario() -> None:
        slots = Slots(1)
        await slots.take(1, seconds=0)
        assert await slots.take(1, seconds=0.01) == 0
        cancelled = asyncio.create_task(slots.take(1, seconds=5))
        await asyncio.sleep(0)
        slots.give(1)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        assert await slots.take(1, seconds=0) == 1

    run(scenario())


def test_everybody_can_be_sent_away() -> None:
    """Those who wait go at once, with nothing."""

    async def scenario() -> None:
        slots = Slots(1)
        await slots.take(1, seconds=0)
        waiting = [asyncio.create_task(slots.take(1, seconds=60)) for _ in range(2)]
        await asyncio.sleep(0)
        slots.send_away()
        assert [await one for one in waiting] == [0, 0]

    run(scenario())
