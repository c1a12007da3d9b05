"""Fetch the value of a secret from where reconciler.yaml says it is kept, when it is needed and no earlier.

Errors name the secret, its store and the remedy, never a value. The environment comes in by argument.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.core.hidden import Hidden
from reconciler.database.secrets import StoredSecret
from reconciler.database.vault import read_vault_secret
from reconciler.errors import ConfigError, ReconcilerError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import psycopg

    from reconciler.core.config import Config, Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretStores:
    """Where the secrets of one configuration are kept.

    Attributes:
        config: The configuration that declares them.
        environment: The variables that `env` means.
    """

    config: Config
    environment: Mapping[str, str] = field(repr=False)

    def resolve(self, name: str, conn: psycopg.Connection) -> Hidden:
        """Fetch the value of a secret as it is now.

        Args:
            name: As specs refer to it.
            conn: To the target, in autocommit mode: the vault is there.

        Returns:
            The value, not empty.

        Raises:
            ReconcilerError: There is no such secret, or it has no value; the message says where it should be.
        """
        secret = self.config.secrets.get(name)
        if secret is None:
            raise ConfigError(
                f"there is no secret {name} in {self.config.path}",
                remedy=f"declare it: secrets: {{{name}: {{env: VARIABLE}}}}, or file, or vault",
            )
        if secret.store == "env":
            value = _read_variable(secret, self.environment)
        elif secret.store == "file":
            value = _read_file(secret, Path(self.config.path).parent)
        else:
            value = _read_vault(secret, conn)
        return value

    def collect(self, names: Collection[str]) -> dict[str, StoredSecret]:
        """Collect what the target is to be given, of those that can be had here.

        Args:
            names: As specs refer to them.

        Returns:
            By name, without those that have no value here: the target may have them already.
        """
        found: dict[str, StoredSecret] = {}
        for name in names:
            secret = self.config.secrets.get(name)
            if secret is None:
                continue
            if secret.store == "vault":
                found[name] = StoredSecret(vault_name=secret.key)
                continue
            try:
                if secret.store == "env":
                    value = _read_variable(secret, self.environment)
                else:
                    value = _read_file(secret, Path(self.config.path).parent)
            except ConfigError:
                continue
            found[name] = StoredSecret(value=value)
        return found


def _read_variable(secret: Secret, environment: Mapping[str, str]) -> Hidden:
    value = environment.get(secret.key)
    if not value:
        raise ConfigError(
            f"the secret {secret.name} has no value: the variable {secret.key} is "
            + ("not set" if value is None else "empty"),
            remedy=f"set {secret.key} in the environment of this process",
        )
    return Hidden(value)


def _read_file(secret: Secret, folder: Path) -> Hidden:
    path = folder / secret.key
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"the secret {secret.name} has no value: {path}: {error.strerror}",
            remedy="write its value into that file, readable for this process",
        ) from None
    except UnicodeDecodeError:
        # Without the cause: it holds what was read.
        raise ConfigError(
            f"the secret {secret.name} has no value: {path} is not UTF-8",
            remedy="write its value into that file as UTF-8",
        ) from None
    value = text.removesuffix("\n")
    if not value:
        raise ConfigError(
            f"the secret {secret.name} has no value: {path} is empty", remedy="write its value into that file"
        )
    return Hidden(value)


def _read_vault(secret: Secret, conn: psycopg.Connection) -> Hidden:
    try:
        value = read_vault_secret(conn, secret.key)
    except ReconcilerError as error:
        raise ConfigError(
            f"the secret {secret.name} has no value: {error.message}", remedy=error.remedy
        ) from error
    if value is None or not value.reveal():
        raise ConfigError(
            f"the secret {secret.name} has no value: Supabase Vault has "
            + (f"no secret {secret.key}" if value is None else f"an empty secret {secret.key}"),
            remedy=f"on the target: SELECT vault.create_secret('…', '{secret.key}')",
        )
    return value
