"""Say in plain English at which times of the day a rule comes; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from reconciler.core.times.local_rules import render_ranges

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.core.times.local_rules import LocalRule

_FEW: Final = 6
_ALL_MINUTES: Final = frozenset(range(60))


def describe_times(rule: LocalRule) -> tuple[str, bool]:
    """Say the times of the day of a rule.

    Args:
        rule: Any.

    Returns:
        The words, and whether they name single times (`at 08:00`) more than a pace (`every 5 minutes`).
    """
    minutes, hours = rule.minutes, rule.hours
    pace = _find_even(minutes, 60)
    if rule.is_hourly:
        if pace:
            return f"every {_each(pace, 'minute')}" if pace < 60 else "every hour", False
        return f"at {spell_numbers(minutes, 'minute')} of every hour", False
    if len(minutes) * len(hours) <= _FEW and not (len(minutes) == 1 and _find_step(sorted(hours))):
        times = [render_clock(hour * 60 + minute) for hour in sorted(hours) for minute in sorted(minutes)]
        return f"at {join_words(times)}", True
    first, last = min(hours), max(hours)
    if len(minutes) == 1:
        minute = min(minutes)
        step = _find_step(sorted(hours))
        if step:
            ends = f"from {render_clock(first * 60 + minute)} to {render_clock(last * 60 + minute)}"
            return f"every {_each(step, 'hour')} {ends}", False
        return f"at minute {minute} past {spell_numbers(hours, 'hour')}", False
    if pace and len(hours) == last - first + 1:
        ends = f"from {render_clock(first * 60)} to {render_clock(last * 60 + max(minutes))}"
        return f"every {_each(pace, 'minute')} {ends}", False
    if minutes == _ALL_MINUTES:
        return f"every minute of {spell_numbers(hours, 'hour')}", False
    return f"at {spell_numbers(minutes, 'minute')} past {spell_numbers(hours, 'hour')}", False


def spell_numbers(numbers: frozenset[int], unit: str) -> str:
    """Say the values of a field.

    Args:
        numbers: At least one.
        unit: What they count.

    Returns:
        For instance `minute 7`, `hours 8 to 17`, `days 1, 3 and 20 to 25` or `every 2nd day from 1 to 31`.
    """
    ordered = sorted(numbers)
    step = _find_step(ordered)
    if step > 1 and len(ordered) > 3:
        return f"every {spell_ordinal(step)} {unit} from {ordered[0]} to {ordered[-1]}"
    return f"{unit}{'' if len(numbers) == 1 else 's'} {join_words(render_ranges(numbers, ' to '))}"


def join_words(words: Sequence[str]) -> str:
    """Join words as a sentence does: `a, b and c`."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def count(number: int, unit: str) -> str:
    """Say how many there are: `1 hour`, `2 hours`."""
    return f"{number} {unit}{'' if number == 1 else 's'}"


def render_clock(minutes: int) -> str:
    """Render minutes of a day as hours and minutes."""
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _each(step: int, unit: str) -> str:
    return unit if step == 1 else count(step, unit)


def _find_even(numbers: frozenset[int], size: int) -> int:
    """Find the step by which numbers go round from 0 without a seam; 0 for none."""
    step = size // len(numbers)
    return step if size % len(numbers) == 0 and numbers == frozenset(range(0, size, step)) else 0


def _find_step(ordered: Sequence[int]) -> int:
    """Find the one step between numbers; 0 for none, or for fewer than three."""
    step = ordered[1] - ordered[0] if len(ordered) > 2 else 0
    return step if step and list(ordered) == list(range(ordered[0], ordered[-1] + 1, step)) else 0


def spell_ordinal(number: int) -> str:
    """Say a number as a place in an order: `1st`, `22nd`."""
    ending = "th" if number % 100 in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
