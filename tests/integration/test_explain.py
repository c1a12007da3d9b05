"""The command `explain`: what a schedule or a job means, in words and in instants."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from reconciler.cli.main import main
from tests.conftest import CliResult
from tests.declared import Site

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import Database

pytestmark = pytest.mark.one_server

THEN = "--after=2026-11-21T10:00Z"
JOBS = """\
jobs:
  report:
    daily: "02:30"
    timezone: Europe/Oslo
    spread: 1h
    blackout: [{first: 2026-12-24, last: 2026-12-26}]
    sql: SELECT 1
  follower:
    after: [report]
    sql: SELECT 1
  once:
    once: 2026-12-01T08:00
    timezone: Europe/Oslo
    handler: mail.send
  plain:
    schedule: "*/10 * * * *"
    active: false
    sql: SELECT 1
queues:
  mail: {}
"""


EXPLAINED = """\
30 2 * * *
  runs       every day at 02:30 Europe/Oslo
  clocks     where the clocks skip it, at the first moment after; where it comes twice, the first time
             Sun 2027-03-28 they go forward from 02:00 to 03:00: runs at 03:00 CEST
             Sun 2027-10-31 they go back from 03:00 to 02:00: runs at 02:30 CEST
  pg_cron    any version
  entry      */30 0,1 * * * (GMT): 4 starts a day, 1 of them a run
  next       Sun 2026-11-22 02:30 CET  2026-11-22 01:30Z
             Mon 2026-11-23 02:30 CET  2026-11-23 01:30Z
"""
CONFIG = """\
owner: shop
default_target: test
targets:
  test: {dsn: "${env:NOT_SET}"}
  old: {pg_cron: "1.4"}
"""
Run = Callable[..., CliResult]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command, or another that is named, in this process, which is quicker; in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def explain(*args: str) -> CliResult:
        with pytest.raises(SystemExit) as ended:
            main(args if args[0] in {"apply", "pause"} else ["explain", *args])
        out, err = capsys.readouterr()
        return CliResult(exit_code=int(ended.value.code or 0), stdout=out, stderr=err)

    return explain


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Jobs in that folder, and no database."""
    (tmp_path / "reconciler.yaml").write_text(CONFIG)
    (tmp_path / "jobs.d").mkdir()
    (tmp_path / "jobs.d" / "a.yaml").write_text(JOBS)
    return tmp_path


def test_a_schedule_is_explained_without_any_files(run: Run) -> None:
    """Its words, what it does when clocks are set, its entry, and the next runs by two clocks."""
    result = run("30 2 * * *", "--timezone", "Europe/Oslo", "--count", "2", THEN)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == EXPLAINED


def test_a_refused_schedule_is_explained_as_other_crons_read_it(run: Run) -> None:
    """With what does the same here; the exit code says that something is wrong."""
    result = run("0 0 8 ? * MON#2", THEN)
    assert (result.exit_code, result.stderr) == (1, "")
    assert "  problem    it has 6 fields" in result.stdout
    assert "read with seconds first as Mon 2026-12-14 08:00, Mon 2027-01-11 08:00" in result.stdout
    assert '  here       monthly: {day: second mon, at: "08:00"}  (the same next 50 runs)\n' in result.stdout


@pytest.mark.parametrize(
    ("text", "here"),
    [
        ("0 22-2 * * *", "  write      0 22-23,0-2 * * *\n"),
        ("H 8 * * *", 'daily: "08:00"  spread: 1h  (as often, at other minutes)'),
        ("0 8 15W * *", "here       one job cannot say that"),
        ("daily", "  write      0 0 * * *\n"),
    ],
)  # fmt: skip
def test_each_wrong_schedule_has_its_remedy(run: Run, text: str, here: str) -> None:
    """Also a word that could be a name, where there are no files."""
    result = run(text, THEN)
    assert (result.exit_code, result.stderr) == (1, "")
    assert here in result.stdout


