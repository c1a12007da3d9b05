"""Importing files: what migrations and crontabs say is what a real pg_cron has after them."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.cli.main import main
from reconciler.core.imports.sql_replay import Replay
from reconciler.core.imports.sql_tokens import read_tokens
from tests.canary import CANARY
from tests.servers import LIBPQ_KINDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Cli
    from tests.declared import Site

pytestmark = pytest.mark.one_server


ENTRIES: LiteralString = "SELECT * FROM cron.job ORDER BY jobid"
ON_17 = pytest.mark.parametrize("database", [LIBPQ_KINDS[1]], indirect=True, ids=lambda kind: str(kind.name))
"""Where the extension http is installed."""
CONFIG = 'owner: shop\ntargets:\n  test: {{dsn: "{dsn}", runtime: false, prune: auto}}\n'
HYPOTHESIS = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

MIGRATIONS = {
    "1_first.sql": """
-- The first ones. SELECT cron.schedule('not-me', '* * * * *', 'x');
CREATE TABLE sessions (id bigint, expires_at timestamptz);
COPY sessions (id) FROM stdin;
1
\\.
SELECT cron.schedule('nightly', '0 3 * * *', $$DELETE FROM sessions
  WHERE expires_at < now() - interval '7 days'; -- it's old
$$);
SELECT cron.schedule('gone', '0 3 * * *', 'SELECT 1');
select "cron" . "schedule" (job_name := 'named', command => E'SELECT \\'it''s\\'\\n',
  schedule => '*/5 * * * *');
select cron.schedule('vacuum'::text, '0 4 * * 0', 'VACUUM'
  ' ANALYZE');
""",
    "2_second.sql": """
BEGIN;
SELECT cron.schedule('rolled-back', '0 3 * * *', 'SELECT 1');
SAVEPOINT s;
SELECT cron.unschedule('nightly');
ROLLBACK;
BEGIN;
SELECT cron.schedule('kept', '0 3 * * *', 'SELECT 1');
SAVEPOINT s;
SELECT cron.unschedule('kept');
ROLLBACK TO SAVEPOINT s;
COMMIT;
SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname = 'gone';
SELECT cron.unschedule('never-there') WHERE EXISTS (SELECT 1 FROM cron.job WHERE jobname = 'never-there');
SELECT cron.alter_job((SELECT jobid FROM cron.job WHERE jobname = 'kept'),
  schedule := '1 3 * * *', active := false);
SELECT cron.schedule('kept', '2 3 * * *', 'SELECT 2');
""",
    "10_third.sql": """
DO $migration$
DECLARE
  v_job bigint;
BEGIN
  IF EXISTS (SELECT 1 FROM cron.job WHERE jobname = 'named') THEN
    PERFORM cron.unschedule('named');
  END IF;
  BEGIN
    PERFORM cron.unschedule('never-there');
  EXCEPTION WHEN OTHERS THEN
    RAISE NOTICE 'not there';
  END;
  SELECT jobid INTO v_job FROM cron.job WHERE jobname = 'nightly';
  IF v_job IS NOT NULL THEN
    PERFORM cron.unschedule(v_job);
  END IF;
  PERFORM cron.schedule('named', '*/10 * * * *', $job$
    select net.http_post(
      url := 'https://project.example.com/functions/v1/reminders',
      headers := jsonb_build_object('Authorization', 'Bearer ' || (
        select decrypted_secret from vault.decrypted_secrets where name = 'key')));
  $job$);
  IF NOT EXISTS (SELECT 1 FROM cron.job WHERE jobname = 'named') THEN
    PERFORM cron.schedule('never', '* * * * *', 'x');
  END IF;
  FOR v_job IN SELECT jobid FROM cron.job WHERE jobname LIKE 'vac%' LOOP
    PERFORM cron.alter_job(v_job, command := 'VACUUM');
  END LOOP;
END
$migration$;
SELECT cron.schedule_in_database('elsewhere', '0 5 * * *', 'SELECT 3', 'template1', username := 'alice',
  active := false);
SET ROLE alice;
SELECT cron.schedule('alices', '0 5 * * *', 'SELECT 4');
RESET ROLE;
""",
    "10_third.down.sql": "SELECT cron.unschedule('elsewhere');\n",
}


@pytest.fixture
def project(cli: Cli, site: Site) -> Cli:
    """A project for the test's database, with an empty jobs.d."""
    (cli.directory / "reconciler.yaml").write_text(CONFIG.format(dsn=site.dsn))
    (cli.directory / "jobs.d").mkdir()
    return cli


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        output = capsys.readouterr()
        return int(caught.value.code or 0), output.out, output.err

    return call


