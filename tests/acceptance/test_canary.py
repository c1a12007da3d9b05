"""A secret is looked for in all that commands show, store or log: the list of them is the command line's."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, LiteralString

import pytest

from reconciler.cli.main import COMMANDS
from tests.calling import Client
from tests.canary import CANARY, read_everything, read_log
from tests.declared import Site
from tests.http_server import Answer, HttpServer, run_http_server
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Cli, CliResult
    from tests.servers import Database

pytestmark = pytest.mark.one_server

CONFIG = """\
owner: shop
default_target: test
targets:
  test: {dsn: "${env:DATABASE_URL}", prune: auto, runtime: {every: 1s}}
  down: {dsn: "${env:DOWN_URL}"}
secrets:
  run-endpoint: {env: RUN_TOKEN}
  hook: {file: hook.secret}
  kept: {vault: kept}
  ops: {env: OPS_URL}
  pager: {file: pager.secret}
policies:
  - {name: described, because: Readers ask, level: warn, require: {description: true}}
"""
JOBS = """\
jobs:
  call: {schedule: "0 0 29 2 *", http: {url: "%(url)s/ok", token: {secret: hook}}}
  call-kept: {schedule: "0 0 29 2 *", http: {url: "%(url)s/ok", token: {secret: kept}}}
  call-refused:
    schedule: "0 0 29 2 *"
    http: {url: "%(url)s/echo", token: {secret: hook}}
    alert: {channels: [ops, pager]}
  call-down: {schedule: "0 0 29 2 *", http: {url: "http://127.0.0.1:9/", token: {secret: run-endpoint}}}
  tidy: {schedule: "0 0 29 2 *", sql: "SELECT 1"}
  mail: {schedule: "0 0 29 2 *", handler: mail.send}
workers:
  push: {schedule: "0 0 29 2 *", url: "%(url)s/echo-env", token: {secret: run-endpoint}}
queues:
  default: {}
channels:
  ops: {url: {secret: ops}}
  pager: {url: {secret: pager}, deliver: database}
"""
HANDLERS = """\
from reconciler.runtime.handlers import Handlers

handlers = Handlers()

@handlers.handler("mail.send")
async def send(to="all"):
    if to == "nobody":
        raise ValueError("no such address")
    return to
