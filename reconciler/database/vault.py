"""Read a secret from Supabase Vault on a target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import errors

from reconciler.core.hidden import Hidden
from reconciler.errors import DatabaseError, RightsError

from .queries import load_queries

if TYPE_CHECKING:
    import psycopg


def read_vault_secret(conn: psycopg.Connection, name: str) -> Hidden | None:
    """Read the decrypted value of a secret; nothing is kept.

    Args:
        conn: To the target, in autocommit mode.
        name: Of the secret in the vault.

    Returns:
        The value; None where the vault has no such secret.

    Raises:
        DatabaseError: The target has no vault.
        RightsError: The role may not read it.
    """
    queries = load_queries("vault")
    try:
        row = conn.execute(queries["find_vault"]).fetchone()
        if row != (True,):
            raise DatabaseError(
                "the target has no Supabase Vault",
                remedy="CREATE EXTENSION supabase_vault, or keep the secret in env or file",
            )
        row = conn.execute(queries["read_vault_secret"], {"name": name}).fetchone()
    except errors.InsufficientPrivilege as error:
        raise RightsError(
            f"the role {conn.info.user} may not read Supabase Vault",
            remedy=f'GRANT USAGE ON SCHEMA vault TO "{conn.info.user}"; '
            f'GRANT SELECT ON vault.decrypted_secrets TO "{conn.info.user}"',
        ) from error
    return None if row is None or row[0] is None else Hidden(row[0])