def write(folder: Path, files: dict[str, str]) -> None:
    """Write files into a new folder."""
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)


def run_psql(site: Site, path: Path) -> None:
    """Execute a file as migrations are."""
    program = shutil.which("psql")
    if program is None:
        pytest.skip("psql is not installed here")
    command = [program, "-Xq", "-v", "ON_ERROR_STOP=1", "-f", str(path), site.dsn]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_migrations_that_were_executed_plan_to_nothing(project: Cli, site: Site) -> None:
    """Every entry is adopted, none is written, and nothing is left; numbers in names count as numbers."""
    site.run("CREATE ROLE alice LOGIN; GRANT USAGE ON SCHEMA cron TO alice")
    write(project.directory / "migrations", MIGRATIONS)
    for name in ("1_first.sql", "2_second.sql", "10_third.sql"):
        run_psql(site, project.directory / "migrations" / name)
    before = site.rows(ENTRIES)
    imported = project("import", "--from", "migrations")
    assert imported.exit_code == 0, imported.stderr
    assert imported.stderr == "Note: migrations/10_third.down.sql: it undoes a migration, and was not read\n"
    assert "Imported 5 jobs into jobs.d/imported.yaml." in imported.stdout
    plan = project("plan", "--exit-code")
    assert plan.exit_code == 0, plan.stdout + plan.stderr
    assert project("apply", "--yes").exit_code == 0
    assert site.rows(ENTRIES) == before
    assert (
        site.rows("SELECT name, owner FROM reconciler.definitions ORDER BY 1")
        == [
            (name, "shop")
            for name in ("alices", "elsewhere", "kept", "named", "nightly", "vacuum")
            if name != "nightly"
        ]
        + []
    )
    assert project("plan", "--exit-code").exit_code == 0


@ON_17
def test_workers_of_migrations_plan_to_nothing_and_show_no_token(project: Cli, site: Site) -> None:
    """The token is in the database and in nobody's output; with its secret named the plan adopts."""
    site.run("CREATE EXTENSION http")
    site.apply()
    call = (
        "SELECT reconciler.create_queue_worker('w-1', 'https://a.test/run?queue=x', "
        f"'{CANARY}', '5 4 * * *');\n"
    )
    bad = f"SELECT create_queue_worker('w' || 2, 'https://a.test/run', '{CANARY}', '5 4 * * *');\n"
    site.run(call)
    write(project.directory / "migrations", {"1.sql": call + bad})
    printed = project("import", "--from", "migrations", "--output", "-")
    imported = project("import", "--from", "migrations")
    text = (project.directory / "jobs.d" / "imported.yaml").read_text()
    for output in (printed.stdout, printed.stderr, imported.stdout, imported.stderr, text):
        assert CANARY not in output
    assert printed.stdout == text
    assert "Left: migrations/1.sql:2: create_queue_worker(" in imported.stderr
    line = "worker.w-1: {env: W_1_TOKEN}"
    assert f"\n  {line}\n" in imported.stdout
    with (project.directory / "reconciler.yaml").open("a") as file:
        file.write(f"secrets:\n  {line}\n")
    plan = project("plan", "--exit-code")
    assert plan.exit_code == 0, plan.stdout + plan.stderr
    assert project("apply", "--yes").exit_code == 0
    assert site.rows("SELECT name, owner FROM reconciler.definitions") == [("w-1", "shop")]
    assert site.rows("SELECT value FROM reconciler.secrets") == [(CANARY,)]


