"""docs/scheduler.md: every block of Python in it runs, in order, as one program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.declared import Site

if TYPE_CHECKING:
    from tests.servers import Database

pytestmark = pytest.mark.one_server

PAGE = Path(__file__).parents[2] / "docs" / "scheduler.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_block_runs(database: Database, tmp_path: Path) -> None:
    """Afterwards the database holds what they say."""
    site = Site(database)
    blocks = BLOCK.findall(PAGE.read_text())
    assert len(blocks) == 7
    (tmp_path / "page.py").write_text("\n".join(blocks))
    done = subprocess.run(
        [sys.executable, "-W", "error", "page.py"],
        cwd=tmp_path,
        env={**os.environ, "DATABASE_URL": site.dsn},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "JobStatus.SCHEDULED" in done.stdout
    assert site.rows(
        "SELECT unique_key, status FROM reconciler.jobs WHERE unique_key <> 'now' ORDER BY id"
    ) == [
        ("one_time_task", "cancelled"),
        ("reminder:123:15", "pending"),
        ("welcome-7", "pending"),
    ]
    assert site.rows("SELECT jobname::text FROM cron.job WHERE command LIKE '%%run_job%%' ORDER BY 1") == [
        ("daily_report",),
        ("often",),
    ]
