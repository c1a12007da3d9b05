"""Bad input and targets out of reach: a clear error, its remedy, the documented exit code, no traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.servers import Database  # noqa: TC001 - pytest reads annotations of fixtures

if TYPE_CHECKING:
    from tests.conftest import Cli, CliResult

GOOD = "jobs:\n  tidy: {schedule: '0 3 * * *', sql: SELECT 1}\n"


def write(cli: Cli, jobs: str | bytes, *, dsn: str = "host=127.0.0.1 port=1", config: str = "") -> None:
    """Write a configuration and one spec file."""
    (cli.directory / "reconciler.yaml").write_text(
        config or f'owner: shop\ntargets:\n  test: {{dsn: "{dsn}", prune: auto}}\n'
    )
    (cli.directory / "jobs.d").mkdir(exist_ok=True)
    path = cli.directory / "jobs.d" / "shop.yaml"
    path.write_bytes(jobs if isinstance(jobs, bytes) else jobs.encode())


def check(result: CliResult, exit_code: int, *texts: str) -> None:
    """Check an error: its code, its words, and that no traceback is shown."""
    assert result.exit_code == exit_code, result
    assert "Traceback" not in result.stdout + result.stderr
    for text in texts:
        assert text in result.stderr, result.stderr


JOB = "jobs:\n  tidy:\n    schedule: {}\n    sql: SELECT 1\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("jobs:\n  tidy: {schedule: '0 3 * * *'\n", ["jobs.d/shop.yaml:3:1: ", "not closed"]),
        ("jobs:\n\ttidy: 1\n", ["jobs.d/shop.yaml:2:", "tab"]),
        ("jobs:\n  a: {schedule: '* * * * *', sql: x}\n  a: {}\n", ["jobs.d/shop.yaml:3:3", "line 2"]),
        ("jobs:\n  a: {shedule: '* * * * *', sql: x}\n", ["shedule", "did you mean", "schedule"]),
        ("jobs:\n  a: {schedule: 5, sql: x}\n", ["jobs.d/shop.yaml:2:", "schedule"]),
        ("jobs:\n  a: {schedule: '* * * * *'}\n", ["a", "sql"]),
        ("jobs:\n  a: {schedule: '* * * * *', daily: '02:30', sql: x}\n", ["schedule", "daily"]),
        ("jobs:\n  Tidy_Up: {schedule: '* * * * *', sql: x}\n", ["tidy_up"]),
        (f"jobs:\n  {'a' * 64}: {{schedule: '* * * * *', sql: x}}\n", ["63"]),
        ("jobs:\n  a: {schedule: '* * * * *', sql: x}\nqueues:\n  a: {}\n", ["a", "jobs.d/shop.yaml:"]),
        ("jobs:\n  a: {schedule: '* * * * *', handler: x, queue: nope}\n", ["nope"]),
        ("jobs:\n  a: {schedule: '* * * * *', sql: '${var:nope}'}\n", ["nope"]),
        ("jobs:\n  a: {schedule: '* * * * *', sql: x, after: [a]}\n", ["a"]),
        ("jobs: [1]\n", ["jobs.d/shop.yaml:1:"]),
        (b"jobs:\n  a: {sql: '\xff'}\n", ["UTF-8"]),
        ("{}\n", ["declare"]),
        ("", ["declare"]),
        (JOB.format("* * * * *"), ["jobs.d/shop.yaml:3:", "quote"]),
        (JOB.format('"* * * * * *"'), ["jobs.d/shop.yaml:3:15", "* * * * *"]),
        (JOB.format('"0 0 * * mon#2"'), ["mon"]),
        (JOB.format('"0 0 * * sat-sun"'), ["sat"]),
        (JOB.format('"0 0 * * 5-1"'), ["5"]),
        (JOB.format('"@yearly"'), ["0 0 1 1 *"]),
        (JOB.format('"every 5 minutes"'), ["*/5 * * * *"]),
        (JOB.format('"0 0 30 2 *"'), ["never"]),
    ],
)
def test_bad_spec_files(cli: Cli, text: str | bytes, words: list[str]) -> None:
    """A bad spec file is refused with its place and what to write."""
    write(cli, text)
    check(cli("validate"), 1, *words)


@pytest.mark.parametrize("command", [("plan",), ("apply", "--yes"), ("drift",)])
def test_bad_spec_files_stop_every_command(cli: Cli, command: tuple[str, ...]) -> None:
    """Every command that reads spec files refuses a bad one, before it connects to anything."""
    write(cli, JOB.format("nope"))
    check(cli(*command), 1, "jobs.d/shop.yaml:3:")


def test_all_problems_at_once(cli: Cli) -> None:
    """Problems of all files are reported together, each with its own place."""
    write(cli, "jobs:\n  a: {schedule: nope, sql: x}\n  b: {schedule: '* * * * *'}\n")
    (cli.directory / "jobs.d" / "other.yml").write_text("jobs:\n  c: {every: 90s, sql: x}\n")
    result = cli("validate")
    check(result, 1, "jobs.d/other.yml:2:", "jobs.d/shop.yaml:2:", "jobs.d/shop.yaml:3:", "3 problems")


@pytest.mark.parametrize("jobs", ["nowhere.d", "*.nope", "empty.d"])
def test_nothing_matched_is_an_error(cli: Cli, jobs: str) -> None:
    """A path that matches nothing and an empty folder are errors, never a wish to delete all."""
    (cli.directory / "empty.d").mkdir()
    write(cli, GOOD, config=f"owner: shop\njobs: '{jobs}'\ntargets: {{test: {{dsn: local}}}}\n")
    check(cli("plan"), 1, jobs)


def test_no_configuration(cli: Cli) -> None:
    """Without a configuration the way to get one is named."""
    check(cli("plan"), 1, "reconciler init")


def test_unknown_target(cli: Cli) -> None:
    """A misspelt target is refused with the nearest right one."""
    write(cli, GOOD)
    check(cli("plan", "--target", "tset"), 1, "tset", "test")


def test_unset_variable(cli: Cli) -> None:
    """A variable of the environment that is not set is named."""
    write(cli, GOOD, config="owner: shop\ntargets: {test: {dsn: '${env:NOT_SET_ANYWHERE}'}}\n")
    check(cli("plan"), 1, "NOT_SET_ANYWHERE")
    assert cli("validate").exit_code == 0


def test_unknown_command(cli: Cli) -> None:
    """A misspelt command is a usage error that names the nearest one."""
    check(cli("aply"), 2, "apply")


def test_no_server(cli: Cli) -> None:
    """A server that is not there is named, with what to check."""
    write(cli, GOOD)
    check(cli("plan"), 1, "cannot connect", "127.0.0.1:1", "check host and port")


def test_no_dsn_is_no_secret(cli: Cli) -> None:
    """A broken connection string is refused without its text, which may hold a password."""
    write(cli, GOOD, dsn="postgresql://me:sesame@[broken/db")
    result = cli("plan")
    check(result, 1, "connection string")
    assert "sesame" not in result.stderr


def test_wrong_password(cli: Cli, database: Database) -> None:
    """A wrong password is refused with the server's words, and is not repeated."""
    database.connect().execute("CREATE ROLE visitor LOGIN PASSWORD 'right'")
    write(cli, GOOD, dsn=database.dsn_for("visitor", "sesame"))
    result = cli("apply", "--yes")
    check(result, 1, "cannot connect", "password")
    assert "sesame" not in result.stderr


