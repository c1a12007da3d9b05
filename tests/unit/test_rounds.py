"""Rounds without a clock: when the next one comes, what a failure does, and how it all ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from reconciler.errors import ConnectError, ReconcilerError
from reconciler.runtime.rounds import run_rounds

LOST = ConnectError("the server went away")


@dataclass
class World:
    """A clock that only moves when somebody waits or works, and a list of what the rounds are to do.

    Attributes:
        script: Of each round: how many seconds it takes, and what it raises.
        now: The time in seconds.
        begins: When each round began.
        waits: What was told of failures, in seconds.
        beats: When a sign of life was given, and after how many rounds.
        longest: The longest single pause.
    """

    script: list[tuple[float, Exception | None]]
    now: float = 100.0
    begins: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    beats: list[tuple[float, int]] = field(default_factory=list)
    longest: float = 0.0
    stop_at: float = float("inf")

    def turn(self) -> None:
        """Do what the script says."""
        self.begins.append(self.now - 100)
        seconds, error = self.script[len(self.begins) - 1]
        self.now += seconds
        if error is not None:
            raise error

    def pause(self, seconds: float) -> None:
        """Let time go by."""
        self.longest = max(self.longest, seconds)
        self.now += seconds

    def run(self, interval: float = 60, chance: float = 1.0) -> World:
        """Run until the script is over."""
        run_rounds(
            self.turn,
            interval=timedelta(seconds=interval),
            complain=lambda _, wait: self.waits.append(wait.total_seconds()),
            beat=lambda rounds: self.beats.append((self.now - 100, rounds)),
            monotonic=lambda: self.now,
            pause=self.pause,
            chance=lambda: chance,
            is_stopping=lambda: len(self.begins) == len(self.script) or self.now - 100 >= self.stop_at,
        )
        return self


def test_rounds_begin_at_the_interval() -> None:
    """From begin to begin, however long one took."""
    assert World([(0, None), (20, None), (0, None)]).run().begins == pytest.approx([0, 60, 120])


def test_a_round_longer_than_the_interval_is_followed_after_a_breath() -> None:
    """They do not pile up, and none begins in the same moment in which one ended."""
    assert World([(90, None), (0, None), (0, None)]).run().begins == pytest.approx([0, 91, 151])


def test_a_failing_round_is_tried_sooner_and_then_less_and_less_often() -> None:
    """From five seconds up to a minute where the interval is shorter; the first good round begins anew."""
    world = World([(0, LOST)] * 6 + [(0, None), (0, LOST), (0, None)]).run(interval=5)
    assert world.waits == pytest.approx([5, 10, 20, 40, 60, 60, 5])
    assert world.begins[6] - world.begins[5] == pytest.approx(60)
    assert world.begins[7] - world.begins[6] == pytest.approx(5)


def test_failures_wait_no_longer_than_a_long_interval() -> None:
    """With rounds each five minutes, a database that is gone for hours is tried each five minutes."""
    assert World([(0, LOST)] * 9).run(interval=300).waits[-2:] == pytest.approx([300, 300])


def test_chance_spreads_the_tries_of_many_processes() -> None:
    """Half of each wait is left to it."""
    assert World([(0, LOST)] * 2).run(chance=0.0).waits == pytest.approx([2.5, 5])


def test_what_is_no_error_of_ours_ends_it() -> None:
    """A fault in the tool is not hidden behind a line in a log."""
    with pytest.raises(ZeroDivisionError):
        World([(0, ZeroDivisionError()), (0, None)]).run()


def test_a_sign_of_life_comes_once_an_hour() -> None:
    """Not more often, also where rounds fail."""
    world = World([(0, None if number % 2 else ReconcilerError("no")) for number in range(400)]).run()
    assert len(world.beats) >= 2
    assert all(
        later[0] - first[0] >= 3600 for first, later in zip(world.beats, world.beats[1:], strict=False)
    )


def test_a_wish_to_stop_is_seen_within_a_second_of_a_long_wait() -> None:
    """Nothing more is begun, and no wait is slept through."""
    world = World([(0, None)] * 9, stop_at=7.5).run(interval=3600)
    assert world.begins == [0]
    assert world.now - 100 == pytest.approx(8)
    assert world.longest <= 1