@ON_17
def test_a_crontab_is_applied_as_it_was_imported(project: Cli, site: Site) -> None:
    """Managed, direct and requests: after one apply the plan is empty."""
    (project.directory / "tidy.sql").write_text("DELETE FROM a;\nDELETE FROM b;\n")
    (project.directory / "crontab").write_text(
        "# m h dom mon dow command\n"
        "CRON_TZ=UTC\n"
        "# Tidy up\n"
        "0 3 * * * psql shop -f tidy.sql >/dev/null 2>&1\n"
        "@daily psql shop -c 'VACUUM'\n"
        f"*/5 * * * * curl -X POST -H 'Authorization: Bearer {CANARY}' https://a.test/api/run\n"
        "0 4 * * * /usr/local/bin/backup.sh\n"
    )
    imported = project("import", "--crontab", "crontab")
    assert imported.exit_code == 0, imported.stderr
    assert "Imported 3 jobs into jobs.d/imported.yaml." in imported.stdout
    assert "Left: crontab:7: 0 4 * * * /usr/local/bin/backup.sh: " in imported.stderr
    text = (project.directory / "jobs.d" / "imported.yaml").read_text()
    assert CANARY not in text + imported.stdout + imported.stderr
    with (project.directory / "reconciler.yaml").open("a") as file:
        file.write("secrets:\n  api-run: {env: API_RUN_TOKEN}\n")
    applied = project("apply", "--yes")
    assert applied.exit_code == 0, applied.stdout + applied.stderr
    assert project("plan", "--exit-code").exit_code == 0
    rows = site.rows(
        "SELECT jobname::text, schedule, command FROM cron.job WHERE jobname !~ '^reconciler-' ORDER BY 1"
    )
    assert rows == [
        ("tidy-up", "0 3 * * *", "CALL reconciler.run_job('tidy-up')"),
        ("vacuum", "@daily", "VACUUM"),
    ]


