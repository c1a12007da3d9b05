"""The private server of `reconciler local`: made, found again, survived, removed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from click.testing import CliRunner

from reconciler.cli.local import local as local_group
from reconciler.errors import LocalServerError
from reconciler.runtime.cluster import is_alive, is_running, stop_cluster
from reconciler.runtime.installations import find_installations, find_root_installation
from reconciler.runtime.local import (
    find_local_dsn,
    find_local_server,
    start_local_server,
    stop_local_server,
)
from tests.installations import find_cache
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.runtime.cluster import LocalServer

HAS_SERVER = any(one.extension_version("pg_cron") for one in find_installations())
pytestmark = pytest.mark.skipif(
    not HAS_SERVER and os.environ.get("RECONCILER_REQUIRE_DB") != "1",
    reason="no PostgreSQL with pg_cron on this machine: run script/bootstrap",
)
START = (
    "import sys; from pathlib import Path; from reconciler.runtime.local import start_local_server;"
    " print(start_local_server(Path(sys.argv[1])).port)"
)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A folder that also the server's own user can enter; its server is removed at the end."""
    top = Path(tempfile.mkdtemp(prefix="reconciler-local-"))
    top.chmod(0o755)
    yield top / "local"
    purge_and_remove(top)


def purge_and_remove(top: Path) -> None:
    """Stop and remove every server below a folder, and the folder."""
    for state in top.rglob("state.json"):
        stop_local_server(state.parent, purge=True)
    shutil.rmtree(top)


def read_one(dsn: str, query: str) -> object:
    """Read the one value of a query."""
    with psycopg.connect(dsn) as conn:
        row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def read_pid(server: LocalServer) -> int:
    """Read the process id of the server's main process."""
    return int((server.data_dir / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])


def test_up_makes_a_server_with_pg_cron(directory: Path) -> None:
    """One call gives a server with the extension, over the socket and over TCP with a password only."""
    server = start_local_server(directory)
    assert read_one(server.dsn, "SELECT count(*) FROM cron.job") == 0
    assert read_one(server.tcp_dsn, "SELECT current_user || '@' || current_database()") == "postgres@app"
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        psycopg.connect(server.tcp_dsn.replace(server.password, "wrong"))
    assert find_local_dsn(directory) == server.dsn


def test_nobody_else_gets_in(directory: Path) -> None:
    """The state file with the password, the data and the socket are closed to other users."""
    server = start_local_server(directory)
    assert (directory / "state.json").stat().st_mode & 0o777 == 0o600
    assert server.data_dir.stat().st_mode & 0o777 == 0o700
    assert server.socket_dir.stat().st_mode & 0o777 == 0o700


def test_a_second_up_is_quick_and_changes_nothing(directory: Path) -> None:
    """Up on a running server returns it as it is, at once."""
    server = start_local_server(directory)
    pid = read_pid(server)
    started_at = time.monotonic()
    assert start_local_server(directory) == server
    assert time.monotonic() - started_at < 0.5
    assert read_pid(server) == pid


