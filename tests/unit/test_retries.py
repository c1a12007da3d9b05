from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.retries import next_wait

SECOND = timedelta(seconds=1)


def whole(attempt: int, *, factor: float = 2, initial: float = 30, maximum: float = 3600) -> float:
    """Return the whole wait in seconds."""
    return next_wait(
        attempt,
        initial=timedelta(seconds=initial),
        factor=factor,
        maximum=timedelta(seconds=maximum),
        chance=1,
    ).total_seconds()


def test_it_grows_by_the_factor_up_to_the_maximum() -> None:
    """After 30 seconds come a minute, two minutes and so on, and an hour at the most."""
    assert [whole(attempt) for attempt in range(1, 10)] == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]


def test_a_factor_of_one_keeps_the_first_wait() -> None:
    """Every wait is the same."""
    assert [whole(attempt, factor=1) for attempt in (1, 2, 1000)] == [30, 30, 30]


def test_an_initial_wait_beyond_the_maximum_is_cut() -> None:
    """The maximum holds for the first wait too."""
    assert whole(1, initial=60, maximum=10) == 10


@pytest.mark.parametrize(("chance", "seconds"), [(0, 15), (0.5, 22.5), (1, 30)])
def test_half_of_it_is_left_to_chance(chance: float, seconds: float) -> None:
    """The wait lies between half of the whole one and the whole one."""
    wait = next_wait(1, initial=30 * SECOND, factor=2, maximum=60 * SECOND, chance=chance)
    assert wait.total_seconds() == seconds


@given(
    attempt=st.integers(1, 10**9),
    initial=st.integers(1, 10**9),
    factor=st.floats(1, 1e6),
    maximum=st.integers(1, 10**9),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_any_wait_is_within_its_bounds(
    attempt: int, initial: int, factor: float, maximum: int, chance: float
) -> None:
    """Also after a billion attempts there is a wait, and it is not beyond the maximum."""
    longest = maximum * SECOND
    wait = next_wait(attempt, initial=initial * SECOND, factor=factor, maximum=longest, chance=chance)
    slack = timedelta(milliseconds=1)
    assert min(initial * SECOND, longest) / 2 - slack <= wait <= longest
