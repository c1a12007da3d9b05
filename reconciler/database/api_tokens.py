"""Tokens of the service in the database: make, list, revoke, find. Sees digests, never what opens."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from psycopg import errors
from psycopg.rows import dict_row

from reconciler.core.api_tokens import ApiToken, read_scopes
from reconciler.core.names import find_nearest
from reconciler.errors import ConfigError, MigrationError

from .queries import load_queries

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import psycopg

    from reconciler.core.api_tokens import Scope

_BETWEEN_NOTES: Final = timedelta(minutes=10)


def create_token(
    conn: psycopg.Connection[Any],
    *,
    token_id: str,
    name: str,
    digest: bytes,
    scopes: Sequence[Scope],
    expires_at: datetime | None,
) -> ApiToken:
    """Keep a token.

    Args:
        conn: Of the owner of the schema.
        token_id: The public half.
        name: What it is for; no other token that is not revoked has it.
        digest: Of the secret half.
        scopes: What it opens; at least one.
        expires_at: From when on it is no good; None for never.

    Returns:
        The token.

    Raises:
        ConfigError: Another token has the name.
        MigrationError: The schema on the target is older than the service.
    """
    values = {
        "id": token_id,
        "name": name,
        "digest": digest,
        "scopes": list(scopes),
        "expires_at": expires_at,
    }
    found = _ask(conn, "create_token", **values)
    if not found:
        raise ConfigError(
            f"there is a token {name} already",
            remedy=f"take another name, or end that one with reconciler token revoke {name}",
        )
    return found[0]


def list_tokens(conn: psycopg.Connection[Any]) -> list[ApiToken]:
    """List all tokens.

    Args:
        conn: Of the owner of the schema.

    Returns:
        By name; those that were revoked last.

    Raises:
        MigrationError: The schema on the target is older than the service.
    """
    return _ask(conn, "list_tokens")


def revoke_token(conn: psycopg.Connection[Any], token: str) -> ApiToken:
    """Let a token open nothing any more.

    Args:
        conn: Of the owner of the schema.
        token: Its name, or its id.

    Returns:
        The token as it is now.

    Raises:
        ConfigError: There is none, or it was revoked before.
        MigrationError: The schema on the target is older than the service.
    """
    found = _ask(conn, "revoke_token", token=token)
    if found:
        return found[0]
    known = list_tokens(conn)
    if any(token in (one.id, one.name) for one in known):
        raise ConfigError(f"the token {token} was revoked before", remedy="it opens nothing any more")
    nearest = find_nearest(token, [one.name for one in known if one.revoked_at is None])
    raise ConfigError(
        f"there is no token {token}",
        remedy=f"did you mean {nearest}?" if nearest else "reconciler token list shows them",
    )


def find_token(conn: psycopg.Connection[Any], token_id: str) -> ApiToken | None:
    """Find a token, whether or not it is good.

    Args:
        conn: Of the owner of the schema, or of a role that `reconciler.allow_service` let in.
        token_id: The public half.

    Returns:
        The token; None where there is none.

    Raises:
        MigrationError: The schema on the target is older than the service.
    """
    found = _ask(conn, "find_token", id=token_id)
    return found[0] if found else None


def note_use(conn: psycopg.Connection[Any], token: ApiToken, now: datetime) -> None:
    """Note that a token is used; every ten minutes at the most.

    Args:
        conn: As for `find_token`.
        token: As it was found.
        now: The moment, aware.
    """
    if token.last_used_at is None or now - token.last_used_at > _BETWEEN_NOTES:
        conn.execute(load_queries("api_tokens")["note_use"], {"id": token.id})


def _ask(conn: psycopg.Connection[Any], query: str, **values: object) -> list[ApiToken]:
    try:
        with conn.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(load_queries("api_tokens")[query], values).fetchall()
    except (errors.UndefinedTable, errors.UndefinedFunction, errors.InvalidSchemaName) as error:
        raise MigrationError(
            "the schema reconciler on the target is not there, or older than the service",
            remedy="run reconciler migrate",
        ) from error
    return [_read(row) for row in rows]


def _read(row: Mapping[str, Any]) -> ApiToken:
    return ApiToken(**{**row, "scopes": read_scopes(row["scopes"])})
