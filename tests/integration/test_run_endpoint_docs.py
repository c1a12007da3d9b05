"""docs/run-endpoint.md: its Python runs, and what it says of an answer is what is answered."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.api import make_app
from reconciler.runtime import Handlers, enqueue
from tests.calling import TOKEN, Client, serve
from tests.declared import Site

if TYPE_CHECKING:
    from tests.servers import Database

pytestmark = pytest.mark.one_server

PAGE = (Path(__file__).parents[2] / "docs" / "run-endpoint.md").read_text()


def read_blocks(language: str) -> list[str]:
    """Return the blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_every_block_of_python_runs(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The applications serve, and the function answers."""
    site = Site(database)
    site.apply()
    conn = database.connect()
    monkeypatch.setenv("DATABASE_URL", site.dsn)
    monkeypatch.setenv("RUN_TOKEN", TOKEN)
    enqueue(conn, "mail.welcome", {"user": 1})
    names: dict[str, Any] = {"__name__": "page"}
    blocks = read_blocks("python")
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "docs/run-endpoint.md", "exec"), names)
    assert json.loads(names["body"])["counts"]["completed"] == 1

    for app, prefix in ((names["app"], "/api"), (names["site"], "/internal")):
        job = enqueue(conn, "mail.welcome", {"user": 2}).id
        with serve(app) as found:
            client = Client(port=found.port, prefix=prefix)
            reply = client.run()
            assert [told["id"] for told in reply.document["jobs"]] == [job]
            [told] = json.loads(read_blocks("json")[0])["jobs"][:1]
            assert told.keys() == reply.document["jobs"][0].keys()
            assert json.loads(read_blocks("json")[0]).keys() == reply.document.keys()
            assert all(f"`{key}`" in PAGE for key in client.get(job).document)


def test_the_calls_of_the_page_are_taken(database: Database) -> None:
    """The documented job is put, and the role with the documented grants may do it all."""
    site = Site(database)
    site.apply()
    site.run("CREATE ROLE app LOGIN")
    for statement in read_blocks("sql")[0].split(";"):
        database.connect().execute(re.sub(r"--.*", "", statement).strip().encode() or b"SELECT 1")
    call, body = next(block for block in read_blocks("http") if block.startswith("POST /api/jobs\n")).split(
        "\n", 1
    )
    handlers = Handlers()
    with serve(make_app(database.dsn_for("app"), handlers, tokens=TOKEN)) as client:
        reply = client.call("POST", call.removeprefix("POST /api"), body.encode())
        assert reply.status == 201
        assert client.get(reply.document["id"]).document["queue"] == "outreach"
        assert client.run("queue=outreach&status=pending&limit=10").status == 200
