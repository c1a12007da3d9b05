from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.request_rates import Bucket, Rate, find_level, find_wait, take_one

RATE = Rate(per_second=2.0, burst=3.0)


def test_somebody_new_may_send_a_burst() -> None:
    """And after it one each half second, at two a second."""
    bucket: Bucket | None = None
    for _ in range(3):
        assert find_wait(bucket, RATE, 100.0) == 0
        bucket = take_one(bucket, RATE, 100.0)
    assert find_wait(bucket, RATE, 100.0) == pytest.approx(0.5)
    assert find_wait(bucket, RATE, 100.25) == pytest.approx(0.25)
    assert find_wait(bucket, RATE, 100.5) == 0


def test_rest_fills_the_bucket_to_a_burst_and_no_more() -> None:
    """However long it was."""
    assert find_level(Bucket(level=0.0, at=0.0), RATE, 1000.0) == 3.0


def test_a_clock_that_goes_back_takes_nothing() -> None:
    """And gives nothing."""
    assert find_level(Bucket(level=1.5, at=10.0), RATE, 5.0) == 1.5


@given(st.floats(0.1, 1000), st.integers(1, 50), st.lists(st.floats(0, 5), min_size=1, max_size=80))
def test_in_any_time_no_more_come_in_than_burst_and_rate_allow(
    per_second: float, burst: int, pauses: list[float]
) -> None:
    """Whenever they come."""
    rate = Rate(per_second=per_second, burst=burst)
    bucket, now, let_in = None, 0.0, 0
    for pause in pauses:
        now += pause
        if find_wait(bucket, rate, now) == 0:
            bucket = take_one(bucket, rate, now)
            let_in += 1
        assert let_in <= burst + now * per_second + 1e-6