def test_two_ups_at_once_make_one_server(directory: Path) -> None:
    """Two processes that start the same folder's server at the same time agree on one."""
    command = [sys.executable, "-c", START, str(directory)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    ports = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert ports[0] == ports[1] != ""


def test_up_after_a_crash(directory: Path) -> None:
    """A server whose main process was killed starts again with its data."""
    server = start_local_server(directory)
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 1 AS a")
        conn.execute("CHECKPOINT")
    os.kill(read_pid(server), signal.SIGKILL)
    wait_until(lambda: not is_running(server), seconds=5, what="the server is dead")
    with pytest.raises(LocalServerError, match="reconciler local up"):
        find_local_dsn(directory)
    again = start_local_server(directory)
    assert read_one(again.dsn, "SELECT a FROM kept") == 1


def test_up_waits_for_what_a_crash_left_behind(directory: Path) -> None:
    """A session that is still busy after the main process was killed delays the start, and no more."""
    server = start_local_server(directory)
    with closing(psycopg.connect(server.dsn)) as conn:
        conn.pgconn.send_query(b"DO $$ BEGIN FOR i IN 1..60000000 LOOP END LOOP; END $$")
        wait_until(
            lambda: read_one(server.dsn, "SELECT count(*) FROM pg_stat_activity WHERE query ~ '^DO'") == 1,
            seconds=5,
            what="the session is busy",
        )
        os.kill(read_pid(server), signal.SIGKILL)
        assert read_one(start_local_server(directory).dsn, "SELECT 1") == 1


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells who is a zombie")
def test_up_after_a_crash_that_nobody_waited_for(directory: Path) -> None:
    """A killed main process that stays a zombie, as in containers without an init, is no running server."""
    server = start_local_server(directory)
    stop_local_server(directory)
    postgres = [str(server.bin_dir / "postgres"), "-D", str(server.data_dir)]
    with subprocess.Popen(
        postgres, cwd="/", user=server.account.uid, group=server.account.gid, stderr=subprocess.DEVNULL
    ) as process:
        wait_until(lambda: is_running(server), seconds=10, what="the server answers")
        os.kill(process.pid, signal.SIGKILL)
        wait_until(lambda: not is_running(server), seconds=5, what="the server is dead")
        assert read_one(start_local_server(directory).dsn, "SELECT 1") == 1


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells what a process is")
def test_a_process_that_inherited_the_number_is_left_alone(directory: Path) -> None:
    """After the machine's restart the server's process number may be another's, who is not stopped for it."""
    server = start_local_server(directory)
    pid_file = server.data_dir / "postmaster.pid"
    text = pid_file.read_text(encoding="utf-8")
    stop_local_server(directory)
    with subprocess.Popen(
        ["sleep", "60"], cwd="/", user=server.account.uid, group=server.account.gid
    ) as other:
        pid_file.write_text(text.replace(text.splitlines()[0], str(other.pid), 1), encoding="utf-8")
        assert not is_alive(server)
        assert read_one(start_local_server(directory).dsn, "SELECT 1") == 1
        assert other.poll() is None
        other.kill()


def test_a_port_taken_meanwhile_is_changed(directory: Path) -> None:
    """A server whose port somebody took while it was stopped comes up on another."""
    server = start_local_server(directory)
    stop_local_server(directory)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", server.port))
        other.listen()
        again = start_local_server(directory)
    assert again.port != server.port
    assert find_local_server(directory) == again
    assert read_one(again.tcp_dsn, "SELECT 1") == 1


def test_data_that_was_tidied_away_is_made_anew(directory: Path) -> None:
    """A state file without its data leads to a new server, not to an error."""
    server = start_local_server(directory)
    stop_local_server(directory)
    shutil.rmtree(server.home)
    again = start_local_server(directory)
    assert read_one(again.dsn, "SELECT count(*) FROM cron.job") == 0


def test_a_moved_folder_keeps_its_data(directory: Path) -> None:
    """A checkout that was moved finds its server's data at the new place."""
    server = start_local_server(directory)
    with psycopg.connect(server.dsn) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 1 AS a")
    stop_local_server(directory)
    moved = directory.rename(directory.with_name("moved"))
    assert read_one(start_local_server(moved).dsn, "SELECT a FROM kept") == 1


def test_the_mode_is_changed_by_a_restart(directory: Path) -> None:
    """Asking for the other way of running jobs restarts it with its data; not asking changes nothing."""
    query = "SHOW cron.use_background_workers"
    assert read_one(start_local_server(directory).dsn, query) == "off"
    assert read_one(start_local_server(directory, background_workers=True).dsn, query) == "on"
    stop_local_server(directory)
    assert read_one(start_local_server(directory).dsn, query) == "on"
    assert read_one(start_local_server(directory, background_workers=False).dsn, query) == "off"


def test_a_long_path_gets_a_short_socket(directory: Path) -> None:
    """A folder whose path is too long for a socket has it elsewhere, and removes it there."""
    server = start_local_server(directory / ("d" * 150) / "local")
    assert not server.socket_dir.is_relative_to(directory)
    assert read_one(server.dsn, "SELECT 1") == 1
    stop_local_server(directory / ("d" * 150) / "local", purge=True)
    assert not server.socket_dir.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the server to another user")
def test_a_folder_closed_to_the_servers_user(directory: Path) -> None:
    """As root, below a folder closed to the server's user, the data lies outside and is found again."""
    directory.mkdir()
    directory.parent.chmod(0o700)
    server = start_local_server(directory)
    assert not server.home.is_relative_to(directory)
    assert server.home.owner() != "root"
    assert find_local_dsn(directory) == server.dsn
    stop_local_server(directory, purge=True)
    assert not server.home.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can pose as somebody else")
def test_a_folder_that_somebody_else_prepared_is_refused(directory: Path) -> None:
    """A folder outside of the checkout that belongs to another user is not used."""
    deep = directory / ("d" * 150)
    trap = start_local_server(deep).socket_dir
    stop_local_server(deep, purge=True)
    trap.mkdir()
    os.chown(trap, 12345, 12345)
    try:
        with pytest.raises(LocalServerError, match="belongs to somebody else"):
            start_local_server(deep)
    finally:
        trap.rmdir()


def test_a_server_that_cannot_start_shows_its_log(directory: Path) -> None:
    """The error of a start that failed has the end of the server's log, and what to do."""
    server = start_local_server(directory)
    stop_local_server(directory)
    (server.data_dir / "global/pg_control").unlink()
    with pytest.raises(LocalServerError) as caught:
        start_local_server(directory)
    assert "pg_control" in caught.value.message
    assert "reconciler local down --purge" in caught.value.remedy


def test_down_stops_and_purge_removes(directory: Path) -> None:
    """Down keeps the data, purge leaves nothing, and neither minds that there is nothing."""
    assert stop_local_server(directory) is None
    server = start_local_server(directory)
    stop_local_server(directory)
    assert not is_alive(server)
    assert server.data_dir.exists()
    stop_local_server(directory)
    stop_local_server(directory, purge=True)
    assert not server.home.exists()
    assert find_local_server(directory) is None


def test_an_immediate_stop_is_a_crash(directory: Path) -> None:
    """Stopping at once leaves a server that recovers when it starts."""
    server = start_local_server(directory)
    stop_cluster(server, immediate=True)
    start_local_server(directory)
    log = server.log_file.read_text(encoding="utf-8")
    assert "database system was not properly shut down" in log


def test_another_database_or_version_is_refused(directory: Path) -> None:
    """A server is not silently given another database or version than it was made with."""
    start_local_server(directory, database="orders")
    for wish in ({"database": "app"}, {"major": 99}):
        with pytest.raises(LocalServerError, match=r"down --purge"):
            start_local_server(directory, **wish)
    with pytest.raises(LocalServerError, match="no name for the database"):
        start_local_server(directory, database="a'b")


@pytest.mark.parametrize("text", ["", "[]", '{"port": 1}', json.dumps({"root": 1})])
def test_a_broken_state_file_is_said(tmp_path: Path, text: str) -> None:
    """A state file that is none is an error with a remedy, never a traceback."""
    (tmp_path / "state.json").write_text(text, encoding="utf-8")
    with pytest.raises(LocalServerError, match="Remove"):
        find_local_server(tmp_path)


@pytest.mark.skipif(find_root_installation(find_cache() / "trixie-pg17") is None, reason="no Debian 13 root")
def test_a_server_inside_a_root_directory(directory: Path) -> None:
    """A server of another release runs inside its root directory, and leaves nothing there."""
    installation = find_root_installation(find_cache() / "trixie-pg17")
    assert installation is not None
    assert installation.root is not None
    server = start_local_server(directory, installation=installation)
    assert read_one(server.dsn, "SHOW server_version_num") == read_one(
        server.tcp_dsn, "SHOW server_version_num"
    )
    assert start_local_server(directory) == server
    home = installation.root / server.home.relative_to("/")
    assert home.exists()
    stop_local_server(directory, purge=True)
    assert not home.exists()


def test_the_commands(directory: Path) -> None:
    """Up, status and down say what they did, and status tells by its exit code."""
    options = ["--dir", str(directory)]

    def run(*args: str) -> tuple[int, str]:
        result = CliRunner().invoke(local_group, [args[0], *options, *args[1:]], catch_exceptions=False)
        return result.exit_code, result.output

    assert run("status")[0] == 1
    assert run("up")[0] == 0
    exit_code, output = run("status")
    server = find_local_server(directory)
    assert server is not None
    assert exit_code == 0
    assert server.dsn in output
    assert server.password not in output
    assert server.tcp_dsn in run("status", "--show-password")[1]
    assert "in background workers" in run("up", "--background-workers")[1]
    assert "stopped" in run("down")[1]
    assert run("status")[0] == 1
    assert "removed" in run("down", "--purge")[1]
    assert run("down") == (0, f"No private PostgreSQL in {directory}.\n")


def test_psql_is_opened_on_the_server(directory: Path) -> None:
    """The psql gets its arguments as they are, and finds the server whatever PG* variables say."""
    start_local_server(directory)
    call = "from reconciler.cli.local import local; local()"
    command = [sys.executable, "-c", call, "psql", "--dir", str(directory), "-At", "-c", "SHOW port"]
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PGPORT": "1", "PGHOST": "no"}
    )
    server = find_local_server(directory)
    assert server is not None
    assert result.stdout == f"{server.port}\n"
