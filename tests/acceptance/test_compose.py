"""compose.yaml played without Docker: its commands, variables, logins and example, one after the other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict

from tests.servers import wait_until

if TYPE_CHECKING:
    from tests.declared import Site
    from tests.servers import Database

pytestmark = pytest.mark.one_server
ROOT = Path(__file__).parents[2]


class Compose:
    """Does what the services of compose.yaml do, on a test's database."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._services: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
        self._database = database
        self._folder = folder

    def run(self, name: str) -> str:
        """Run a service that ends by itself, and return what it printed."""
        ended = subprocess.run(
            self._words(name),
            env=self._env(name),
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, f"{name}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    def start(self, name: str, *more: str) -> subprocess.Popen[str]:
        """Start a service that goes on."""
        return subprocess.Popen(
            [*self._words(name), *more],
            env=self._env(name),
            cwd=self._folder,
            text=True,
            stderr=subprocess.PIPE,
        )

    def _words(self, name: str) -> list[str]:
        service = self._services[name]
        if "entrypoint" not in service:
            return [sys.executable, "-m", "reconciler", *service["command"]]
        return [word.replace("/deploy/", f"{ROOT}/deploy/compose/") for word in service["entrypoint"]]

    def _env(self, name: str) -> dict[str, str]:
        """Take the variables of a service, with the defaults that stand there, but this database's place."""
        place = conninfo_to_dict(self._database.server.tcp_dsn)
        env = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "RECONCILER_"))}
        for key, text in self._services[name]["environment"].items():
            value = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
            value = value.replace("@postgres:5432/app", f"@{place['host']}:{place['port']}/{place['dbname']}")
            env[key] = value.replace("postgres:postgres@", f"{place['user']}:{place['password']}@")
        if "PGHOST" in env:
            env |= {f"PG{key.upper()}": str(place[key]) for key in ("host", "port", "user", "password")}
            env["PGDATABASE"] = str(place["dbname"])
        return env


@pytest.fixture
def compose(database: Database, tmp_path: Path) -> Compose:
    """Copy the example and play what prepares the database, twice: as after an upgrade."""
    if shutil.which("psql") is None:
        pytest.skip("psql is not installed")
    if database.server.major < 16:
        pytest.skip("compose.yaml has PostgreSQL 17")
    shutil.copytree(ROOT / "deploy" / "compose", tmp_path, dirs_exist_ok=True)
    played = Compose(database, tmp_path)
    for _ in range(2):
        for name in ("logins", "migrate", "roles", "apply"):
            played.run(name)
    return played


def find_port(service: subprocess.Popen[str]) -> str:
    """Wait until a service says where it serves."""
    assert service.stderr is not None
    for line in service.stderr:
        if place := re.search(r"http://0\.0\.0\.0:(\d+)", line):
            return place[1]
    pytest.fail("the service ended")


def test_the_example_lives(compose: Compose, site: Site) -> None:
    """The database puts the job on its queue, the worker does it, the service answers; both end in order."""
    site.database.connect("deploy").execute("CALL reconciler.run_job('greet')")
    worker = compose.start("worker")
    service = compose.start("service", "--port=0")
    try:
        port = find_port(service)
        for path in ("/health", "/ready"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                assert answer.status == 200
        done = "SELECT result #>> '{}' FROM reconciler.jobs WHERE status = 'completed'"
        wait_until(lambda: site.rows(done) == [("Hello, world.",)], seconds=30, what="the worker greets")
    finally:
        for process in (service, worker):
            process.terminate()
            process.communicate(timeout=30)
    assert (worker.returncode, service.returncode) == (0, 0)
    assert site.rows("SELECT DISTINCT username::text FROM cron.job") == [("deploy",)]
