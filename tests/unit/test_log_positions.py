"""How far the log was read."""

from __future__ import annotations

from reconciler.core.log_positions import LogPosition


def test_runs_that_go_on_are_looked_at_again_once_they_are_over() -> None:
    """A run that was not over is wanted when it no longer goes on, and never again."""
    position = LogPosition(mark=3, running=frozenset({2, 3}))
    assert position.list_wanted([3]) == [2]
    moved = position.move_on([2, 4], [3], mark=4, snapshot=(10, 10))
    assert moved == LogPosition(mark=4, running=frozenset({3}))


def test_a_number_that_was_not_seen_is_asked_for_until_nobody_can_use_it() -> None:
    """A run whose transaction ended late is counted; a number that was given up is forgotten."""
    position = LogPosition(mark=0).move_on([1, 4], [], mark=4, snapshot=(50, 60))
    assert position.gaps == {2: 60, 3: 60}
    later = position.move_on([2], [], mark=4, snapshot=(55, 70))
    assert later.gaps == {3: 60}
    assert later.list_wanted([]) == [3]
    assert later.move_on([], [], mark=4, snapshot=(60, 80)).gaps == {}


def test_numbers_missing_at_the_end_count_as_well() -> None:
    """The highest number may be of a row that is gone from what was read."""
    assert LogPosition(mark=0).move_on([1], [], mark=3, snapshot=(1, 2)).gaps == {2: 2, 3: 2}


def test_a_wide_hole_is_not_listed_whole() -> None:
    """A sequence that was set forward by a billion costs no memory."""
    moved = LogPosition(mark=0).move_on([10**9], [], mark=10**9, snapshot=(1, 2))
    assert len(moved.gaps) == 10_000
    assert max(moved.gaps) == 10**9 - 1


def test_runs_above_the_mark_are_left_to_the_next_look() -> None:
    """Where a look could not read everything, what lies behind is new to the next one."""
    moved = LogPosition(mark=0).move_on([1], [1, 9], mark=1, snapshot=(1, 2))
    assert moved.running == frozenset({1})
