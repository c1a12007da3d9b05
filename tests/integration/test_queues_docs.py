"""docs/queues.md: every block of Python and SQL in it runs, in order, on a real database."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler.database.connect import connect
from reconciler.database.migrate import migrate_target
from tests.declared import Site

if TYPE_CHECKING:
    import pytest

    from tests.servers import Database

PAGE = Path(__file__).parents[2] / "docs" / "queues.md"
BLOCK = re.compile(r"^```(python|sql)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_block_runs(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Afterwards the jobs are there that they put."""
    site = Site(database)
    with connect(site.dsn) as conn:
        migrate_target(conn)
    monkeypatch.setenv("DATABASE_URL", site.dsn)
    blocks = BLOCK.findall(PAGE.read_text())
    assert [language for language, _ in blocks] == ["python", "sql", "sql"]
    names: dict[str, Any] = {"__name__": "page"}
    sql = database.connect()
    try:
        for language, block in blocks:
            if language == "sql":
                sql.execute(block.encode())
            else:
                exec(compile(block, str(PAGE), "exec"), names)
        sql.execute("UPDATE orders SET email = 'other'")
    finally:
        names["conn"].close()
    assert site.rows("SELECT handler, queue, payload, run_at > now() FROM reconciler.jobs ORDER BY id") == [
        ("mail.welcome", "outreach", {"order": 7}, True),
        ("mail.welcome", "outreach", {"order": 7}, True),
        ("mail.shipped", "default", {"order": 7}, False),
    ]
