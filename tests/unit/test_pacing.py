"""How many jobs a worker claims ahead."""

from __future__ import annotations

from reconciler.core.pacing import HORIZON, MOST, Pace, count_ahead, count_claim, count_surplus, measure_pace


def learn(*looks: tuple[int, float, float], stuck: float = 0.0) -> Pace:
    """Learn from looks of (ended, mean duration, elapsed)."""
    pace = Pace()
    for ended, duration, elapsed in looks:
        pace = measure_pace(pace, ended=ended, busy=ended * duration, elapsed=elapsed, stuck=stuck)
    return pace


def test_at_first_nothing_is_claimed_ahead() -> None:
    """As long as nothing is known, only what can begin at once is claimed."""
    assert count_ahead(Pace(), concurrency=20) == 0
    assert count_claim(free=20, waiting=0, ahead=0) == 20


def test_jobs_of_microseconds_are_claimed_in_the_largest_batches() -> None:
    """A few looks are enough."""
    ahead = count_ahead(learn((20, 2e-6, 0.002), (1000, 2e-6, 0.02)), concurrency=20)
    assert ahead >= MOST
    assert count_claim(free=20, waiting=0, ahead=ahead) == MOST


def test_jobs_of_a_second_are_not_claimed_ahead() -> None:
    """Twenty of them at once, at twenty a second, keep three waiting."""
    assert count_ahead(learn((20, 1.0, 1.0)), concurrency=20) == 3
    assert count_ahead(learn((1, 10.0, 10.0)), concurrency=1) == 0


def test_a_burst_of_long_jobs_that_end_together_counts_as_long() -> None:
    """A hundred jobs of ten seconds that end within a millisecond are no reason to claim thousands."""
    assert count_ahead(learn((100, 10.0, 0.001)), concurrency=100) == 1


def test_jobs_that_keep_the_event_loop_busy_count_by_what_gets_done() -> None:
    """Twenty at once of a millisecond each, which exclude each other, are a thousand a second, not twenty."""
    looks = [(20, 0.001, 0.02)] * 50
    assert count_ahead(learn(*looks), concurrency=20) == int(1000 * 2 * HORIZON)


def test_jobs_that_become_slow_are_noticed_before_they_end() -> None:
    """Where all handlers are at their jobs for long, those count as long."""
    quick = learn((1000, 1e-5, 0.02))
    stuck = measure_pace(quick, ended=0, busy=0, elapsed=2.0, stuck=2.0)
    assert stuck.duration == 2.0
    assert count_ahead(stuck, concurrency=20) == 1


def test_a_moment_without_an_end_tells_nothing() -> None:
    """Jobs that have just begun are not taken for quick ones."""
    assert measure_pace(Pace(), ended=0, busy=0, elapsed=0.01, stuck=0.01).duration is None
    assert measure_pace(Pace(duration=1e-5), ended=0, busy=0, elapsed=0.01, stuck=0.01).duration == 1e-5


def test_a_quiet_time_forgets_the_rate_slowly() -> None:
    """After half a second without an end nothing is left of it; the duration stays."""
    pace = learn((1000, 1e-5, 0.02), (0, 0.0, 0.25))
    assert 0 < pace.rate < 50_000
    assert measure_pace(pace, ended=0, busy=0, elapsed=0.5).rate == 0
    assert measure_pace(pace, ended=0, busy=0, elapsed=0.0) == pace
    assert pace.duration is not None
    assert abs(pace.duration - 1e-5) < 1e-9


def test_handlers_that_take_no_time_at_all_are_as_quick_as_they_are_seen_to_be() -> None:
    """A clock that does not tick between begin and end divides by nothing."""
    assert count_ahead(learn((10, 0.0, 0.001)), concurrency=10) > 10


def test_a_claim_is_worth_its_round_trip() -> None:
    """While more than half of what may wait is there, nothing is claimed."""
    assert count_claim(free=0, waiting=600, ahead=1000) == 0
    assert count_claim(free=0, waiting=400, ahead=1000) == 600
    assert count_claim(free=5, waiting=5, ahead=0) == 0
    assert count_claim(free=5, waiting=2, ahead=0) == 3
    assert count_claim(free=0, waiting=0, ahead=0) == 0


def test_what_waits_for_long_is_given_back() -> None:
    """All but what may wait, once the first has waited ten times as long as meant."""
    assert count_surplus(waiting=900, ahead=3, waited=1.0) == 0
    assert count_surplus(waiting=900, ahead=3, waited=2.0) == 897
    assert count_surplus(waiting=2, ahead=3, waited=9.0) == 0
