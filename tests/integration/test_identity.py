"""Where a database is at home: what nothing does in a copy, and how a copy is claimed."""

from __future__ import annotations

import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from reconciler.cli.main import main
from reconciler.database.connect import COPY_STATE, connect
from reconciler.database.identity import claim, count_waiting, read_identity, require_home
from reconciler.database.migrate import load_migrations, take_apply_lock
from reconciler.errors import ApplyLockError, MigrationError, RefusedError, RightsError
from reconciler.runtime import locked_execution
from tests.calling import Work, serve_endpoint
from tests.calling import put as put_call
from tests.declared import LATER, Site, channel, job, once, queue
from tests.endpoint import run_endpoint
from tests.posting import Post
from tests.posting import statuses as sent
from tests.queued import claim_one, enqueue, look
from tests.runs import attempt, call, fire, log, runner, starts, statuses
from tests.servers import LIBPQ_KINDS, Database, MissingServerError, Server
from tests.worked import drain, handle

if TYPE_CHECKING:
    from pathlib import Path

    from tests.server_pool import ServerPool

ANY = job("a", "INSERT INTO public.done VALUES (1)")


def move(site: Site) -> None:
    """Make the database a copy, as a dump that was restored on another server is one."""
    site.run("UPDATE reconciler.identity SET system_identifier = system_identifier - 1")


def judge(site: Site) -> str:
    """Ask where the database is."""
    [(state,)] = site.rows("SELECT reconciler.judge_home()")
    found: str = state
    return found


def claim_it(site: Site, *, target: str = "test", drop_alerts: bool = False) -> int:
    """Claim the database for the tests' owner."""
    with connect(site.dsn) as conn:
        return claim(conn, owner="shop", target=target, drop_alerts=drop_alerts)


def make_site(site: Site) -> Site:
    """Apply one job that leaves a trace."""
    site.run("CREATE TABLE public.done (n int)")
    site.apply(ANY)
    return site


# ------------------------------------------------------------------------- what is recorded


def test_the_first_apply_records_where_it_is(site: Site) -> None:
    """Server, database and the target's name by owner are there, and a plan finds nothing wrong with them."""
    site.apply(job("a"))
    site.apply(job("b"), owner="kitchen")
    [(system, oid)] = site.rows(
        "SELECT system_identifier, d.oid::bigint FROM pg_control_system(), pg_database d"
        " WHERE datname = current_database()"
    )
    with connect(site.dsn) as conn:
        identity = read_identity(conn)
    assert identity is not None
    assert (identity.recorded.system_identifier, identity.recorded.database_oid) == (system, oid)
    assert identity.recorded == identity.here
    assert (identity.state, identity.targets) == ("home", {"shop": "test", "kitchen": "test"})
    assert site.plan(job("a")).plan.findings == ()


@pytest.mark.one_server
def test_an_upgrade_of_the_release_records_what_was_applied_before(site: Site) -> None:
    """The migration takes the target's name from the last revision of each owner."""
    text = next(one.text for one in load_migrations() if one.name == "0023_record_identity")
    site.apply(job("a"))
    site.run("UPDATE reconciler.revisions SET target = 'production'")
    site.apply(job("b"), owner="kitchen")
    upgrade = text[text.index("SELECT reconciler.record_identity();") : text.index("-- ----")]
    with site.database.connect() as conn:
        conn.execute("DELETE FROM reconciler.identity")
        conn.execute(upgrade.encode())
    assert site.rows("SELECT targets FROM reconciler.identity") == [
        ({"shop": "production", "kitchen": "test"},)
    ]
    assert judge(site) == "home"


@pytest.mark.one_server
@pytest.mark.parametrize(
    ("change", "state"),
    [
        ("system_identifier = 1", "copy"),
        ("database_oid = 1", "copy"),
        ("database = 'before'", "home"),  # renamed
        ("table_oids = '{1,2,3}'", "home"),  # the schema was restored into its own database
        ("system_identifier = 1, server_major = 1", "upgraded"),
        ("system_identifier = 1, server_major = 1, table_oids = '{1,2,3}'", "copy"),
        ("system_identifier = 1, server_major = 1, database_oid = 1", "copy"),
        ("database_oid = 1, server_major = 1", "copy"),
        ("system_identifier = NULL", "home"),  # who recorded it could not ask the server
        ("system_identifier = NULL, database_oid = 1", "copy"),
        ("system_identifier = NULL, table_oids = '{1,2,3}'", "copy"),
    ],
)
def test_what_is_compared(site: Site, change: str, state: str) -> None:
    """The same server and database are home; pg_upgrade keeps the numbers of tables; all else is a copy."""
    site.apply()
    site.run(f"UPDATE reconciler.identity SET {change}".encode())  # type: ignore[arg-type] # of this file
    assert judge(site) == state
    assert site.rows("SELECT reconciler.is_home()") == [(state != "copy",)]


