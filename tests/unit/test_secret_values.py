from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import pytest

from reconciler.core.config import Config, Secret
from reconciler.core.hidden import Hidden
from reconciler.database.secrets import StoredSecret
from reconciler.errors import ConfigError
from reconciler.runtime.notifying import redact
from reconciler.runtime.secret_values import SecretStores

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import psycopg

CANARY = "s3cr3t-canary"


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder with a configuration."""

    path: Path

    def stores(
        self, store: Literal["env", "file", "vault"], key: str, environment: Mapping[str, str] | None = None
    ) -> SecretStores:
        """Declare the one secret `ops`."""
        config = Config(
            path=str(self.path / "reconciler.yaml"),
            owner="shop",
            jobs=(),
            targets={},
            default_target="test",
            secrets={"ops": Secret(name="ops", store=store, key=key)},
        )
        return SecretStores(config=config, environment=environment or {})

    def resolve(
        self, store: Literal["env", "file"], key: str, environment: Mapping[str, str] | None = None
    ) -> str:
        """Fetch the secret; neither store needs a connection."""
        return self.stores(store, key, environment).resolve("ops", NOWHERE).reveal()


NOWHERE = cast("psycopg.Connection", None)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty folder."""
    return Folder(tmp_path)


def test_a_variable_is_read_as_it_is(folder: Folder) -> None:
    """Nothing is stripped from what the environment holds."""
    assert folder.resolve("env", "OPS_URL", {"OPS_URL": f" {CANARY}\n"}) == f" {CANARY}\n"


@pytest.mark.parametrize(("environment", "why"), [({}, "not set"), ({"OPS_URL": ""}, "empty")])
def test_a_variable_without_a_value_is_named(folder: Folder, environment: dict[str, str], why: str) -> None:
    """The error names the secret, the variable and the remedy."""
    with pytest.raises(ConfigError) as caught:
        folder.resolve("env", "OPS_URL", environment)
    assert caught.value.message == f"the secret ops has no value: the variable OPS_URL is {why}"
    assert "OPS_URL" in caught.value.remedy


@pytest.mark.parametrize(
    ("content", "value"), [("a", "a"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" ä b ", " ä b ")]
)
def test_a_file_loses_one_line_break_at_its_end(folder: Folder, content: str, value: str) -> None:
    """An editor's last line break is no part of the secret; all else is."""
    (folder.path / "ops").write_bytes(content.encode())
    assert folder.resolve("file", "ops") == value


def test_a_file_is_looked_for_beside_the_configuration(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path starts at the configuration's folder, wherever the command runs."""
    (folder.path / "secrets").mkdir()
    (folder.path / "secrets" / "ops").write_text(CANARY)
    monkeypatch.chdir("/")
    assert folder.resolve("file", "secrets/ops") == CANARY
    assert folder.resolve("file", str(folder.path / "secrets" / "ops")) == CANARY


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (CANARY.encode() + b"\xff", "is not UTF-8"),
    ],
)
def test_a_file_without_a_value_is_named(folder: Folder, content: bytes | None, why: str) -> None:
    """The error names the secret, the file and why, and shows nothing of what was read."""
    if content is not None:
        (folder.path / "ops").write_bytes(content)
    with pytest.raises(ConfigError, match=why) as caught:
        folder.resolve("file", "ops")
    assert caught.value.message.startswith(f"the secret ops has no value: {folder.path / 'ops'}")
    assert caught.value.remedy
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_a_secret_that_nobody_declares_is_named(folder: Folder) -> None:
    """The error names the file in which it should be declared, and how."""
    with pytest.raises(ConfigError, match=r"there is no secret mail in .*reconciler\.yaml") as caught:
        folder.stores("env", "OPS_URL").resolve("mail", NOWHERE)
    assert "{mail: {env: VARIABLE}}" in caught.value.remedy


@pytest.mark.parametrize(
    ("store", "key", "found"),
    [
        ("env", "OPS", {"ops": StoredSecret(value=Hidden(CANARY))}),
        ("env", "UNSET", {}),
        ("file", "ops.txt", {"ops": StoredSecret(value=Hidden(CANARY))}),
        ("file", "missing.txt", {}),
        ("vault", "ops_key", {"ops": StoredSecret(vault_name="ops_key")}),
    ],
)
def test_what_can_be_had_here_is_collected(
    folder: Folder, store: Literal["env", "file", "vault"], key: str, found: dict[str, StoredSecret]
) -> None:
    """The target gets values of variables and files, and names of the vault; what has none is left out."""
    (folder.path / "ops.txt").write_text(CANARY, encoding="utf-8")
    stores = folder.stores(store, key, {"OPS": CANARY})
    assert stores.collect(["ops", "undeclared"]) == found


def test_stores_do_not_print_the_environment(folder: Folder) -> None:
    """Whatever prints them shows no value."""
    stores = folder.stores("env", "OPS_URL", {"OPS_URL": CANARY})
    assert CANARY not in repr(stores)
    assert repr(stores.resolve("ops", NOWHERE)) == "***"


@pytest.mark.parametrize(
    ("text", "address", "clean"),
    [
        ("posting to slack://T1/B2/xyz failed", "slack://T1/B2/xyz", "posting to slack://*** failed"),
        ("no token XyZw for Slack", "slack://t/xyzw", "no token *** for Slack"),
        ("user a b, password p/q", "json://a%20b:p%2Fq@host", "user *** ***, password ***/***"),
        ("port 80 of 8080, error=500.", "json://h:80/x", "port *** of 8080, error=500."),
        ("a\nb\r\nc", "json://h", "a b c"),
        ("it is canary", "canary", "it is ***"),
        ("key=v1 and v2", "json://h?+X-Key=v1&-q=v2", "key=*** and ***"),
        ("x" * 400, "json://h", "x" * 299 + "…"),
    ],
)
def test_no_part_of_an_address_stays_in_a_text(text: str, address: str, clean: str) -> None:
    """The whole, its parts and their decoded forms are masked; a short part only where it stands alone."""
    assert redact(text, Hidden(address)) == clean
