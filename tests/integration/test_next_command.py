"""The command `next`: the runs to come of all jobs, by the files alone or as the target has them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from reconciler.cli.main import main
from tests.conftest import CliResult
from tests.declared import OWNER, Site, job

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import Database

pytestmark = pytest.mark.one_server

THEN = "--after=2026-11-21T10:00Z"
CONFIG = """\
owner: shop
targets:
  test: {dsn: "${env:NOT_SET}"}
"""
JOBS = """\
jobs:
  report: {daily: "08:00", timezone: Europe/Oslo, sql: SELECT 1}
  monthly: {monthly: {day: second mon, at: "06:00"}, sql: SELECT 1}
  hourly: {schedule: "@hourly", sql: SELECT 1}
  often: {every: 1m, sql: SELECT 1}
  oftener: {every: 1m, sql: SELECT 1}
  off: {every: 1h, active: false, sql: SELECT 1}
  over: {every: 1h, end_at: 2026-11-01T00:00Z, sql: SELECT 1}
  once: {once: 2026-11-21T12:30:00Z, sql: SELECT 1}
  follower: {after: [report], sql: SELECT 1}
"""
Run = Callable[..., CliResult]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command, or another one that is named, in this process, which is quicker; in a folder with jobs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reconciler.yaml").write_text(CONFIG)
    (tmp_path / "jobs.d").mkdir()
    (tmp_path / "jobs.d" / "a.yaml").write_text(JOBS)

    def list_next(*args: str) -> CliResult:
        with pytest.raises(SystemExit) as ended:
            main(args if args and args[0] in {"apply", "pause"} else ["next", *args])
        out, err = capsys.readouterr()
        return CliResult(exit_code=int(ended.value.code or 0), stdout=out, stderr=err)

    return list_next


def names(result: CliResult) -> list[str]:
    """Return the names in the list, line by line."""
    assert (result.exit_code, result.stderr) == (0, "")
    table = result.stdout.split("\n\n")[0].splitlines()
    at = table[0].index("name")
    return [line[at:].split(" ")[0] for line in table[1:] if not line.startswith("...")]


def test_the_runs_of_the_next_hours_are_listed_by_time(run: Run) -> None:
    """With local time, UTC, name and words; what comes often, and what does not run, stands below."""
    result = run("--offline", "--until", "3h", THEN)
    assert (result.exit_code, result.stderr) == (0, "")
    assert (
        result.stdout
        == """\
when                   UTC  name    runs
Sat 2026-11-21 11:00Z       hourly  every hour
Sat 2026-11-21 12:00Z       hourly  every hour
Sat 2026-11-21 12:30Z       once    once, at 2026-11-21 12:30Z
Sat 2026-11-21 13:00Z       hourly  every hour

