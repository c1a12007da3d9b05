"""A second prefix for the API: paths below it are those below /api; knows no route."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from reconciler.errors import ConfigError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

PREFIX: Final = "/api"
"""Below which the API always is."""
_RUN: Final = "/jobs/run"
_SOUND: Final = re.compile(r"(/[A-Za-z0-9._~-]+)*")


def read_prefix(text: str) -> str:
    """Read a prefix.

    Args:
        text: Such as `/internal`; "" for none.

    Returns:
        The same without a slash at its end.

    Raises:
        ConfigError: Paths cannot begin with it.
    """
    prefix = text.rstrip("/")
    if _SOUND.fullmatch(prefix) is None:
        raise ConfigError(
            f"no path can begin with the prefix {text!r}", remedy="write it as /internal, or as /jobs/api"
        )
    return prefix


class OtherPrefix:
    """Answers what lies below another prefix as if it were below /api; without one, the run endpoint alone.

    Args:
        app: The application.
        prefix: From `read_prefix`.
    """

    def __init__(self, app: ASGIApp, *, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            scope = self._move(scope)
        await self._app(scope, receive, send)

    def _move(self, scope: Scope) -> Scope:
        root = str(scope.get("root_path", ""))
        path = str(scope["path"]).removeprefix(root)
        rest = path.removeprefix(self._prefix)
        is_below = path == _RUN if not self._prefix else path.startswith(f"{self._prefix}/")
        if not is_below:
            return scope
        moved = f"{root}{PREFIX}{rest}"
        return {**scope, "path": moved, "raw_path": moved.encode()}
