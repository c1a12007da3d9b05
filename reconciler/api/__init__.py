"""HTTP: the application that other programs mount, and that `reconciler serve` serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import make_app

__all__ = ["make_app"]


def __getattr__(name: str) -> Any:
    if name != "make_app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .app import make_app  # noqa: PLC0415 - who asks for the command's help does not wait for it

    return make_app