def test_fields_without_quotes_are_one_schedule(run: Run) -> None:
    """What the shell has split, but for its stars."""
    assert run("0", "8", "*", "*", "1").stdout.startswith("0 8 * * 1\n")
    assert "every 30 seconds" in run("30", "seconds").stdout


def test_a_version_is_explained_for_itself(run: Run) -> None:
    """The oldest takes no seconds."""
    result = run("30 seconds", "0 8 * * *", "--pg-cron", "1.4", THEN)
    assert result.exit_code == 1
    assert "an interval in seconds needs pg_cron 1.5 or later, this target has 1.4" in result.stdout
    assert "\n\n0 8 * * *\n  runs       every day at 08:00 GMT\n" in result.stdout


@pytest.mark.usefixtures("folder")
def test_a_job_of_the_files_is_explained_without_a_database(run: Run) -> None:
    """Its words with all that moves it, its entry, how often that is passed over, and its runs."""
    result = run("report", "--count", "1", THEN)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "report  job"
    found = re.fullmatch(
        r"  runs +every day at 02:30 Europe/Oslo, put off by (\d+) minutes, "
        r"not from 2026-12-24 to 2026-12-26",
        lines[1],
    )
    assert found is not None
    assert "they go forward from 02:00 to 03:00: runs at 03:" in lines[3]
    assert re.search(r"entry .* \(GMT\): \d+ starts a year, 362 of them runs", result.stdout)
    assert lines[-1].startswith(f"  next       Sun 2026-11-22 {2 + (30 + int(found[1])) // 60:02d}:")


@pytest.mark.usefixtures("folder")
def test_other_jobs_are_explained_too(run: Run) -> None:
    """One that others start, one that comes once, one that is switched off."""
    result = run("follower", "once", "plain", "--count", "1", THEN)
    assert (result.exit_code, result.stderr) == (0, "")
    assert (
        result.stdout
        == """\
follower  job
  runs       whenever report has succeeded since its last run

once  job
  runs       once, at 2026-12-01 08:00+01:00
  entry      none: a row of reconciler.jobs
  next       Tue 2026-12-01 08:00 CET  2026-12-01 07:00Z

plain  job, inactive
  runs       every 10 minutes
  entry      */10 * * * * (GMT)
  next       Sat 2026-11-21 10:10Z
"""
    )


@pytest.mark.usefixtures("folder")
def test_a_job_that_is_over_says_so(run: Run) -> None:
    """Its moment is past."""
    result = run("once", "--after", "2027-01-01T00:00Z")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.endswith("\n  next       never: no run is left\n")


@pytest.mark.usefixtures("folder")
def test_a_wrong_name_is_answered_with_the_nearest(run: Run) -> None:
    """As an error of one line with its remedy."""
    result = run("reprot")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "declared as 'reprot', and it is no schedule\n  did you mean 'report'?\n" in result.stderr


@pytest.mark.usefixtures("folder")
def test_a_queue_has_no_times(run: Run) -> None:
    """It is declared, and nothing of it runs by a clock."""
    assert "nothing that runs at times is declared as 'mail'" in run("mail").stderr


@pytest.mark.usefixtures("folder")
def test_a_word_that_is_no_name_here_is_taken_for_a_schedule(run: Run) -> None:
    """It can be spelt right."""
    assert "write      0 0 * * *" in run("daily").stdout


def test_the_files_are_needed_for_a_name(run: Run) -> None:
    """Without them the error says so."""
    result = run("report")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "reconciler.yaml" in result.stderr


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--timezone=Europe/Olso", "did you mean 'Europe/Oslo'?"),
        ("--timezone=CET", "write a place, such as 'Europe/Paris'"),
        ("--pg-cron=new", "is no pg_cron version"),
        ("--after=tomorrow", "is no instant"),
        ("--count=0", "not in the range"),
    ],
)
def test_wrong_options_are_usage_errors(run: Run, option: str, message: str) -> None:
    """With what is right."""
    result = run("* * * * *", option)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in " ".join(result.stderr.split())


