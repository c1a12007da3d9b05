"""Who calls; known for a few seconds, so that not each request asks the database."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MEMORY: Final = 5.0
"""Seconds for which a token that was revoked may still be let in."""
_MOST: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls.

    Attributes:
        token_id: The public half of the token; it may be told.
        name: What the token was made for.
        scopes: What it opens.
        expires_at: From when on it opens nothing; None for never.
    """

    token_id: str
    name: str
    scopes: frozenset[str]
    expires_at: datetime | None = None

    def is_expired(self, now: datetime) -> bool:
        """Tell whether its token is too old."""
        return self.expires_at is not None and self.expires_at <= now


class KnownCallers:
    """Callers whose tokens were found good a moment ago, by the digests of these tokens.

    Args:
        clock: Seconds of a clock that nobody sets.
        most: How many are remembered.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, most: int = _MOST) -> None:
        self._clock = clock
        self._most = most
        self._known: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, token: str, now: datetime, *, within: float = MEMORY) -> Caller | None:
        """Find who a token belongs to.

        Args:
            token: As it was sent.
            now: The moment, aware.
            within: In how many seconds it has to have been found good.

        Returns:
            The caller; None where the database has to be asked.
        """
        with self._lock:
            found = self._known.get(_make_key(token))
        if found is None or self._clock() - found[0] >= within or found[1].is_expired(now):
            return None
        return found[1]

    def remember(self, token: str, caller: Caller) -> None:
        """Remember who a token belongs to, from now on."""
        key = _make_key(token)
        with self._lock:
            self._known[key] = (self._clock(), caller)
            self._known.move_to_end(key)
            while len(self._known) > self._most:
                self._known.popitem(last=False)

    def forget(self, token: str) -> None:
        """Forget whose token it was: it is no good any more."""
        with self._lock:
            self._known.pop(_make_key(token), None)


def _make_key(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()
