"""Secrets on the target, for the requests that the database sends itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .queries import load_queries

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

    from reconciler.core.hidden import Hidden


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSecret:
    """What the target is to know of a secret: its value, or its name in Supabase Vault.

    Attributes:
        value: The value; None for one that stays in the vault.
        vault_name: Its name there; "" for one with a value.
    """

    value: Hidden | None = None
    vault_name: str = ""


def put_secrets(conn: psycopg.Connection, secrets: Mapping[str, StoredSecret]) -> tuple[str, ...]:
    """Bring secrets to the target, where they differ.

    The values travel as COPY data: statements and their parameters can be in the server's log, this cannot.

    Args:
        conn: In a transaction, as the owner of the schema.
        secrets: By name.

    Returns:
        Names of those that are new or have changed, sorted.
    """
    if not secrets:
        return ()
    queries = load_queries("secrets")
    conn.execute(queries["create_brought_secrets"])
    with conn.cursor() as cursor, cursor.copy(queries["copy_brought_secrets"]) as copy:
        for name, secret in secrets.items():
            value = None if secret.value is None else secret.value.reveal()
            copy.write_row((name, value, secret.vault_name or None))
    names = [name for (name,) in conn.execute(queries["put_secrets"])]
    conn.execute(queries["drop_brought_secrets"])
    return tuple(sorted(names))
