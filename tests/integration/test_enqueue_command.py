"""The command `enqueue`: a job from the shell."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.database.connect import connect
from reconciler.database.migrate import migrate_target
from tests.declared import Site

if TYPE_CHECKING:
    from tests.conftest import Cli, CliResult
    from tests.servers import Database

pytestmark = pytest.mark.one_server


@pytest.fixture
def site(database: Database) -> Site:
    """A database with the schema of this release."""
    site = Site(database)
    with connect(site.dsn) as conn:
        migrate_target(conn)
    return site


def row(site: Site, result: CliResult) -> dict[str, Any]:
    """Return the job whose id was printed, as all that was."""
    assert (result.exit_code, result.stderr) == (0, "")
    [(found,)] = site.rows("SELECT to_jsonb(j) FROM reconciler.jobs j WHERE id = %s", int(result.stdout))
    return dict(found)


def test_the_id_is_printed(shell: Cli, site: Site) -> None:
    """And nothing else, for scripts; what is left out is as usual."""
    found = row(site, shell("enqueue", "mail.send"))
    assert (found["handler"], found["queue"], found["payload"]) == ("mail.send", "default", {})
    assert (found["priority"], found["type"], found["max_attempts"]) == (0, "custom", None)


def test_everything_can_be_said(shell: Cli, site: Site) -> None:
    """Each by an option."""
    found = row(
        site,
        shell(
            *(
                "enqueue",
                "mail.send",
                "--payload",
                '{"to": "anna"}',
                "--queue",
                "outreach",
                "--priority",
                "-5",
            ),
            *("--run-at", "2099-12-01T08:00+01:00", "--unique-key", "u", "--ordering-key", "o"),
            *("--max-attempts", "3", "--timeout", "90s", "--type", "email"),
        ),
    )
    assert (found["payload"], found["queue"], found["priority"]) == ({"to": "anna"}, "outreach", -5)
    assert found["run_at"].startswith("2099-12-01T07:00:00")
    assert (found["unique_key"], found["ordering_key"]) == ("u", "o")
    assert (found["max_attempts"], found["timeout"], found["type"]) == (3, "00:01:30", "email")


def test_some_time_from_now(shell: Cli, site: Site) -> None:
    """By the clock of the server."""
    found = row(site, shell("enqueue", "a", "--in", "10m"))
    [(seconds,)] = site.rows(
        "SELECT extract(epoch FROM run_at - created_at)::float FROM reconciler.jobs WHERE id = %s",
        found["id"],
    )
    assert 590 < seconds < 610


def test_a_payload_comes_from_a_file_or_from_standard_input(shell: Cli, site: Site) -> None:
    """Any JSON."""
    (shell.directory / "payload.json").write_text('[1, {"a": "kø"}]\n', encoding="utf-8")
    assert row(site, shell("enqueue", "a", "--payload", "@payload.json"))["payload"] == [1, {"a": "kø"}]
    assert row(site, shell("enqueue", "a", "--payload", "-", stdin='"text"'))["payload"] == "text"
    large = json.dumps({"text": "x" * 1024 * 1024})
    assert (
        len(row(site, shell("enqueue", "a", "--payload", "-", stdin=large))["payload"]["text"]) == 1024 * 1024
    )


def test_a_unique_key_that_is_taken_is_told(shell: Cli, site: Site) -> None:
    """The id is that of the open job, and the exit code is 0: it is no error."""
    first = shell("enqueue", "a", "--unique-key", "k")
    second = shell("enqueue", "b", "--unique-key", "k")
    assert (second.exit_code, second.stdout) == (0, first.stdout)
    number = first.stdout.strip()
    assert second.stderr == f"Nothing was queued: job {number} has this unique key and is still open.\n"
    assert site.rows("SELECT handler FROM reconciler.jobs") == [("a",)]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (["a", "--payload", "{to: anna}"], 2, "--payload holds no JSON: Expecting property name"),
        (["a", "--payload", "NaN"], 2, "NaN is none of JSON's values"),
        (["a", "--payload", "@missing.json"], 2, "missing.json cannot be read: No such file"),
        (["a", "--payload", "@bytes"], 2, "bytes cannot be read: it is no UTF-8 text"),
        (["a", "--payload", "-"], 2, "standard input holds no JSON"),
        (["a", "--payload", '"\\u0000"'], 1, "payload has a character that PostgreSQL cannot keep: NUL"),
        (["a", "--run-at", "tomorrow"], 2, "'tomorrow' is no instant"),
        (["a", "--run-at", "2026-12-01T08:00"], 2, "write date, time and offset"),
        (["a", "--in", "soon"], 2, "'soon' is no duration"),
        (["a", "--in", "1m", "--run-at", "2099-12-01T08:00Z"], 2, "--run-at and --in say the same twice"),
        (["a", "--max-attempts", "0"], 2, "0 is not in the range"),
        (["a", "--priority", "x"], 2, "'x' is not a valid integer"),
        ([""], 1, "handler is empty"),
        (["a" * 201], 1, "of 1 to 200 characters"),
        (["a", "--queue", ""], 1, "queue is empty"),
        ([], 2, "Missing argument 'HANDLER'"),
    ],
)
def test_what_cannot_be_is_told(
    shell: Cli, site: Site, arguments: list[str], exit_code: int, words: str
) -> None:
    """With what to do about it, and without a traceback; nothing is queued."""
    (shell.directory / "bytes").write_bytes(b"\xff")
    result = shell("enqueue", *arguments)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert site.rows("SELECT count(*) FROM reconciler.jobs") == [(0,)]


def test_a_role_without_the_right_is_told_how_to_get_it(shell: Cli, site: Site) -> None:
    """Exit code 1."""
    site.run("CREATE ROLE alice LOGIN")
    result = shell("enqueue", "a", "--dsn", site.database.dsn_for("alice"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the role alice may not do this" in result.stderr
    assert "SELECT reconciler.allow_enqueue('alice')" in result.stderr
    site.run("SELECT reconciler.allow_enqueue('alice')")
    row(site, shell("enqueue", "a", "--dsn", site.database.dsn_for("alice")))


def test_a_target_without_the_schema_is_told(cli: Cli, database: Database) -> None:
    """With the command that makes it."""
    (cli.directory / "reconciler.yaml").write_text(
        f'owner: shop\ntargets:\n  test: {{dsn: "{database.dsn}"}}\n'
    )
    for command in (["enqueue", "a"], ["jobs", "list"], ["jobs", "show", "1"], ["queues"]):
        result = cli(*command)
        assert result.exit_code == 1
        assert "run reconciler migrate" in result.stderr
        assert "Traceback" not in result.stderr
