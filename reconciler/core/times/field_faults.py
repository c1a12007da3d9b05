"""Say what is wrong with one field of a schedule, and mend it; knows nothing of the other fields."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from reconciler.core.times.cron_fields import read_element, read_value
from reconciler.core.times.cron_grammar import DAY, HOUR, MINUTE, MONTH, WEEKDAY
from reconciler.core.times.dialects import describe_lack
from reconciler.core.times.month_days import DAY_NAMES, read_cron_weekday

if TYPE_CHECKING:
    from reconciler.core.times.cron_grammar import FieldKind
    from reconciler.core.times.dialects import Dialect


class FieldFault(NamedTuple):
    """Why a field is refused, and the field with all that can be mended mended."""

    reason: str
    mended: str


_FULL_NAMES: Final = {
    MONTH: (
        "january", "february", "march", "april", "may", "june",
        "july", "august", "september", "october", "november", "december",
    ),
    WEEKDAY: DAY_NAMES,
}  # fmt: skip
_NO_ELEMENTS: Final = {
    "": ("an element of the list is missing", ""),
    "?": ("`?` is not known, any value is `*`", "*"),
    "$": ("`$` stands alone, and in the day of month only", "$"),
}
_VALUE: Final = r"([0-9]+|[A-Za-z]+)"
_RANGE: Final = re.compile(rf"(?:\*|{_VALUE}(?:-{_VALUE})?)(?:/([0-9]+))?")
_READ: Final = re.compile(r"\*(?:/[0-9]+)?|[0-9A-Za-z]+(?:-[0-9A-Za-z]+(?:/[0-9]+)?)?")


def find_field_fault(kind: FieldKind, text: str, dialect: Dialect) -> FieldFault | None:
    """Explain a field that is not sound.

    Args:
        kind: Which of the five fields.
        text: Its text, without blanks.
        dialect: What the target's pg_cron reads.

    Returns:
        The first fault with the whole field mended as far as possible; None where the field is sound.
    """
    if text in {"$", "L", "l"} and kind is DAY:
        return _find_last_day_fault(text, dialect)
    faults = [(part, _find_element_fault(kind, part)) for part in text.split(",")]
    mended = ",".join(fault.mended if fault else part for part, fault in faults)
    return next((FieldFault(fault.reason, mended) for _, fault in faults if fault), None)


def _find_last_day_fault(text: str, dialect: Dialect) -> FieldFault | None:
    if not dialect.last_day:
        return FieldFault(describe_lack("the last day of the month", "1.6", dialect), text)
    return None if text == "$" else FieldFault("the last day of the month is written `$`", "$")


def _find_element_fault(kind: FieldKind, text: str) -> FieldFault | None:
    if read_element(kind, text) is not None:
        return None
    if text in _NO_ELEMENTS:
        return FieldFault(*_NO_ELEMENTS[text])
    if kind is WEEKDAY and text[-1] in "lL" and read_cron_weekday(text):
        return FieldFault(f"`{text}` is not known, there are no last weekdays", text)
    found = _RANGE.fullmatch(text)
    if found is None:
        return _find_skipped(text)
    first, last, step = found.groups()
    for name in (first, last):
        if name is not None and not kind.low <= read_value(kind, name) <= kind.high:
            return _find_value_fault(kind, text, name)
    bare = first if last is None else None
    return _find_step_fault(kind, text, bare, step) or _find_reversed(kind, first, last, step)


def _find_skipped(text: str) -> FieldFault:
    read = _READ.match(text)
    taken, rest = (read[0], text[read.end() :]) if read else ("", "")
    begun = rest[:1] in {"-", "/"} and rest[0] not in taken and (taken[0] != "*" or rest[0] == "/")
    if not rest or begun:
        return FieldFault(f"`{text}` cannot be read", text)
    what = {"#": "there are no nth weekdays", "~": "there are no random values"}.get(
        rest[0], "nothing may follow it"
    )
    return FieldFault(f"pg_cron reads `{taken}` at the most and skips `{rest}`: {what}", text)


def _find_value_fault(kind: FieldKind, text: str, name: str) -> FieldFault:
    if name.isdigit():
        reason = f"{name} is outside of {kind.low}-{kind.high}"
        return FieldFault(reason, "0" if kind is HOUR and text == "24" else text)
    if not kind.names:
        letters = {"H": "; there are no hashed values", "L": "; the last day is written `$`, alone"}
        return FieldFault(f"`{name}` is no number{letters.get(name.upper(), '')}", text)
    full = _FULL_NAMES[kind]
    lowered = name.lower().removesuffix("s")
    short = next((long[:3] for long in full if len(lowered) >= 3 and long.startswith(lowered)), None)
    reason = f"`{name}` is not known, names have three letters ({kind.names[0]} to {kind.names[-1]})"
    mended = text if short is None else re.sub(rf"\b{name}\b", short, text)
    return FieldFault(reason, _mend_again(kind, mended) if mended != text else text)


def _mend_again(kind: FieldKind, text: str) -> str:
    fault = _find_element_fault(kind, text)
    return fault.mended if fault else text


def _find_step_fault(kind: FieldKind, text: str, bare: str | None, step: str | None) -> FieldFault | None:
    if step is None:
        return None
    width = int(step)
    if width < 1:
        return FieldFault("a step is at least 1", text)
    if width > kind.high:
        # pg_cron before 1.6.5 takes it and runs at the first value only.
        whole = {MINUTE: 60, HOUR: 24}.get(kind) == width and text.startswith("*")
        return FieldFault(f"the step {step} is larger than {kind.high}", str(kind.low) if whole else text)
    if bare is not None:
        start = read_value(kind, bare)
        top = 6 if kind is WEEKDAY else kind.high
        mended = f"*/{step}" if start == kind.low else f"{bare}-{top}/{step}"
        return FieldFault("a step needs a range before it", mended)
    return None


def _find_reversed(kind: FieldKind, first: str | None, last: str | None, step: str | None) -> FieldFault:
    """Turn `22-2` into `22-23,0-2`; nothing else is left that could be wrong."""
    first, last = first or "", last or ""
    start, stop = read_value(kind, first), read_value(kind, last)
    reason = f"the range {first}-{last} runs backwards, which makes pg_cron run at other times or never"
    top = 6 if kind is WEEKDAY else kind.high
    if step is not None:
        size = top - kind.low + 1
        span = range(start, stop + size + 1, int(step))
        return FieldFault(reason, ",".join(str((value - kind.low) % size + kind.low) for value in span))
    low, high = str(kind.low), str(top)
    if kind.names and not (first + last).isdigit():
        low, high = kind.names[0], kind.names[-1]
    upper = "" if start > top else first if start == top else f"{first}-{high}"
    lower = last if stop == kind.low else f"{low}-{last}"
    return FieldFault(reason, f"{upper},{lower}" if upper else lower)
