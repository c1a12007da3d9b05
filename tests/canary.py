"""A secret that is looked for where it must not be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from reconciler.runtime.local import find_local_server

if TYPE_CHECKING:
    from tests.declared import Site

CANARY = "canary-7f3a-is-not-to-be-seen"


def read_everything(site: Site) -> str:
    """Return all rows of all tables of the database, but the one that holds the secret."""
    tables = site.rows(
        "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'vault')"
        "   AND c.oid <> 'reconciler.secrets'::regclass"
    )
    with site.database.server.connect() as conn:
        return "\n".join(
            str(conn.execute(f"SELECT t::text FROM {name} t".encode()).fetchall()) for (name,) in tables
        )


def read_log(site: Site) -> str:
    """Return the server's log."""
    if site.database.server.folder is None:
        pytest.skip("only a private server's log can be read")
    local = find_local_server(site.database.server.folder)
    assert local is not None
    return local.account.run("cat", str(local.log_file))