def test_wrong_database(cli: Cli, database: Database) -> None:
    """A database without pg_cron is refused, and the one that has it is named."""
    write(cli, GOOD, dsn=database.dsn_for("postgres", None, "template1"))
    check(cli("plan"), 1, "pg_cron is not in the database template1", "(cron.database_name)")
    check(cli("apply", "--yes"), 1, "pg_cron is not in")
    check(cli("doctor"), 1, "pg_cron is not in")


def test_schedule_that_this_version_lacks(cli: Cli, database: Database) -> None:
    """Seconds are refused at the plan where the server has no pg_cron 1.5, at the place of the job."""
    write(cli, JOB.format("30 seconds"), dsn=database.dsn)
    result = cli("apply", "--yes")
    if database.server.pg_cron >= (1, 5, 0):
        assert result.exit_code == 0, result
    else:
        check(result, 1, "jobs.d/shop.yaml:2:3", "1.5")
        assert database.connect().execute("SELECT count(*) FROM cron.job").fetchone() == (0,)


def test_missing_rights(cli: Cli, database: Database) -> None:
    """A role without rights gets the GRANT that it lacks, and nothing changes."""
    database.connect().execute("CREATE ROLE nobody_special LOGIN PASSWORD 'x'")
    write(cli, GOOD, dsn=database.dsn_for("nobody_special", "x"))
    check(cli("apply", "--yes"), 1, "GRANT")
    assert database.connect().execute("SELECT to_regnamespace('reconciler')").fetchone() == (None,)


def test_entry_that_nobody_declared(cli: Cli, database: Database) -> None:
    """A hand-made entry of the same name is not overwritten unless it is adopted by name; exit code 4."""
    database.connect().execute("SELECT cron.schedule('tidy', '9 9 * * *', 'SELECT 9')")
    write(cli, GOOD, dsn=database.dsn)
    assert cli("plan", "--exit-code").exit_code == 4
    check(cli("apply", "--yes"), 4, "nobody declared", "--adopt tidy")
    assert database.connect().execute("SELECT schedule FROM cron.job").fetchall() == [("9 9 * * *",)]
    assert cli("apply", "--yes", "--adopt", "tidy").exit_code == 0
    assert database.connect().execute(
        "SELECT schedule FROM cron.job WHERE jobname NOT LIKE 'reconciler-%'"
    ).fetchall() == [("0 3 * * *",)]
