"""Tokens of the service: how they are written, what is kept of them, and what they open.

A token is `rct_<id>_<secret>`. The id finds its row; the secret is 32 random bytes, of which only the digest
is kept. Since it cannot be guessed, a quick hash is enough.
"""

from __future__ import annotations

import base64
import hmac
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Literal, get_args

from .hidden import Hidden

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

Scope = Literal["read", "trigger", "write", "run"]
"""What a token opens: looking; runs; jobs and queued jobs; the run endpoint."""
State = Literal["good", "expired", "revoked"]

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
ID_BYTES: Final = 10
SECRET_BYTES: Final = 32
UNKNOWN_DIGEST: Final = bytes(32)
"""What a secret is compared with where there is no such token, so that this takes as long."""

_TOKEN: Final = re.compile(r"rct_([a-z2-7]{16})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenToken:
    """A token as somebody sends it.

    Attributes:
        id: The public half.
        secret: The other half.
    """

    id: str
    secret: Hidden

    def render(self) -> Hidden:
        """Render the token as it is sent."""
        return Hidden(f"rct_{self.id}_{self.secret.reveal()}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiToken:
    """A token as it is kept.

    Attributes:
        id: The public half.
        name: What it was made for.
        digest: SHA-256 of the secret.
        scopes: What it opens.
        created_at: When it was made.
        created_by: The role that made it.
        expires_at: From when on it is no good; None for never.
        revoked_at: Since when it is no good; None where nobody revoked it.
        last_used_at: When it was used last, to ten minutes; None for never.
    """

    id: str
    name: str
    digest: bytes
    scopes: tuple[Scope, ...]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


def make_token(id_bytes: bytes, secret_bytes: bytes) -> GivenToken:
    """Make a token of random bytes.

    Args:
        id_bytes: 10 of them.
        secret_bytes: 32 of them, fit for secrets.

    Returns:
        The token.

    Raises:
        ValueError: Their numbers are others.
    """
    if len(id_bytes) != ID_BYTES or len(secret_bytes) != SECRET_BYTES:
        raise ValueError(f"a token is made of {ID_BYTES} and {SECRET_BYTES} bytes")
    secret = base64.urlsafe_b64encode(secret_bytes).decode().rstrip("=")
    return GivenToken(id=base64.b32encode(id_bytes).decode().lower(), secret=Hidden(secret))


def parse_token(text: str) -> GivenToken | None:
    """Read a token.

    Args:
        text: As it was sent.

    Returns:
        The token; None where the text is none.
    """
    found = _TOKEN.fullmatch(text)
    return None if found is None else GivenToken(id=found[1], secret=Hidden(found[2]))


def make_digest(given: GivenToken) -> bytes:
    """Make what is kept of a secret: 32 bytes."""
    return sha256(given.secret.reveal().encode("ascii")).digest()


def is_match(given: GivenToken, kept: ApiToken | None) -> bool:
    """Tell whether a token is the one that is kept; how long that takes says nothing about it.

    Args:
        given: As it was sent.
        kept: Of the same id; None where there is none, which takes as long.

    Returns:
        True for the same secret.
    """
    digest = UNKNOWN_DIGEST if kept is None else kept.digest
    return hmac.compare_digest(make_digest(given), digest) and kept is not None


def find_state(token: ApiToken, now: datetime) -> State:
    """Tell whether a token opens anything at a moment.

    Args:
        token: As it is kept.
        now: The moment, aware.
    """
    if token.revoked_at is not None:
        return "revoked"
    if token.expires_at is not None and token.expires_at <= now:
        return "expired"
    return "good"


def read_scopes(names: Iterable[str]) -> tuple[Scope, ...]:
    """Read scopes.

    Args:
        names: In any order, also several times the same.

    Returns:
        Each once, in the order of `SCOPES`.

    Raises:
        ValueError: There is none, or one of them is no scope.
    """
    wanted = set(names)
    unknown = sorted(wanted - set(SCOPES))
    if unknown:
        raise ValueError(f"there is no scope {unknown[0]}: they are {', '.join(SCOPES)}")
    if not wanted:
        raise ValueError(f"a token needs a scope: {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in wanted)
