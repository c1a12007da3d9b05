"""A project whose commands are run as one login or another, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from reconciler.cli.main import main
from reconciler.database.roles import KINDS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.declared import Site

CONFIG = """\
owner: shop
targets:
  test: {dsn: "${env:DSN}", prune: auto, role: deploy}
secrets:
  hook: {env: HOOK}
"""
JOBS = """\
jobs:
  tidy: {schedule: "0 0 29 2 *", sql: "DELETE FROM pg_temp.old", alert: {on: [drift]}}
  off: {schedule: "0 0 29 2 *", sql: "ANALYZE", active: false, mode: direct}
  welcome: {once: 2099-01-01T00:00:00Z, handler: mail.send}
  mail: {schedule: "0 0 29 2 *", handler: mail.send, queue: letters}
  local: {daily: "02:30", timezone: Europe/Oslo, handler: mail.send}
queues:
  letters: {}
channels:
  ops: {url: {secret: hook}, deliver: database}
"""
HANDLERS = """\
from reconciler.runtime.handlers import Handlers

handlers = Handlers()

@handlers.handler("mail.send")
async def send():
    return "sent"
"""


class Roled:
    """The project, and who runs its commands.

    Attributes:
        site: Its database, whose superuser migrates and makes roles.
        declared: Its spec file.
    """

    def __init__(
        self, site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Write the project, and stand in it."""
        (folder / "jobs.d").mkdir()
        (folder / "reconciler.yaml").write_text(CONFIG)
        (folder / "shop_jobs.py").write_text(HANDLERS)
        self.site = site
        self.declared = folder / "jobs.d" / "shop.yaml"
        self.declared.write_text(JOBS)
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.chdir(folder)
        monkeypatch.setenv("HOOK", "https://chat.test/hook")

    def __call__(self, command: str, user: str | None = None, *, code: int = 0) -> str:
        """Run a command.

        Args:
            command: With its arguments.
            user: The login; None for the superuser.
            code: What it has to end with.

        Returns:
            What it printed.
        """
        database = self.site.database
        self._monkeypatch.setenv("DSN", database.dsn if user is None else database.dsn_for(user))
        with pytest.raises(SystemExit) as ended:
            main(command.split())
        said = "".join(self._capsys.readouterr())
        assert ended.value.code == code, f"{user}: {command}: {ended.value.code}\n{said}"
        return said

    def begin(self) -> None:
        """Set the target up as the docs say: an administrator migrates and makes roles, a login applies.

        Each role has a login of its name, and `deploy` applies.
        """
        for login in ("deploy", *KINDS):
            self.site.run(f"CREATE ROLE {login} LOGIN")
        grants = " ".join(f"--grant {kind}={kind}" for kind in KINDS)
        self("migrate")
        self(f"roles create --grant applier=deploy {grants} --bypass-rls --yes")
        self("apply --yes", "deploy")