"""
MIGRATION = f"""\
SELECT create_queue_worker('old', 'https://a.test/run', '{CANARY}-sql', '5 4 * * *');
SELECT create_queue_worker('odd' || 2, 'https://a.test/run', '{CANARY}-sql', '5 4 * * *');
"""
VAULT: LiteralString = """
CREATE SCHEMA vault;
CREATE TABLE vault.kept (name text, sealed text);
CREATE VIEW vault.decrypted_secrets AS SELECT name, reverse(sealed) AS decrypted_secret FROM vault.kept;
"""
STORES = {"hook.secret", "pager.secret", "old.sql"}
"""Files of the project that hold a secret because a person put it there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A project with secrets from every store, on a server that logs every statement.

    Attributes:
        cli: The command line.
        site: The target.
        server: What its requests and messages go to; at `/echo` it refuses and tells the token.
        env: Where the secrets of the environment are.
        shown: What each command showed, by its arguments.
        queries: What sessions were seen to execute.
        made: Secrets that a command made, and showed once.
    """

    cli: Cli
    site: Site
    server: HttpServer
    env: dict[str, str]
    shown: dict[str, str] = field(default_factory=dict)
    queries: set[str] = field(default_factory=set)
    made: list[str] = field(default_factory=list)

    def __call__(self, *args: str, code: int | None = 0, stdin: str = "", **env: str) -> CliResult:
        """Run a command to its end, look for the secret, and keep what it showed."""
        result = self.cli(*args, env={**self.env, **env}, stdin=stdin)
        self.show(" ".join(args), result.stdout + result.stderr)
        assert "Traceback" not in result.stderr, result
        assert code is None or result.exit_code == code, (args, result)
        return result

    def show(self, name: str, text: str) -> None:
        """Look for the secret in what a command showed, and keep it."""
        assert not self.has_secret(text), f"{name} shows it: {text}"
        self.shown[name] = text

    def has_secret(self, text: str) -> bool:
        """Tell whether a text has one of the secrets."""
        return find_canary(text) or any(one in text for one in self.made)


def find_canary(text: str) -> bool:
    """Tell whether a text has the secret, plain or as headers and addresses spell it."""
    spelled = [CANARY, CANARY[::-1], CANARY.upper(), CANARY.encode().hex()]
    spelled += [base64.b64encode(b"x" * shift + CANARY.encode()).decode()[4:-4] for shift in range(3)]
    return any(one in text for one in spelled)


@pytest.fixture
def stage(cli: Cli, database: Database) -> Iterator[Stage]:
    """Write the project; the server's log is loud, and everybody's queries are watched."""
    site = Site(database)
    site.run("CREATE EXTENSION http")
    site.run(VAULT)
    site.run("INSERT INTO vault.kept VALUES ('kept', reverse(%s))", f"{CANARY}-kept")
    with run_http_server() as server:
        server.answers["/echo"] = Answer(status=500, body=f"no, not with Bearer {CANARY}-file")
        server.answers["/echo-env"] = Answer(status=403, body=json.dumps({"got": f"Bearer {CANARY}-env"}))
        server.answers["/refuse"] = Answer(status=401, body=f"who is {CANARY}-forge")
        server.answers[f"/{CANARY}-pager"] = Answer(status=500, body=f"no /{CANARY}-pager")
        directory = cli.directory
        (directory / "jobs.d").mkdir()
        (directory / "reconciler.yaml").write_text(CONFIG)
        (directory / "jobs.d" / "shop.yaml").write_text(JOBS % {"url": server.url("")})
        (directory / "shop_jobs.py").write_text(HANDLERS)
        (directory / "hook.secret").write_text(f"{CANARY}-file\n")
        (directory / "pager.secret").write_text(server.url(f"/{CANARY}-pager"))
        (directory / "old.sql").write_text(MIGRATION)
        env = {
            "DATABASE_URL": _make_dsn(database),
            "DOWN_URL": f"postgresql://u:{CANARY}-dsn@127.0.0.1:9/x",
            "RUN_TOKEN": f"{CANARY}-env",
            "OPS_URL": f"json://{CANARY}-user:{CANARY}-pass@127.0.0.1:9/{CANARY}-ops?+X-Token={CANARY}-head",
        }
        stage = Stage(cli=cli, site=site, server=server, env=env)
        database.server.reload(
            log_statement="all",
            log_min_duration_statement="0",
            log_parameter_max_length_on_error="-1",
            log_error_verbosity="verbose",
        )
        with watched(stage):
            yield stage


def _make_dsn(database: Database) -> str:
    """Make a connection string with a password, of a role of its own."""
    with database.server.connect() as conn:
        conn.execute(f"CREATE ROLE deploy SUPERUSER LOGIN PASSWORD '{CANARY}-dsn'".encode())
    return database.dsn_for("deploy", f"{CANARY}-dsn")


@contextmanager
def watched(stage: Stage) -> Iterator[None]:
    """Look at pg_stat_activity all the time."""
    is_over = threading.Event()

    def look() -> None:
        with stage.site.database.server.connect() as conn:
            while not is_over.wait(0.05):
                rows = conn.execute("SELECT a::text FROM pg_stat_activity a WHERE pid <> pg_backend_pid()")
                stage.queries.update(row[0] for row in rows.fetchall())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def play_init(stage: Stage) -> None:
    """Write what is not there yet."""
    stage("init", "--owner", "shop")


def play_schema(stage: Stage) -> None:
    """Print a schema."""
    stage("schema", "config")


def play_validate(stage: Stage) -> None:
    """Check also a file that is wrong, by a server that cannot be reached."""
    stage("validate")
    bad = stage.cli.directory / "jobs.d" / "bad.yaml"
    bad.write_text("jobs:\n  a: {schedule: 61 * * * *, http: {url: x, token: {secret: hoook}}}\n")
    stage("validate", "--format", "github", code=1)
    bad.unlink()
    stage("validate", "--connect", "--target", "down", code=1)
    stage("validate", "--connect", code=1, DATABASE_URL=f"postgresql://u:{CANARY}-dsn@127.0.0.1:x/x")


def play_plan(stage: Stage) -> None:
    """Plan in every form, text with the apply, and save it."""
    for form in ("markdown", "sql"):
        stage("plan", "--format", form)
    shown = stage("plan", "--format", "json", "--out", "saved.json").stdout
    (stage.cli.directory / "shown.json").write_text(shown)


def play_apply(stage: Stage) -> None:
    """Bring a secret that no header can have, then new values of those that are there, to a fleet at last."""
    stage("apply", "--yes", code=None, RUN_TOKEN=f"{CANARY}\nsecond line")
    stage("apply", "--yes", RUN_TOKEN=f"{CANARY}-before")
    stage("apply", "--yes")
    assert stage.site.rows("SELECT name, coalesce(value, vault_name) FROM reconciler.secrets ORDER BY 1") == [
        ("hook", f"{CANARY}-file"),
        ("kept", "kept"),
        ("pager", stage.server.url(f"/{CANARY}-pager")),
        ("run-endpoint", f"{CANARY}-env"),
    ]
    stage("apply", "--yes", "-t", "*", code=1)


def play_migrate(stage: Stage) -> None:
    """Find nothing to migrate."""
    stage("migrate")


def play_roles(stage: Stage) -> None:
    """Make roles for a part of the work, show and drop them."""
    stage.site.run("CREATE ROLE viewer LOGIN")
    stage("roles", "create", "--grant", "reader=viewer", "--yes")
    for form in ((), ("--json",)):
        stage("roles", "show", *form)
    stage("roles", "drop", "--yes")


def play_drift(stage: Stage) -> None:
    """Tell what somebody changed by hand of a job with a token."""
    stage.site.run("UPDATE cron.job SET schedule = '1 0 29 2 *' WHERE jobname = 'call-refused'")
    for form in ("text", "json"):
        stage("drift", "--exit-code", "--alert", "--format", form, code=7)


def play_reconcile(stage: Stage) -> None:
    """Mend that, and bring a new value of a secret."""
    stage("reconcile", "--once", RUN_TOKEN=f"{CANARY}-meanwhile")
    stage("reconcile", "--once", "--format", "json")
    stage("reconcile", "--once", "--target", "down", code=1)


def play_target(stage: Stage) -> None:
    """Show where it is, and claim what is said to be another one."""
    stage("target", "show")
    stage("target", "claim", "--yes", code=None)


def play_run(stage: Stage) -> None:
    """Send with tokens from every store, to those who take them, who tell them, and who are not there."""
    for name in ("call", "call-kept", "call-refused", "call-down", "push"):
        stage("run", name, "--here", code=None)
    stage("run", "call-refused", "--dry-run")
    stage("run", "call-refused", "--wait", "--timeout", "20s", code=1)
    stage("run", "mail")
    sent = {received.headers.get("authorization") for received in stage.server.received}
    assert {f"Bearer {CANARY}-{store}" for store in ("file", "kept", "env")} <= sent


def play_runs(stage: Stage) -> None:
    """Show what became of the requests."""
    stage("runs")
    listed = json.loads(stage("runs", "--json").stdout)
    assert {"failed", "succeeded"} <= {run["status"] for run in listed}
    for run in listed[:3]:
        stage("runs", "--id", str(run["id"]))


def play_cancel(stage: Stage) -> None:
    """Cancel a run that there is not."""
    stage("cancel", "123456", code=None)


def play_enqueue(stage: Stage) -> None:
    """Put a job for each fate."""
    stage("enqueue", "mail.send", "--payload", '{"to": "you"}')
    stage("enqueue", "mail.send", "--payload", '{"to": "nobody"}', "--max-attempts", "1")


def play_worker(stage: Stage) -> None:
    """Do the jobs here."""
    stage("worker", "--app", "shop_jobs", "--drain", "--log-level", "debug")


def play_serve(stage: Stage) -> None:
    """Serve the endpoint, and call it with the token, a wrong one and none."""
    stage("enqueue", "mail.send")
    process = subprocess.Popen(
        [sys.executable, "-m", "reconciler", "serve", "--app", "shop_jobs", "--port", "0",
         "--token-secret", "run-endpoint", "--token-secret", "hook"],
        cwd=stage.cli.directory,
        env={**os.environ, **stage.env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        first = process.stdout.readline()
        port = int(first.partition("127.0.0.1:")[2].partition("/")[0])
        tokens = (f"{CANARY}-env", f"{CANARY}-wrong", None)
        replies = [Client(port=port, token=token).run("queue=default&limit=5") for token in tokens]
    finally:
        process.terminate()
        rest, _ = process.communicate(timeout=30)
    assert [reply.status for reply in replies] == [200, 401, 401]
    stage.show("serve", first + rest + "".join(f"{reply.headers} {reply.body!r}" for reply in replies))
    stage("serve", "--app", "shop_jobs", "--token-secret", "hoook", code=None)


def play_jobs(stage: Stage) -> None:
    """List and show what was on the queues."""
    failed = json.loads(stage("jobs", "list", "--status", "failed", "--json").stdout)
    stage("jobs", "show", str(failed[0]["id"]))
    stage("jobs", "retry", str(failed[0]["id"]))
    stage("jobs", "cancel", str(failed[0]["id"]), "--yes")


def play_queues(stage: Stage) -> None:
    """Show a queue."""
    stage("queues", "default")


def play_token(stage: Stage) -> None:
    """Make a token of the service: shown this once, it is found nowhere after."""
    token = stage("token", "create", "ci", "--scope", "read", "--scope", "run", "--expires", "90d").stdout
    stage.made.append(token.strip()[21:])
    stage("token", "create", "ci", "--scope", "read", code=1)
    stage("token", "list")
    stage("token", "list", "--json")
    stage("token", "revoke", token.strip()[:-1], code=2)
    stage("token", "revoke", token.strip())
    stage("token", "revoke", token.strip(), code=1)


def play_alerts(stage: Stage) -> None:
    """Tell channels whose addresses are secrets, and which refuse or are not there."""
    asked: LiteralString = "SELECT attempts FROM reconciler.alert_deliveries WHERE channel = 'pager'"
    wait_until(lambda: max(stage.site.rows(asked), default=(0,)) > (0,), seconds=20, what="pager is told")
    stage("alerts", "deliver", code=1)
    stage("alerts", "test", "ops", code=1)
    stage("alerts", "test", "pager", code=None)
    stage("alerts", "test", "ops", code=None, OPS_URL=f"{CANARY}://{CANARY}/{CANARY}")
    listed = stage("alerts", "list").stdout
    assert "ops: not sent" in listed
    assert "pager: not sent" in listed


def play_pause(stage: Stage) -> None:
    """Pause a job with a token."""
    stage("pause", "call", "--why", "holidays")


def play_resume(stage: Stage) -> None:
    """Resume it."""
    stage("resume", "call")


def play_status(stage: Stage) -> None:
    """Show all jobs."""
    stage("status", "--all")
    stage("status", "--json")


def play_explain(stage: Stage) -> None:
    """Explain a job with a token."""
    stage("explain", "call", "--json")


def play_next(stage: Stage) -> None:
    """List the runs to come."""
    stage("next", "--all", "--json")


def play_calendar(stage: Stage) -> None:
    """Draw the calendar."""
    stage("calendar", "--svg", "calendar.svg")


def play_history(stage: Stage) -> None:
    """Show what was applied."""
    stage("history", "--json")
    stage("history", "show", "1", "--format", "json")


def play_blame(stage: Stage) -> None:
    """Show who changed a job with a token."""
    stage("blame", "call", "--json")


def play_rollback(stage: Stage) -> None:
    """Bring the jobs of before back."""
    stage("rollback", "1", "--dry-run", "--format", "sql")
    stage("rollback", "1", "--yes", code=None)


def play_restore(stage: Stage) -> None:
    """Bring a job with a token back, whose file is gone."""
    declared = stage.cli.directory / "jobs.d" / "shop.yaml"
    declared.write_text(_leave_out(declared.read_text(), "call-kept", "call-down"))
    stage("apply", "--yes")
    stage("restore", "call-kept", "--dry-run")
    stage("restore", "call-kept", "--yes")


def play_release(stage: Stage) -> None:
    """Try to give up a job with a token."""
    stage("release", "call-kept", "--yes", code=None)


def play_transfer(stage: Stage) -> None:
    """Give it to another owner."""
    stage("transfer", "call-kept", "--to", "crm", "--yes")


def _leave_out(text: str, *names: str) -> str:
    return "".join(line for line in text.splitlines(True) if line.strip().partition(":")[0] not in names)


def play_comment(stage: Stage) -> None:
    """Comment with a token that the forge refuses, and tells."""
    stage("comment", "--plan", "shown.json", "--dry-run")
    place = ("--forge", "github", "--repo", "acme/crons", "--number", "5")
    api = {"GITHUB_API_URL": stage.server.url("/refuse"), "GITHUB_TOKEN": f"{CANARY}-forge"}
    stage.server.answers["/refuse/user"] = Answer(status=401, body=f'{{"message": "no {CANARY}-forge"}}')
    stage("comment", "--plan", "shown.json", *place, code=1, **api)
    stage("comment", "--plan", "shown.json", *place, code=1, GITHUB_TOKEN=f"{CANARY} forge")
    assert any(f"{CANARY}-forge" in str(one.headers.get("authorization")) for one in stage.server.received)


def play_import(stage: Stage) -> None:
    """Read migrations and crontabs with tokens in them, whether they can be read or not."""
    stage("import", "--output", "-", code=None)
    stage("import", "--from", "old.sql", "--output", "-", code=None)
    crontab = f"*/5 * * * * curl -X POST -H 'Authorization: Bearer {CANARY}-crontab' https://a.test/run\n"
    stage("import", "--crontab", "-", "--output", "-", code=None, stdin=crontab)


def play_doctor(stage: Stage) -> None:
    """Look for dangers."""
    stage("doctor", code=None)


def play_policies(stage: Stage) -> None:
    """Judge the saved plan."""
    stage("policies")
    stage("policies", "check", "--plan", "shown.json", "--at", "2026-12-01T08:00Z")


def play_local(stage: Stage) -> None:
    """Ask for a private server, which has no secret."""
    stage("local", "status", code=1)


PLAYS: dict[str, Callable[[Stage], None]] = {
    name.removeprefix("play_"): play for name, play in list(globals().items()) if name.startswith("play_")
}
"""Each command's part, in the order in which they are played."""