def test_a_crontab_is_read_from_standard_input_without_a_project(cli: Cli) -> None:
    """Printing needs no configuration, and connects to nothing."""
    result = cli(
        "import",
        "--crontab",
        "-",
        "--output",
        "-",
        "--timezone",
        "Asia/Tokyo",
        stdin="5 4 * * * psql -c 'SELECT 1'\n",
    )
    assert (result.exit_code, result.stderr) == (0, "")
    assert 'timezone: "Asia/Tokyo"' in result.stdout
    system = cli(
        "import", "--crontab", "-", "--system", "-o", "-", stdin="5 4 * * * root psql b -c 'SELECT 1'\n"
    )
    assert "select-1" in system.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("migrations",), 2, "Write --from migrations"),
        (("--from", "migrations", "--crontab", "x"), 2, "two imports"),
        (("--from", "migrations", "--system"), 2, "give --crontab FILE"),
        (("--from", "migrations", "--dsn", "x"), 2, "leave --dsn out"),
        (("--from", "nowhere", "-o", "-"), 1, "no SQL files there"),
        (("--from", "empty", "-o", "-"), 1, "no SQL files there"),
        (("--from", "migrations/2.down.sql", "-o", "-"), 1, "undoes a migration"),
        (("--from", "latin.sql", "-o", "-"), 1, "not in UTF-8"),
        (("--crontab", "nowhere", "-o", "-"), 1, "cannot read nowhere"),
        (("--from", "migrations"), 1, "reconciler.yaml"),
    ],
)
def test_wrong_input_is_told_with_what_to_do(
    run: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    arguments: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    """No traceback, and the right exit code."""
    write(tmp_path / "migrations", {"1.sql": "SELECT 1;", "2.down.sql": "SELECT 1;"})
    (tmp_path / "empty").mkdir()
    (tmp_path / "latin.sql").write_bytes(b"SELECT '\xe4';")
    exit_code, _, errors = run("import", *arguments)
    assert exit_code == code, errors
    assert words in errors


def test_files_are_read_in_the_order_of_their_names(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """In folders and patterns, also where a shell spelt one out; but not where each has its own --from."""
    call = "SELECT cron.schedule('a', '{} 3 * * *', 'x');"
    names = ("V1__a.sql", "V2__b.sql", "V10__c.sql", "R__d.sql")
    write(tmp_path / "m", {name: call.format(minute) for minute, name in enumerate(names)})
    (tmp_path / "m" / "deep.sql").mkdir()

    def read(*arguments: str) -> str:
        _, output, errors = run("import", *arguments, "-o", "-")
        found = re.search(r'schedule: "(\d+) ', output)
        assert found is not None, errors
        return found[1]

    assert read("--from", "m") == "3"
    assert read("--from", "m/V*.sql") == "2"
    assert read("--from", "m/V1__a.sql", "m/V10__c.sql", "m/V2__b.sql") == "2"
    assert read("--from", "m/V10__c.sql", "--from", "m/V1__a.sql") == "0"


def test_a_file_that_exists_is_not_overwritten(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """And nothing to import writes none."""
    (tmp_path / "reconciler.yaml").write_text("owner: shop\ntargets: {test: {}}\n")
    (tmp_path / "jobs.d").mkdir()
    write(
        tmp_path / "m",
        {"1.sql": "SELECT cron.schedule('a', '0 3 * * *', 'x');", "2.sql": "SELECT 1;"},
    )
    assert run("import", "--from", "m")[0] == 0
    code, _, errors = run("import", "--from", "m")
    assert code == 4
    assert "imported.yaml exists" in errors
    assert "Nothing to import" in run("import", "--from", "m/2.sql")[2]


# ------------------------------------------------------------------ against a real server, at random

ODD = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
    st.text("a'\\$;\n-/*\"%x0", max_size=12),
    st.sampled_from(["$$", "$a$", "it's", "--", "/* */", "\\'", "E'\\n'", "';--", "\\\\", "😀", "$q0$"]),
)


def quote(text: str) -> str:
    """Spell a text in quotes."""
    return "'" + text.replace("'", "''") + "'"


def escape(text: str) -> str:
    """Spell a text with the escapes of E''."""
    named = {"\n": "\\n", "\\": "\\\\", "'": "\\'", "\t": "\\t"}
    return "E'" + "".join(named.get(sign) or _escape_one(sign) for sign in text) + "'"


def _escape_one(sign: str) -> str:
    if sign.isascii() and sign.isalnum():
        return sign
    ways: list[Callable[[str], str]] = [
        lambda one: "".join(f"\\x{byte:02x}" for byte in one.encode()),
        lambda one: "".join(f"\\{byte:03o}" for byte in one.encode()),
        lambda one: f"\\U{ord(one):08x}",
    ]
    return ways[ord(sign) % 3](sign)


def dollar(text: str) -> str:
    """Spell a text in dollar quotes that it does not hold."""
    number = next(number for number in range(99) if f"$q{number}$" not in f"{text}$q")
    return f"$q{number}${text}$q{number}$"


def unicode(text: str) -> str:
    """Spell a text with the escapes of U&''."""
    spelt = "".join(sign if sign.isascii() and sign.isalnum() else f"!+{ord(sign):06x}" for sign in text)
    return f"U&'{spelt}' UESCAPE '!'"


def go_on(text: str) -> str:
    """Spell a text as two literals on two lines."""
    half = len(text) // 2
    return f"{quote(text[:half])} -- it's two\n  {quote(text[half:])}"


def cast(text: str) -> str:
    """Spell a text with a cast."""
    return f"CAST(({quote(text)}) AS text)"


SPELLINGS = (quote, escape, dollar, unicode, go_on)


@HYPOTHESIS
@given(texts=st.lists(st.tuples(ODD, st.sampled_from(SPELLINGS)), min_size=8, max_size=8))
def test_literals_are_read_as_the_server_reads_them(
    site: Site, texts: list[tuple[str, Callable[[str], str]]]
) -> None:
    """Whatever is in them and however they are spelt."""
    sql = "SELECT " + ",\n".join(spell(text) for text, spell in texts)
    expected = [text for text, _ in texts]
    assert [token.value for token in read_tokens(sql) if token.kind == "text"] == expected
    with site.database.server.connect() as conn:
        assert list(conn.execute(sql).fetchone() or ()) == expected


NAMES = st.sampled_from(["a", "b", "it's", "C $$"])
SCHEDULES = st.sampled_from(["0 3 * * *", "*/5 * * * *", "0 0 29 2 *", "@daily"])
SPELL = st.sampled_from((*SPELLINGS, cast))
QUOTED = {
    "from": "SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname = {name}",
    "plain": "SELECT cron.unschedule({name})",
    "exists": "SELECT cron.unschedule({name}) WHERE EXISTS (SELECT 1 FROM cron.job j WHERE "
    "j.jobname = {name})",
    "scalar": "SELECT * FROM cron.unschedule((SELECT jobid FROM cron.job WHERE jobname = {name}))",
    "do": "DO $do$ BEGIN IF EXISTS (SELECT 1 FROM cron.job WHERE jobname = {name}) THEN"
    " PERFORM cron.unschedule({name}); END IF; END $do$",
    "caught": "DO $do$ BEGIN PERFORM cron.schedule('caught', '0 3 * * *', 'x'); PERFORM "
    "cron.unschedule({name});"
    " EXCEPTION WHEN OTHERS THEN PERFORM cron.schedule('handled', '0 3 * * *', 'x'); END $do$",
    "variable": "DO $do$ DECLARE v bigint; BEGIN SELECT jobid INTO v FROM cron.job WHERE jobname = {name};"
    " IF v IS NOT NULL THEN PERFORM cron.unschedule(v); ELSE PERFORM cron.schedule('else', '0 3 * * *', 'x');"
    " END IF; END $do$",
    "loop": "DO $do$ DECLARE r record; BEGIN FOR r IN SELECT * FROM cron.job WHERE jobname IN "
    "({name}, 'b') LOOP"
    " PERFORM cron.alter_job(r.jobid, active := false, schedule => '7 7 * * *'); END LOOP; END $do$",
    "others": "SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname <> {name} AND active",
    "count": "DO $do$ BEGIN IF (SELECT count(*) FROM cron.job) >= 2 THEN PERFORM "
    "cron.unschedule(jobid) FROM cron.job"
    " WHERE jobname = {name}; END IF; END $do$",
}


@st.composite
def draw_call(draw: st.DrawFn) -> str:
    """Draw one statement that changes cron.job."""
    spell = draw(SPELL)
    name, schedule, command = (draw(SPELL)(draw(one)) for one in (NAMES, SCHEDULES, ODD))
    kind = draw(
        st.sampled_from(["schedule", "named", "database", "alter", "nested", "unschedule", "unschedule"])
    )
    active = draw(st.sampled_from(["true", "false", "'f'::bool"]))
    match kind:
        case "schedule":
            return f"SELECT cron.schedule({name}, {schedule}, {command})"
        case "named":
            given = f"command => {command}, job_name := {name}, schedule => {schedule}"
            return f'select "cron" . SCHEDULE({given}) as x, 1'
        case "database":
            return (
                f"SELECT cron.schedule_in_database({name}, {schedule}, {command}, current_database()::text,"
                f" active := {active})"
            )
        case "alter":
            return (
                f"SELECT cron.alter_job(jobid, command := {command}, active := {active}) FROM "
                f"cron.job WHERE jobname = {name}"
            )
        case "nested":
            return f"SELECT cron.alter_job(cron.schedule({name}, {schedule}, {command}), active := {active})"
    shape = QUOTED[draw(st.sampled_from(sorted(QUOTED)))]
    if "$do$" in shape:
        spell = draw(st.sampled_from([quote, cast]))
    return shape.format(name=spell(draw(NAMES)))


@st.composite
def draw_history(draw: st.DrawFn) -> list[str]:
    """Draw a history; in transactions stand calls that cannot fail, so that none is aborted."""
    statements: list[str] = []
    for _ in range(draw(st.integers(1, 8))):
        if draw(st.integers(0, 3)):
            statements.append(draw(draw_call()))
            continue
        calls = draw(st.lists(draw_call().filter(_is_safe), max_size=3))
        end = draw(st.sampled_from(["COMMIT", "ROLLBACK", "END", "ABORT WORK"]))
        middle = draw(st.sampled_from(["", "SAVEPOINT s"]))
        back = draw(st.sampled_from(["", "ROLLBACK TO SAVEPOINT s"])) if middle else ""
        statements += filter(None, ["BEGIN", *calls[:1], middle, *calls[1:], back, end])
    return statements


def _is_safe(statement: str) -> bool:
    """Tell whether a statement cannot fail; altering nothing does."""
    return "SELECT cron.unschedule(" not in statement or " FROM cron.job" in statement


@HYPOTHESIS
@given(history=draw_history())
def test_histories_are_read_as_pg_cron_executes_them(site: Site, history: list[str]) -> None:
    """Whatever is scheduled, altered and unscheduled, in whichever spelling."""
    site.run("DELETE FROM cron.job")
    conn = site.database.server.connect()
    for statement in history:
        # A job that is not there ends one statement, and psql goes on.
        with contextlib.suppress(psycopg.errors.InternalError):
            conn.execute(statement)
        assert conn.info.transaction_status is not psycopg.pq.TransactionStatus.INERROR
    conn.close()
    replay = Replay()
    replay.run_script("history.sql", ";\n".join(history))
    assert replay.ways.left == ()
    entries = replay.ways.history.entries.values()
    found = sorted((made.name, made.schedule, made.command, made.active) for made in entries)
    assert all(not made.doubt and not made.perhaps for made in entries)
    assert found == sorted(site.rows("SELECT jobname::text, schedule, command, active FROM cron.job"))
