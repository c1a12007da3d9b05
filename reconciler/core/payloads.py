"""What JSON, and PostgreSQL's jsonb, cannot hold of a payload, each fault with its place; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEEPEST: Final = 1000
_MOST_BITS: Final = 10_000
_NO_TEXT: Final = "a character that PostgreSQL cannot keep: NUL, or half of a pair of surrogates"
_ADVICE: Final = {
    "bytes": "write it as text, such as base64",
    "date": "write its .isoformat()",
    "datetime": "write its .isoformat()",
    "time": "write its .isoformat()",
    "timedelta": "write its .total_seconds()",
    "UUID": "write str(...) of it",
    "Decimal": "write str(...) of it",
    "set": "write sorted(...) of it",
    "frozenset": "write sorted(...) of it",
}


class _Piece(NamedTuple):
    """A part of a payload that is still to be looked at."""

    value: Any
    place: str
    around: _Piece | None
    depth: int


def is_text(value: str) -> bool:
    """Tell whether PostgreSQL can keep a text.

    Args:
        value: Any.
    """
    return not any(one == "\0" or "\ud800" <= one <= "\udfff" for one in value)


def find_payload_faults(payload: object, place: str) -> Iterator[str]:
    """Find what of a payload cannot be kept.

    Args:
        payload: Anything.
        place: What it is called, for people.

    Yields:
        One sentence for each fault, in the payload's order.
    """
    # Without recursion: that it is nested too deeply, or holds itself, may be the fault.
    waiting = [_Piece(payload, place, None, 0)]
    while waiting:
        piece = waiting.pop()
        if not isinstance(piece.value, dict | list | tuple):
            yield from _find_value_faults(piece.value, piece.place)
        elif _is_within_itself(piece):
            yield f"{piece.place} holds itself"
        elif piece.depth >= _DEEPEST:
            yield f"{place} is nested more than {_DEEPEST} deep"
            return
        else:
            yield from _find_key_faults(piece)
            waiting += reversed(list(_open(piece)))


def _open(piece: _Piece) -> Iterator[_Piece]:
    if isinstance(piece.value, dict):
        for key, value in dict.items(piece.value):
            yield _Piece(value, f"{piece.place}.{key}", piece, piece.depth + 1)
    else:
        for number, value in enumerate(piece.value):
            yield _Piece(value, f"{piece.place}[{number}]", piece, piece.depth + 1)


def _is_within_itself(piece: _Piece) -> bool:
    around = piece.around
    while around is not None:
        if around.value is piece.value:
            return True
        around = around.around
    return False


def _find_value_faults(value: object, place: str) -> Iterator[str]:
    match value:
        case None | bool():
            return
        case str():
            if not is_text(value):
                yield f"{place} has {_NO_TEXT}"
        case int():
            if value.bit_length() > _MOST_BITS:
                yield f"{place} has too many digits"
        case float():
            if value - value != 0:
                yield f"{place} is {value}, which JSON cannot hold: write null"
        case _:
            yield f"{place} is of the class {type(value).__name__}, which JSON cannot hold{_advise(value)}"


def _find_key_faults(piece: _Piece) -> Iterator[str]:
    for key in piece.value if isinstance(piece.value, dict) else ():
        if isinstance(key, str):
            if not is_text(key):
                yield f"{piece.place} has a key with {_NO_TEXT}"
        elif isinstance(key, float) and key - key != 0:
            yield f"{piece.place} has the key {key}, which JSON cannot hold"
        elif not isinstance(key, int | float | None):
            yield f"{piece.place} has a key of the class {type(key).__name__}: keys are texts"


def _advise(value: object) -> str:
    if isinstance(value, Mapping):
        return ": write dict(...) of it"
    names = [kind.__name__ for kind in type(value).__mro__]
    advice = next((_ADVICE[name] for name in names if name in _ADVICE), "")
    return f": {advice}" if advice else ""
