"""docs/service.md: its Python runs, and its options are those of the command."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.cli.serving import serve
from tests.served import Served

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it would rather have the successor of httpx
    from starlette.testclient import TestClient

if TYPE_CHECKING:
    from tests.declared import Site

pytestmark = pytest.mark.one_server

PAGE = (Path(__file__).parents[2] / "docs" / "service.md").read_text()


def test_every_block_of_python_runs(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outer application serves the pages and the API where the page says."""
    site.apply()
    (tmp_path / "jobs.d").mkdir()
    (tmp_path / "jobs.d" / "a.yaml").write_text("jobs: {a: {schedule: '0 1 * * *', sql: SELECT 1}}")
    (tmp_path / "reconciler.yaml").write_text("owner: shop\ntargets: {live: {dsn: '${env:DATABASE_URL}'}}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", site.dsn)
    bearer = {"Authorization": f"Bearer {Served(site).token('read')}"}
    names: dict[str, Any] = {"__name__": "page"}
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    exec(compile(blocks[0], "docs/service.md", "exec"), names)
    with TestClient(names["site"]) as client:
        assert client.get("/ops/cron/api/v1/plan", headers=bearer).json()["target"] == "live"
        assert client.get("/ops/cron/").status_code == 200
        for path in re.findall(r"`(/(?:api/v1/\w+|health|ready|metrics))`", PAGE):
            assert client.get(f"/ops/cron{path}", headers=bearer).status_code == 200, path


def test_the_options_are_those_of_the_command() -> None:
    """Each one is on the page, and the page has no other."""
    known = {option for parameter in serve.params for option in parameter.opts if option.startswith("--")}
    told = set(re.findall(r"`(?:[\w ]+ )?(--[a-z-]+)", PAGE))
    assert told - {"--scope", "--format", "--no-check"} == known
