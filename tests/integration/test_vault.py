"""Secrets in Supabase Vault, as a channel's address: read on the target when they are needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from reconciler.core.config import Config, Secret
from reconciler.database.connect import connect
from reconciler.errors import ConfigError
from reconciler.runtime.secret_values import SecretStores
from tests.declared import Site

if TYPE_CHECKING:
    from tests.servers import Database

CANARY = "s3cr3t-canary"
STORES = SecretStores(
    config=Config(
        path="reconciler.yaml",
        owner="shop",
        jobs=(),
        targets={},
        default_target="test",
        secrets={"ops": Secret(name="ops", store="vault", key="ops slack")},
    ),
    environment={},
)


@pytest.fixture
def site(database: Database) -> Site:
    """A database with a vault: its real view has these columns, and decrypts."""
    site = Site(database)
    site.run(
        "CREATE SCHEMA vault; CREATE TABLE vault.kept (name text UNIQUE, value text);"
        "CREATE VIEW vault.decrypted_secrets AS SELECT name, value AS decrypted_secret FROM vault.kept"
    )
    return site


def resolve(site: Site) -> str:
    """Fetch the secret."""
    with connect(site.dsn) as conn:
        return STORES.resolve("ops", conn).reveal()


def test_the_value_is_read_as_it_is_now(site: Site) -> None:
    """A value that was changed counts from the next time on."""
    site.run("INSERT INTO vault.kept VALUES ('ops slack', 'old'), ('other', 'x')")
    assert resolve(site) == "old"
    site.run("UPDATE vault.kept SET value = %s WHERE name = 'ops slack'", CANARY)
    assert resolve(site) == CANARY


@pytest.mark.parametrize(("value", "why"), [(None, "no secret ops slack"), ("", "an empty secret ops slack")])
def test_a_secret_that_the_vault_lacks_is_named(site: Site, value: str | None, why: str) -> None:
    """The error names the secret, its name in the vault and how to put it there."""
    if value is not None:
        site.run("INSERT INTO vault.kept VALUES ('ops slack', %s)", value)
    with pytest.raises(ConfigError, match=f"the secret ops has no value: Supabase Vault has {why}") as caught:
        resolve(site)
    assert "vault.create_secret" in caught.value.remedy


def test_a_target_without_a_vault_says_so(site: Site) -> None:
    """The remedy names the extension and the other stores."""
    site.run("DROP SCHEMA vault CASCADE")
    with pytest.raises(ConfigError, match="the target has no Supabase Vault") as caught:
        resolve(site)
    assert "supabase_vault" in caught.value.remedy


def test_a_role_that_may_not_read_the_vault_is_told_the_grants(site: Site) -> None:
    """Both grants are named, and both together are enough."""
    site.run("INSERT INTO vault.kept VALUES ('ops slack', %s)", CANARY)
    site.run("CREATE ROLE postman LOGIN")
    postman = Site(site.database, "postman")
    with pytest.raises(ConfigError, match="the role postman may not read Supabase Vault") as caught:
        resolve(postman)
    site.run("GRANT USAGE ON SCHEMA vault TO postman")
    with pytest.raises(ConfigError, match="the role postman may not read Supabase Vault"):
        resolve(postman)
    site.run(caught.value.remedy.encode())  # type: ignore[arg-type] # it is SQL
    assert resolve(postman) == CANARY
