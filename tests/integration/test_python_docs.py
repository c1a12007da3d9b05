"""docs/python.md: every block of Python in it runs, in order, on a real database."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.database.connect import connect
from reconciler.database.migrate import migrate_target
from tests.declared import Site

if TYPE_CHECKING:
    from tests.servers import Database

pytestmark = pytest.mark.one_server

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_block_runs(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other in one program; afterwards the log holds what they say."""
    site = Site(database)
    with connect(site.dsn) as conn:
        migrate_target(conn)
    monkeypatch.setenv("DATABASE_URL", site.dsn)
    blocks = BLOCK.findall(PAGE.read_text())
    assert len(blocks) == 10
    names: dict[str, Any] = {"__name__": "page"}
    try:
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), names)
    finally:
        names["conn"].close()
    assert site.rows(
        "SELECT job_name, status, rows_affected FROM reconciler.cron_execution_log ORDER BY id"
    ) == [
        ("nightly-report", "succeeded", 1),
        ("nightly-report", "succeeded", None),
        ("reminder-daily", "succeeded", None),
        ("reminder-daily", "succeeded", None),
        ("greet", "succeeded", None),
    ]