@pytest.mark.usefixtures("folder")
def test_explanations_are_json_too(run: Run) -> None:
    """A list of objects with the same keys, whatever they explain."""
    result = run("report", "0 8 * * mon#2", "--json", "--count", "1", THEN)
    assert result.exit_code == 1
    job, schedule = json.loads(result.stdout)
    assert job.keys() == schedule.keys()
    assert (job["kind"], job["timezone"], job["problem"]) == ("job", "Europe/Oslo", None)
    assert job["starts"]["runs"] == 362
    assert len(job["next_runs"]) == 1
    assert [len(change["runs"]) for change in job["changes"]] == [1, 1]
    assert schedule["elsewhere"] == [
        {
            "how": None,
            "next_runs": ["2026-12-14T08:00:00"],
            "here": {"monthly": {"day": "second mon", "at": "08:00"}},
            "is_proven": True,
            "remark": None,
        }
    ]


# --- with a database ---


@pytest.fixture
def site(folder: Path, database: Database) -> Site:
    """The same folder, whose target is the database."""
    site = Site(database)
    (folder / "reconciler.yaml").write_text(CONFIG.replace("${env:NOT_SET}", site.dsn))
    return site


def test_a_target_is_asked_what_it_has(site: Site, run: Run, folder: Path) -> None:
    """Before an apply the entry is missing; afterwards it is as declared, until somebody alters it."""
    # The last day of the month has other entries on both servers.
    path = folder / "jobs.d" / "a.yaml"
    path.write_text('jobs:\n  report: {monthly: {day: last, at: "02:30"}, sql: SELECT 1}\n')

    def explain() -> str:
        result = run("report", "--target", "test", "--count", "1", THEN)
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout

    day = "28-31" if site.database.server.pg_cron < (1, 6, 0) else "$"
    entry = f"  entry      30 2 {day} * * (GMT)"
    assert entry in explain()
    assert "it is not in cron.job yet: reconciler apply\n" in explain()
    assert run("apply", "--yes").exit_code == 0
    assert "reconciler" not in explain()
    assert run("pause", "report").exit_code == 0
    assert "  paused     until somebody resumes it: its runs are skipped\n" in explain()
    site.run("UPDATE cron.job SET active = false WHERE jobname = 'report'")
    assert "in cron.job it is inactive: reconciler plan\n" in explain()
    site.run("UPDATE cron.job SET schedule = '0 5 * * *' WHERE jobname = 'report'")
    assert "in cron.job it is 0 5 * * *: reconciler plan\n" in explain()


def test_a_schedule_is_read_in_the_zone_of_the_target(site: Site, run: Run) -> None:
    """As its pg_cron reads it, from 1.5 on in the zone of its setting."""
    if site.database.server.pg_cron < (1, 5, 0):
        assert "needs pg_cron 1.5" in run("30 seconds", "--target", "test").stdout
        return
    site.database.server.set_server_settings(cron__timezone="Europe/Oslo")
    result = run("30 2 * * *", "--dsn", site.dsn, "--count", "1", THEN)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "runs       every day at 02:30 Europe/Oslo\n" in result.stdout
    assert "where the clocks skip it, not at all; where it comes twice, both times\n" in result.stdout
    assert "2026-11-22 02:30 CET  2026-11-22 01:30Z\n" in result.stdout


def test_a_target_that_cannot_be_reached_is_an_error(folder: Path, run: Run) -> None:
    """The database was asked for; with --pg-cron it is not."""
    (folder / "reconciler.yaml").write_text(CONFIG.replace("${env:NOT_SET}", "host=/nowhere dbname=none"))
    assert run("plain", "--target", "test").exit_code == 1
    assert run("plain", "--target", "test", "--pg-cron", "1.6").exit_code == 0
