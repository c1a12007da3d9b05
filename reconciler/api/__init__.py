"""HTTP: the application that other programs mount, and that `reconciler serve` serves."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .app import make_app
    from .assembly import make_service
    from .context import Limits

__all__ = ["Limits", "make_app", "make_service"]

_MODULES: Final = {"Limits": "context", "make_app": "app", "make_service": "assembly"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Who asks for the command's help does not wait for it.
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
