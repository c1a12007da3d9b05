"""A text that does not print itself: a secret's value on its way from its store to its use."""

from __future__ import annotations

from typing import NoReturn

_MASK = "***"


class Hidden:
    """A secret's value. Printing, formatting and copying into JSON or a pickle do not show it.

    Args:
        text: The value.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the value; only for the call that needs it."""
        return self._text

    def __repr__(self) -> str:
        return _MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hidden) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a hidden text is not written anywhere")

    def __copy__(self) -> Hidden:
        return self

    def __deepcopy__(self, memo: object) -> Hidden:
        return self
