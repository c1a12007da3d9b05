"""docs/time.md, and what other pages show of `explain`: each row and output is tried, on both servers."""

from __future__ import annotations

import re
import shlex
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from reconciler.cli.main import main
from reconciler.cli.session import open_session
from reconciler.core.durations import parse_duration
from reconciler.core.times.clocks import find_zone
from reconciler.core.times.occurrences import find_runs
from reconciler.core.times.timings import find_shift, make_timing
from reconciler.core.times.words import describe_timing
from reconciler.database.connect import connect
from reconciler.database.migrate import migrate_target
from tests.declared import Site

if TYPE_CHECKING:
    from reconciler.core.specs import JobSpec
    from reconciler.core.times.timings import Timing
    from tests.servers import Database

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "time.md").read_text()
CONSOLE = re.compile(r"<!-- explain -->\n```console\n(.*?)```\n<!-- /explain -->", re.DOTALL)


class Row(NamedTuple):
    """A row of a table: the name of its job in the tests, and its cells without quotes."""

    name: str
    cells: tuple[str, ...]


def read_tables(head: str) -> list[Row]:
    """Read the rows of all tables of the page that begin with a head."""
    rows: list[Row] = []
    for table in re.findall(rf"^{re.escape(head)}\n\|[-|]+\|\n((?:\|.*\|\n)+)", PAGE, re.MULTILINE):
        for line in table.splitlines():
            cells = tuple(cell.strip().strip("`") for cell in line[1:-1].split(" |"))
            rows.append(Row(f"row-{len(rows)}", cells))
    return rows


ENTRIES = read_tables("| written | in cron.job, 1.4 | in cron.job, 1.6 | runs |")
RUNS = read_tables("| written | after | runs |")
SPREADS = read_tables("| job | spread | put off by |")


def write_jobs(folder: Path, rows: list[Row], dsn: str = "") -> dict[str, JobSpec]:
    """Write a project with a job for each row, and load it."""
    (folder / "jobs.d").mkdir()
    (folder / "reconciler.yaml").write_text(f'owner: docs\ntargets:\n  test: {{dsn: "{dsn}"}}\n')
    jobs = "".join(f"  {row.name}: {{{row.cells[0]}, sql: SELECT 1}}\n" for row in rows)
    (folder / "jobs.d" / "a.yaml").write_text(f"jobs:\n{jobs}")
    return {
        spec.name: spec
        for spec in open_session(folder / "reconciler.yaml", None).load_specs()
        if spec.kind == "job"
    }


def apply() -> None:
    """Apply the project of this folder."""
    with pytest.raises(SystemExit) as ended:
        main(["apply", "--yes"])
    assert ended.value.code == 0


def render(run: datetime | None, timing: Timing) -> str:
    """Render a run as the page does: local time, and the zone where it is not GMT."""
    if run is None:
        return "never"
    if timing.zone == "GMT":
        return f"{run:%d %b %H:%M}"
    return f"{run.astimezone(find_zone(timing.zone)):%d %b %H:%M %Z}"


def test_the_page_has_its_tables() -> None:
    """An empty reading would pass as well."""
    assert (len(ENTRIES), len(RUNS), len(SPREADS)) == (15, 24, 4)


def test_entries_are_as_the_page_says(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row is applied, and stands in cron.job as its column says; its words are those of explain."""
    monkeypatch.chdir(tmp_path)
    site = Site(database)
    is_old = database.server.pg_cron < (1, 5, 0)
    expected = {
        row: row.cells[1] if is_old else row.cells[2] or row.cells[1]
        for row in ENTRIES
        if not (is_old and row.cells[1] == "-")
    }
    specs = write_jobs(tmp_path, list(expected), site.dsn)
    apply()
    found = dict(site.rows("SELECT jobname, schedule FROM cron.job WHERE jobname LIKE 'row-%%'"))
    assert found == {row.name: schedule for row, schedule in expected.items()}
    for row in expected:
        timing = make_timing(specs[row.name], "GMT")
        assert timing is not None
        assert describe_timing(timing) == row.cells[3]


def test_runs_are_as_the_page_says(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row is applied; we and the database find the runs that it names, one after the other."""
    monkeypatch.chdir(tmp_path)
    site = Site(database)
    specs = write_jobs(tmp_path, RUNS, site.dsn)
    apply()
    with database.server.connect() as conn:
        for row in RUNS:
            wanted = row.cells[2].split(", ")
            timing = make_timing(specs[row.name], "GMT")
            assert timing is not None
            at: datetime | None = datetime.fromisoformat(row.cells[1])
            assert at is not None
            ours = [*find_runs(timing, after=at, count=len(wanted)), None][: len(wanted)]
            assert [render(run, timing) for run in ours] == wanted, row.cells[0]
            for run in ours:
                found = conn.execute(
                    "SELECT reconciler.next_due(d.name, d.schedule, %s, 'GMT')"
                    " FROM reconciler.definitions d WHERE name = %s",
                    [at, row.name],
                ).fetchone()
                assert found == (run,), row.cells[0]
                at = run


def test_spreads_are_as_the_page_says(database: Database) -> None:
    """A name is put off by the same minutes here and in the database."""
    site = Site(database)
    with connect(site.dsn) as conn:
        migrate_target(conn)
    for _, (name, spread, words) in SPREADS:
        minutes = timedelta(minutes=int(words.split(" ")[0]))
        assert find_shift(name, parse_duration(spread)) == minutes
        assert site.rows("SELECT reconciler.find_shift(%s, %s::interval)", name, spread) == [(minutes,)]


@pytest.mark.parametrize("page", ["README.md", "docs/schedules.md"])
def test_pages_show_what_explain_says(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command in its block is called, and prints what stands below it."""
    monkeypatch.chdir(tmp_path)
    found = CONSOLE.search((ROOT / page).read_text())
    assert found is not None
    shown = ""
    commands = re.findall(r"^\$ reconciler (.*)$", found[1], re.MULTILINE)
    assert commands
    for command in commands:
        with pytest.raises(SystemExit):
            main(shlex.split(command))
        shown += f"$ reconciler {command}\n{capsys.readouterr().out}"
    assert shown == found[1]
