"""Bearer tokens (RFC 6750): which ones may be given out, whether a call brings one, what it is told else."""

from __future__ import annotations

import hmac
import re
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from reconciler.errors import ConfigError

from .hidden import Hidden

if TYPE_CHECKING:
    from collections.abc import Iterable

_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")


class BearerTokens:
    """The tokens that open an endpoint; at least one. Several are good at once while one replaces another.

    Args:
        tokens: Their values.

    Raises:
        ConfigError: There is none, an empty one, or one that a header cannot carry.
    """

    __slots__ = ("_digests",)

    def __init__(self, tokens: Iterable[str | Hidden]) -> None:
        values = [token.reveal() if isinstance(token, Hidden) else token for token in tokens]
        if not values or not all(values):
            raise ConfigError(
                "the run endpoint has no token, so anybody could run jobs",
                remedy="give it one: a long random text that the workers send, too",
            )
        if not all(_VISIBLE.fullmatch(value) for value in values):
            raise ConfigError(
                "a token of the run endpoint holds blanks, line ends or letters outside of ASCII",
                remedy="use letters, digits, hyphens and underscores",
            )
        # Digests are of one length, so that comparing them does not tell how long a token is.
        self._digests = tuple(_digest(value) for value in values)

    def has(self, authorization: str | None) -> bool:
        """Tell whether a call may come in; how long that takes says nothing about the tokens.

        Args:
            authorization: The header of that name.

        Returns:
            True for `Bearer` with one of the tokens.
        """
        token = read_bearer(authorization)
        given = _digest(token or "")
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        return token is not None and any(matches)


def read_bearer(authorization: str | None) -> str | None:
    """Read the token of a call.

    Args:
        authorization: The header of that name.

    Returns:
        The token; None where there is none, or one of another scheme.
    """
    scheme, _, token = (authorization or "").strip().partition(" ")
    return (token.strip() or None) if scheme.lower() == "bearer" else None


def make_challenge(error: str = "", *, scope: str = "") -> str:
    """Make the header WWW-Authenticate of an answer to a call that may not come in.

    Args:
        error: Of RFC 6750, section 3.1; "" where the call brings no token.
        scope: That the token lacks; "" for none.
    """
    named = {"realm": "reconciler", "error": error, "scope": scope}
    return "Bearer " + ", ".join(f'{name}="{value}"' for name, value in named.items() if value)


def _digest(value: str) -> bytes:
    return sha256(value.encode("utf-8", "surrogatepass")).digest()