@pytest.mark.one_server
def test_a_server_that_does_not_tell_who_it_is(site: Site) -> None:
    """Where nobody may ask for the system identifier, the numbers of database and tables decide."""
    site.run("CREATE ROLE keeper LOGIN; GRANT CREATE ON DATABASE app TO keeper")
    site.run("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    try:
        site.apply()
        for function in ("is_home()", "judge_home()", "read_system_identifier()"):
            site.run(f"ALTER FUNCTION reconciler.{function} OWNER TO keeper".encode())  # type: ignore[arg-type] # of this file
        site.run("GRANT SELECT ON reconciler.identity TO keeper")
        assert judge(site) == "home"
        assert site.rows("SELECT reconciler.is_home()") == [(True,)]
        site.run("UPDATE reconciler.identity SET database_oid = 1")
        assert site.rows("SELECT reconciler.is_home()") == [(False,)]
    finally:
        site.run("GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC")


# --------------------------------------------------------------------------- plan and apply


def test_a_copy_is_planned_and_not_applied(site: Site) -> None:
    """The plan shows what it is; an apply is refused, with changes and without any, and changes nothing."""
    site.apply(job("a"))
    move(site)
    before = site.everything()
    plan = site.plan(job("a"), job("b")).plan
    assert [finding.code for finding in plan.findings] == ["copied_database"]
    assert [change.name for change in plan.changes] == ["b"]
    for declared in ([job("a")], [job("a"), job("b")]):
        with pytest.raises(RefusedError, match="a copy that nobody has claimed") as refused:
            site.apply(*declared)
        assert "reconciler target claim --target test" in refused.value.remedy
    assert site.everything() == before


@pytest.mark.one_server
def test_a_target_with_another_name_is_refused_until_it_is_claimed(site: Site) -> None:
    """What a copy of the server's files cannot tell, the target's name does; other owners are not asked."""
    site.apply(job("a"))
    site.run("UPDATE reconciler.identity SET targets = jsonb_build_object('shop', 'production')")
    with pytest.raises(RefusedError, match="to the target production last, not to test"):
        site.apply(job("a"), job("b"))
    site.apply(job("c"), owner="kitchen")
    claim_it(site)
    assert site.apply(job("a"), job("b")).revision is not None
    assert site.rows("SELECT targets FROM reconciler.identity") == [({"shop": "test", "kitchen": "test"},)]


@pytest.mark.one_server
def test_an_apply_after_pg_upgrade_records_it_anew(site: Site) -> None:
    """It is at home meanwhile: runs go on, a notice says so, and an apply without changes is enough."""
    make_site(site)
    site.run("UPDATE reconciler.identity SET system_identifier = 1, server_major = 1")
    assert call(site) is None
    assert [notice.code for notice in site.plan(ANY).plan.notices] == ["server_upgraded"]
    assert site.apply(ANY).revision is None
    assert judge(site) == "home"
    assert site.plan(ANY).plan.notices == ()


# ------------------------------------------------------------------------ what does nothing


def test_nothing_runs_in_a_copy(site: Site) -> None:
    """An entry that fires fails for pg_cron, is logged as skipped, and leaves no trace of its body."""
    make_site(site)
    move(site)
    for error in (fire(site), call(site)):
        assert error is not None
        assert error.sqlstate == COPY_STATE
        assert "reconciler target claim" in (error.diag.message_hint or "")
    [(status, reason, trigger), _] = log(site, "a", "status", "error_message", "trigger")
    assert (status, trigger) == ("skipped", "schedule")
    assert reason.startswith("this database is a copy of app, recorded on ")
    assert site.rows("SELECT FROM public.done") == []
    claim_it(site)
    assert fire(site) is None
    assert site.rows("SELECT n FROM public.done") == [(1,)]


@pytest.mark.one_server
def test_no_role_writes_runs_of_others_into_the_log_of_a_copy(site: Site) -> None:
    """Who may not run a job is told that, as at home."""
    make_site(site)
    site.run("CREATE ROLE weak LOGIN")
    move(site)
    error = attempt(site, "CALL reconciler.run_job('a')", user="weak")
    assert isinstance(error, psycopg.errors.InsufficientPrivilege)
    assert log(site) == []


@pytest.mark.one_server
def test_the_runner_leaves_what_waits(site: Site) -> None:
    """What somebody asked for, or what is tried again, stays and starts after the claim."""
    make_site(site)
    site.run("SELECT reconciler.request_run('a')")
    move(site)
    error = attempt(site, "CALL reconciler.runner()")
    assert error is not None
    assert error.sqlstate == COPY_STATE
    [(start,)] = site.rows("SELECT id FROM reconciler.starts")
    assert site.rows("SELECT verdict FROM reconciler.start_run(NULL, start_id => %s)", start) == [("gone",)]
    assert starts(site) == [("a", "manual", 1)]
    claim_it(site)
    runner(site)
    assert statuses(site) == ["succeeded"]


def test_the_tick_does_nothing_but_let_direct_entries_rest(site: Site) -> None:
    """Our entries of mode direct have no guard, so they are switched off; managed ones and others' stay."""
    declared = (job("direct", mode="direct"), job("managed"), job("gone", "SELECT 2", mode="direct"))
    site.apply(*declared, once("o", LATER, sql="SELECT 1"))
    site.run("UPDATE reconciler.jobs SET run_at = now() - interval '1 hour'")
    site.run("SELECT cron.schedule('foreign', '0 0 29 2 *', 'SELECT 1')")
    # What only has the number of one of ours, as in a database to which the schema alone was copied.
    site.run("UPDATE cron.job SET jobname = 'another' WHERE jobname = 'gone'")
    move(site)
    error = attempt(site, "CALL reconciler.tick()")
    assert error is not None
    assert error.sqlstate == COPY_STATE
    assert site.rows("SELECT jobname::text FROM cron.job WHERE active ORDER BY 1") == [
        ("another",),
        ("foreign",),
        ("managed",),
    ]
    assert starts(site) == []
    claim_it(site)
    assert ("update", "direct", "drifted") in site.changes(*declared)


@pytest.mark.one_server
def test_a_tick_without_rights_says_which_entries_go_on(site: Site) -> None:
    """A role that may not alter an entry leaves it, and fails in spite of it with the reason."""
    site.run("CREATE ROLE ticker LOGIN; GRANT USAGE ON SCHEMA cron TO ticker")
    site.apply(job("direct", mode="direct"))
    site.run("UPDATE reconciler.definitions SET name = 'reconciler-x' WHERE name = 'direct'")
    site.run("UPDATE reconciler.definitions SET username = 'ticker'; GRANT SELECT ON cron.job TO ticker")
    site.run("UPDATE cron.job SET jobname = 'reconciler-x', username = 'ticker'")
    site.run("REVOKE EXECUTE ON FUNCTION cron.alter_job FROM PUBLIC")
    move(site)
    conn = site.database.connect("ticker")
    said: list[str] = []
    conn.add_notice_handler(lambda diag: said.append(diag.message_primary or ""))
    with pytest.raises(psycopg.Error) as refused:
        conn.execute("CALL reconciler.tick()")
    assert refused.value.sqlstate == COPY_STATE
    assert any("goes on in this copy: permission denied" in text for text in said)
    assert site.rows("SELECT active FROM cron.job") == [(True,)]


def test_no_queued_job_is_handed_out(site: Site, conn: psycopg.Connection) -> None:
    """Jobs are put as ever; claims are refused, a worker ends with the reason, and nothing is rescued."""
    site.apply(queue("q"))
    held = enqueue(conn, "q")
    claim_one(conn, "q")
    site.run("UPDATE reconciler.jobs_open SET lease_until = now() - interval '1 hour'")
    move(site)
    waits = enqueue(conn, "q")
    error = attempt(site, "SELECT * FROM reconciler.claim_jobs('q', 'w', 1)")
    assert error is not None
    assert error.sqlstate == COPY_STATE
    done: list[int] = []
    with pytest.raises(RefusedError, match="a copy of app"):
        drain(site, handle(do=lambda: done.append(1)), "q")
    assert (look(conn, held)["status"], look(conn, waits)["status"], done) == ("running", "pending", [])
    claim_it(site)
    drain(site, handle(do=lambda: done.append(1)), "q")
    assert look(conn, waits)["status"] == "completed"


@pytest.mark.one_server
def test_a_run_endpoint_answers_503(site: Site, conn: psycopg.Connection) -> None:
    """With the reason, and without claiming or rescuing anything."""
    site.apply()
    work = Work()
    with serve_endpoint(site.dsn, work.handlers) as client:
        lost = put_call(conn, "do", n=0)
        claim_one(conn)
        site.run("UPDATE reconciler.jobs_open SET lease_until = now() - interval '1 hour'")
        job_id = put_call(conn, "do", n=1)
        move(site)
        reply = client.run()
        assert reply.status == 503
        assert "a copy of app" in reply.document["detail"]
        assert (look(conn, lost)["status"], look(conn, job_id)["status"]) == ("running", "pending")
        claim_it(site)
        assert client.run().status == 200


@pytest.mark.one_server
@pytest.mark.parametrize("name", ["a", "my.own"])
def test_own_code_under_a_lock_is_skipped(site: Site, name: str) -> None:
    """Declared or not, the block gets no run, and its reason says why."""
    make_site(site)
    move(site)
    with locked_execution(site.database.connect(), name) as run:
        assert not run
        assert "a copy of app" in run.reason
    assert statuses(site, name) == ["skipped"]


@pytest.mark.one_server
def test_no_alert_is_sent(database: Database) -> None:
    """Neither by a process, which ends with the reason, nor by the database; after the claim they go out."""
    with run_endpoint() as endpoint:
        post = Post(site=Site(database), endpoint=endpoint)
        post.declare("ops")
        post.site.apply(channel("chat", deliver="database"), owner="kitchen")
        post.alert("ops", "chat")
        move(post.site)
        with pytest.raises(RefusedError, match="a copy of app"):
            post.deliver()
        assert post.site.rows("SELECT delivery_id FROM reconciler.claim_delivery()") == [(None,)]
        assert {row[1] for row in post.rows()} == {"pending"}
        claim_it(post.site)
        assert sent(post.deliver()) == [("ops", "sent")]
        assert post.site.rows("SELECT delivery_id IS NULL FROM reconciler.claim_delivery()") == [(False,)]


# ----------------------------------------------------------------------------------- claims


@pytest.mark.one_server
def test_a_claim_shows_what_it_lets_loose(site: Site, conn: psycopg.Connection) -> None:
    """Active entries, queued jobs, what was begun, what was put off and what was not sent are counted."""
    site.apply(job("a"), job("b"), job("off", active=False), job("d", mode="direct"), channel("ops"))
    for _ in range(3):
        enqueue(conn)
    claim_one(conn)
    site.run("SELECT reconciler.request_run('a')")
    site.run(
        "SELECT reconciler.open_alert('a', 'failed', NULL, 'm', '{}', '{ops}', '1 day');"
        "UPDATE cron.job SET active = false WHERE jobname = 'd'"
    )
    with connect(site.dsn) as target:
        waiting = count_waiting(target)
    assert (waiting.entries, waiting.direct, waiting.jobs, waiting.begun) == (2, 1, 2, 1)
    assert (waiting.starts, waiting.alerts, waiting.owners) == (1, 1, ["shop"])
    assert claim_it(site, drop_alerts=True) == 1
    assert site.rows("SELECT status FROM reconciler.alert_deliveries") == [("failed",)]


@pytest.mark.one_server
def test_a_claim_does_not_work_beside_an_apply(site: Site) -> None:
    """They share one lock."""
    site.apply()
    other = site.database.connect(autocommit=False)
    take_apply_lock(other)
    with pytest.raises(ApplyLockError):
        claim_it(site)


@pytest.mark.one_server
def test_a_claim_needs_rights_and_the_schema(site: Site) -> None:
    """Each is said with what to do; who may only read may look."""
    with connect(site.dsn) as conn:
        require_home(conn)
        with pytest.raises(MigrationError, match="is not there yet"):
            read_identity(conn)
    site.apply()
    site.run(
        "CREATE ROLE reader LOGIN; CREATE ROLE nobody LOGIN; GRANT SELECT ON reconciler.identity TO reader"
    )
    with connect(site.database.dsn_for("reader")) as conn:
        assert read_identity(conn) is not None
        with pytest.raises(RightsError, match="may not write the table"):
            claim(conn, owner="shop", target="test", drop_alerts=False)
    with connect(site.database.dsn_for("nobody")) as conn, pytest.raises(RightsError, match="may not read"):
        read_identity(conn)
    site.run("DROP TABLE reconciler.identity CASCADE")
    with connect(site.dsn) as conn:
        require_home(conn)
        with pytest.raises(MigrationError, match="of an earlier release"):
            read_identity(conn)


# ------------------------------------------------------------------------------ real copies


def find_program(name: str, server: Server) -> str:
    """Find a client program that the server's version can be dumped with."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    if int(said.split()[2].split(".")[0]) < server.major:
        pytest.skip(f"{name} is older than the server")
    return path


def test_a_dump_that_was_restored_elsewhere_is_a_copy(servers: ServerPool) -> None:
    """Taken from one server and restored on a newer one, it runs nothing until it is claimed."""
    try:
        source, copy = (servers.get(kind) for kind in LIBPQ_KINDS)
    except MissingServerError as missing:
        pytest.skip(str(missing))
    source.clean()
    copy.clean()
    home, away = Database(source), Database(copy)
    try:
        site, moved = Site(home), Site(away)
        make_site(site)
        site.run("SELECT reconciler.enqueue('work.do')")
        dump = subprocess.run(
            [find_program("pg_dump", source), "--dbname", source.dsn, "--format", "custom"],
            capture_output=True,
            check=True,
        ).stdout
        subprocess.run(
            [find_program("pg_restore", source), "--dbname", copy.dsn],
            input=dump,
            capture_output=True,
            check=False,
        )
        assert moved.entry("a")["active"]
        assert (judge(site), judge(moved)) == ("home", "copy")
        refusal = fire(moved)
        assert refusal is not None
        assert refusal.sqlstate == COPY_STATE
        with pytest.raises(RefusedError):
            moved.apply(ANY)
        assert moved.rows("SELECT FROM public.done") == []
        claim_it(moved)
        assert fire(moved) is None
        assert moved.rows("SELECT n FROM public.done") == [(1,)]
        assert moved.plan(ANY).plan.is_empty
        assert site.rows("SELECT FROM public.done") == []
    finally:
        home.close()
        away.close()


@pytest.mark.one_server
def test_a_database_made_of_another_as_its_template_is_a_copy(site: Site) -> None:
    """The server is the same, and the database another one."""
    make_site(site)
    for _ in range(20):
        try:
            with site.database.connect(database="postgres") as admin:
                admin.execute(
                    "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity"
                    " WHERE datname = 'app' AND pid <> pg_backend_pid()"
                )
                admin.execute("CREATE DATABASE twin TEMPLATE app")
            break
        except psycopg.errors.ObjectInUse:
            time.sleep(0.1)
    with site.database.connect(database="twin") as twin:
        assert twin.execute("SELECT reconciler.judge_home()").fetchone() == ("copy",)
        with pytest.raises(psycopg.Error) as refused:
            twin.execute("CALL reconciler.run_job('a')")
        assert refused.value.sqlstate == COPY_STATE
    assert judge(site) == "home"


# ------------------------------------------------------------------------- the command line


@pytest.mark.one_server
def test_the_commands_show_and_claim_a_copy(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Show, doctor, apply and claim tell the same story with their exit codes; afterwards an apply works."""
    (tmp_path / "jobs.d").mkdir()
    (tmp_path / "jobs.d" / "a.yaml").write_text('jobs: {a: {schedule: "0 0 29 2 *", sql: SELECT 1}}\n')
    (tmp_path / "reconciler.yaml").write_text(
        f'owner: shop\ntargets:\n  one: {{dsn: "{site.dsn}", runtime: false}}\n'
        f'  two: {{dsn: "{site.dsn}", runtime: false}}\n'
    )
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(args)
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out + said.err

    assert run("apply", "-t", "one", "--yes")[0] == 0
    code, text = run("target", "show", "-t", "one")
    assert (code, "home      yes" in text, "known as  one to shop" in text) == (0, True, True)
    code, text = run("apply", "-t", "two", "--yes")
    assert (code, "the target one last, not to two" in text) == (4, True)
    move(site)
    code, text = run("target", "show", "-t", "one", "--json")
    assert (code, '"state": "copy"' in text) == (1, True)
    assert run("doctor", "-t", "one")[0] == 1
    code, text = run("run", "a", "-t", "one")
    assert (code, "a copy of app" in text) == (4, True)
    assert run("apply", "-t", "one", "--yes")[0] == 4
    code, text = run("target", "claim", "-t", "two")
    assert (code, "1 active entry fires" in text, "--yes" in text) == (2, True, True)
    code, text = run("target", "claim", "-t", "two", "--yes")
    assert (code, "Claimed as two." in text) == (0, True)
    assert run("target", "show", "-t", "two")[0] == 0
    assert run("apply", "-t", "two", "--yes")[0] == 0
    code, text = run("target", "claim", "-t", "one", "--yes")
    assert (code, "only its name changes" in text) == (0, True)
    code, text = run("target", "claim", "-t", "one", "--yes")
    assert (code, "nothing to claim" in text) == (0, True)