def test_every_command_is_played() -> None:
    """A command that is new has to show here that it keeps secrets."""
    assert sorted(PLAYS) == sorted(COMMANDS)


def test_no_command_shows_stores_or_logs_a_secret(stage: Stage) -> None:
    """Played from the first to the last, none of them leaves it where it does not belong."""
    begin = len(read_log(stage.site))
    for play in PLAYS.values():
        play(stage)
    assert len(stage.made) == 1
    log = read_log(stage.site)[begin:]
    assert "COPY pg_temp.brought_secrets" in log
    assert "CALL reconciler.run_job" in log
    assert not [line for line in log.splitlines() if stage.has_secret(line)]
    assert not [line for line in read_everything(stage.site).split("), (") if stage.has_secret(line)]
    assert not [text for text in stage.queries if stage.has_secret(text)]
    assert any("CALL reconciler." in text for text in stage.queries)
    files = {path for path in stage.cli.directory.rglob("*") if path.is_file() and path.name not in STORES}
    assert {"saved.json", "shown.json", "calendar.svg"} <= {path.name for path in files}
    assert not [path for path in files if stage.has_secret(path.read_bytes().decode("latin-1"))]


def test_the_search_finds_it() -> None:
    """Plain, in a header of basic authentication, in hexadecimal digits, and sealed as the vault has it."""
    for text in (CANARY, f"{CANARY}-env", CANARY.encode().hex(), CANARY[::-1]):
        assert find_canary(f"before {text} after")
    for user in ("u", "us", "use"):
        assert find_canary(base64.b64encode(f"{user}:{CANARY}-pass".encode()).decode())
    assert not find_canary(CANARY[:-1])
