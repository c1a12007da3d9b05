"""GET /api/v1/plan and /api/v1/drift: what the command line prints, over HTTP."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from reconciler.database.apply import plan_target
from reconciler.resources import read_resource
from reconciler.runtime.shared_answers import SharedAnswers
from reconciler.runtime.spec_files import WatchedSpecFiles
from tests.served import serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import psycopg

    from reconciler.database.apply import Planned
    from reconciler.database.statements import Request
    from tests.conftest import Cli
    from tests.declared import Site
    from tests.served import Served

pytestmark = pytest.mark.one_server

CONFIG = """\
owner: shop
targets:
  test: {{dsn: "{dsn}", prune: confirm}}
"""
JOBS = """\
jobs:
  orders: {schedule: "0 1 * * *", sql: SELECT 1}
  mail: {schedule: "0 2 * * *", sql: SELECT 2}
"""
UNFIT = "jobs: {o: {schedule: '0 1 * * *', sql: SELECT 1, database: other}}"
"""What loads, and what no server can do: a managed job runs in the target's own database."""
PATHS = ("/api/v1/plan", "/api/v1/drift")


@pytest.fixture
def folder(cli: Cli, site: Site) -> Path:
    """A project of which nothing was applied yet, but for the schema."""
    site.apply()
    folder = cli.directory
    (folder / "reconciler.yaml").write_text(CONFIG.format(dsn=site.dsn))
    (folder / "jobs.d").mkdir()
    (folder / "jobs.d" / "shop.yaml").write_text(JOBS)
    return folder


class Clock:
    """The clock of kept answers."""

    now = 0.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def served(site: Site, folder: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """The service of the project, which names files as the command line does there."""
    monkeypatch.chdir(folder)
    files = WatchedSpecFiles(folder / "reconciler.yaml", environment={})
    with serve(site, files=files, answers=SharedAnswers(clock)) as made:
        yield made


def run(cli: Cli, *args: str) -> Any:
    """Run a command that prints JSON."""
    result = cli(*args, "--format", "json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def hide_times(document: Any) -> Any:
    """Take out of a plan when its jobs run next, which is counted from each reading."""
    for change in document["changes"]:
        change["times"] = None
    return document


def test_they_are_what_the_commands_print(served: Served, cli: Cli, site: Site, clock: Clock) -> None:
    """The same documents, by the published schema: of a new project, and of one that drifted."""
    schema = json.loads(read_resource("schemas", "plan.schema.json"))
    assert served.get(PATHS[1]).json()["changes"] == []
    assert [one["name"] for one in served.get(PATHS[0]).json()["changes"][:2]] == ["mail", "orders"]
    assert cli("apply", "--yes").exit_code == 0
    site.run("UPDATE cron.job SET schedule = '7 7 * * *' WHERE jobname = 'orders'")
    (cli.directory / "jobs.d" / "shop.yaml").write_text(JOBS.replace("SELECT 2", "SELECT 3"))
    clock.now = 60
    for path, command in zip(PATHS, (("plan", "--no-check"), ("drift",)), strict=True):
        reply = served.get(path)
        assert (reply.status_code, reply.headers["Content-Type"]) == (200, "application/json")
        jsonschema.validate(reply.json(), schema)
        assert hide_times(reply.json()) == hide_times(run(cli, *command)), path
    assert [one["name"] for one in served.get(PATHS[1]).json()["changes"]] == ["orders"]


def test_a_plan_is_told_for_five_seconds(served: Served, site: Site, clock: Clock) -> None:
    """However often it is asked for; the answer says how old it is, and then another is made."""
    first = served.get(PATHS[0])
    clock.now = 4.9
    again = served.get(PATHS[0])
    assert (again.text, first.headers["Age"], again.headers["Age"]) == (first.text, "0", "4")
    site.run("SELECT cron.schedule('orders', '0 3 * * *', 'SELECT 3')")
    assert served.get(PATHS[1]).headers["Age"] == "4"
    clock.now = 5.1
    third = served.get(PATHS[0])
    assert (third.headers["Age"], third.text != first.text) == ("0", True)


def test_many_who_ask_at_once_wait_for_one_plan(
    served: Served, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """Plan and drift are of the same look."""
    looks = []

    def look(conn: psycopg.Connection, request: Request) -> Planned:
        looks.append(clock.now)
        return plan_target(conn, request)

    monkeypatch.setattr("reconciler.api.plan_reading.plan_target", look)
    token = served.token("read")
    replies: list[int] = []
    threads = [
        threading.Thread(
            target=lambda path=PATHS[number % 2]: replies.append(
                served.client.get(path, headers={"Authorization": f"Bearer {token}"}).status_code
            )
        )
        for number in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert replies == [200] * 12
    assert looks == [0]


def test_markdown_is_the_comment_of_a_pull_request(served: Served, cli: Cli) -> None:
    """As the command renders it, and of drift as well."""
    replies = [served.get(f"{path}?format=markdown") for path in PATHS]
    assert {one.headers["Content-Type"] for one in replies} == {"text/markdown; charset=utf-8"}
    drift = cli("drift", "--format", "markdown").stdout
    assert (replies[1].text.strip(), "orders" in replies[0].text) == (drift.strip(), True)
    assert served.get(f"{PATHS[0]}?format=sql").status_code == 422


@pytest.mark.parametrize("path", PATHS)
def test_a_service_without_files_says_so(site: Site, path: str) -> None:
    """404, and what to do."""
    with serve(site) as served:
        reply = served.get(path)
    assert (reply.status_code, reply.json()["detail"]) == (404, "this service knows no spec files")
    assert "--config" in reply.json()["remedy"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("jobs.d/shop.yaml", "jobs: {orders: {schedule: 7}}", "jobs.d/shop.yaml:1:"),
        ("jobs.d/shop.yaml", UNFIT, "own database"),
        ("reconciler.yaml", "owner: shop\ntargets: {test: {dsn: '${env:NOT_SET}'}}", "NOT_SET"),
    ],
)
def test_problems_of_the_files_are_a_conflict(
    served: Served, folder: Path, clock: Clock, path: str, name: str, text: str, told: str
) -> None:
    """409 with their places: the request is right, the files are not; mended ones are found by themselves."""
    before = (folder / name).read_text()
    (folder / name).write_text(text)
    reply = served.get(path)
    assert reply.status_code == 409, reply.text
    assert told in reply.json()["detail"]
    assert "reconciler validate" in reply.json()["remedy"]
    (folder / name).write_text(before)
    clock.now = 6
    assert served.get(path).status_code == 200


def test_only_readers_see_them(served: Served) -> None:
    """401 without a token, 403 with one for something else."""
    for path in PATHS:
        assert served.get(path, scopes=()).status_code == 401
        assert served.get(path, scopes=("run",)).status_code == 403