every minute: often, oftener
inactive: off
ended: no run is left: over
after report: follower
"""
    )


def test_a_day_and_fifty_lines_are_shown_by_default(run: Run) -> None:
    """What is beyond the lines is counted."""
    assert len(names(run("--offline", THEN))) == 24 + 1 + 1
    result = run("--offline", "--until", "2026-12-20", THEN)
    assert len(names(result)) == 50
    assert f"... and {28 * 24 + 14 + 28 + 1 + 1 - 50} more\n" in result.stdout


def test_so_many_runs_as_are_wanted_are_found_also_later(run: Run) -> None:
    """Without an end, a number looks as far as it has to."""
    result = run("--offline", "monthly", "--count", "3", THEN)
    assert names(result) == ["monthly"] * 3
    assert "more" not in result.stdout
    assert "Mon 2027-02-08 06:00Z" in result.stdout


def test_named_jobs_are_listed_alone(run: Run) -> None:
    """Also what comes often; and what does not run in time says when it does."""
    result = run("--offline", "often", "monthly", "follower", "--until", "5m", THEN)
    assert names(result) == ["often"] * 5
    assert result.stdout.endswith("\n\nnot before 2026-12-14 06:00Z: monthly\nafter report: follower\n")


def test_where_nothing_runs_that_is_said(run: Run) -> None:
    """With the end of the time that was looked at."""
    result = run("--offline", "report", "--until", "2026-11-21T12:00", THEN)
    assert result.stdout.startswith("No runs until 2026-11-21 12:00Z.\n")


@pytest.mark.parametrize(
    ("until", "message"),
    [
        ("soon", "'soon' is neither a time nor a duration"),
        ("2026-11-21T10:00Z", "is not in the future"),
        ("2026-13-01", "neither a time nor a duration"),
    ],
)
def test_a_wrong_end_is_a_usage_error(run: Run, until: str, message: str) -> None:
    """It says how one is written."""
    result = run("--offline", "--until", until, THEN)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in " ".join(result.stderr.split())


def test_a_wrong_name_is_answered_with_the_nearest(run: Run) -> None:
    """As an error of one line with its remedy."""
    result = run("--offline", "houly")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: nothing that runs at times has the name 'houly'\n  did you mean 'hourly'?\n"
    )


def test_runs_are_json_too(run: Run) -> None:
    """One object a line, those without a run behind those with one."""
    result = run("--offline", "--json", "--until", "1h", THEN)
    rows = json.loads(result.stdout)
    assert [(row["name"], row["state"], row["at"]) for row in rows] == [
        ("hourly", "due", "2026-11-21T11:00:00Z"),
        ("often", "frequent", None),
        ("oftener", "frequent", None),
        ("off", "inactive", None),
        ("over", "ended", None),
    ]
    assert {row["owner"] for row in rows} == {OWNER}
    assert all(rows[0].keys() == row.keys() for row in rows)


# --- with a database ---


@pytest.fixture
def site(database: Database, run: Run, tmp_path: Path) -> Site:
    """The target of the folder."""
    site = Site(database)
    (tmp_path / "reconciler.yaml").write_text(CONFIG.replace("${env:NOT_SET}", site.dsn))
    (tmp_path / "jobs.d" / "a.yaml").write_text("jobs:\n  ours: {schedule: '@hourly', sql: SELECT 1}\n")
    assert run("--count", "1").exit_code == 0
    return site


def test_a_target_shows_what_others_have_there(site: Site, run: Run) -> None:
    """Other owners' jobs, entries that nobody declared, and the tool's own where they are asked for."""
    site.run("SELECT cron.schedule('stray', '30 * * * *', 'SELECT 1')")
    site.apply(job("theirs", schedule="15 * * * *"), owner="kitchen")
    assert run("apply", "--yes").exit_code == 0
    assert names(run("--until", "1h", THEN)) == ["theirs", "stray", "ours"]
    assert "reconciler-tick" not in run("--until", "1h", THEN).stdout
    assert "reconciler-tick" in run("--until", "1h", "--all", THEN).stdout
    assert names(run("--until", "1h", "--offline", THEN)) == ["ours"]
    rows = json.loads(run("--until", "1h", "--json", THEN).stdout)
    assert [(row["kind"], row["owner"]) for row in rows] == [
        ("job", "kitchen"),
        ("entry", None),
        ("job", "shop"),
    ]


@pytest.mark.usefixtures("site")
def test_paused_jobs_are_said(run: Run) -> None:
    """Until their pause is over they have no runs; those without an end have none at all."""
    assert run("apply", "--yes").exit_code == 0
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=5)
    assert run("pause", "ours", "--until", f"{until:%FT%TZ}").exit_code == 0
    result = run("ours", "--count", "1")
    assert f"{until.replace(minute=0, second=0) + timedelta(hours=1):%F %R}Z" in result.stdout
    assert f"\n\npaused until {until:%F %TZ}: ours\n" in result.stdout
    assert run("pause", "ours").exit_code == 0
    assert "\n\npaused: ours\n" in run("ours").stdout
    assert run("ours").stdout.startswith("No runs until ")


def test_times_are_those_of_the_target_s_zone(site: Site, run: Run) -> None:
    """From pg_cron 1.5 on it may have one, which this machine has to know."""
    if site.database.server.pg_cron < (1, 5, 0):
        assert "00Z" in run("ours", "--count", "1").stdout
        return
    site.database.server.set_server_settings(cron__timezone="Asia/Kolkata")
    result = run("ours", "--until", "2026-11-21T17:00", THEN)
    assert "Sat 2026-11-21 16:00 IST  2026-11-21 10:30Z" in result.stdout
    assert names(result) == ["ours", "ours"]
    site.database.server.set_server_settings(cron__timezone="EST5EDT,M3.2.0,M11.1.0")
    refused = run("ours")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "Error: pg_cron reads schedules in EST5EDT,M3.2.0,M11.1.0 (cron.timezone)" in refused.stderr
