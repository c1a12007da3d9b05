"""Make, start and stop one private PostgreSQL cluster with pg_cron.

Runs the server's programs, as an ordinary user and, where asked, inside a root directory. Knows nothing of
state files, locks or commands; never touches a cluster that it did not make.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from reconciler.errors import LocalServerError

if TYPE_CHECKING:
    from reconciler.runtime.accounts import Account

SUPERUSER = "postgres"
# After a crash the server first does again what its log says since the last checkpoint: after minutes of many
# writes, and on a busy machine, for more than half a minute.
START_SECONDS = 120.0
# A server that was killed leaves children, which hold its memory until they notice (about a second).
LEFTOVER_SECONDS = 15.0
LAUNCHER_SECONDS = 60.0
FAST_STOP_SECONDS = 15

# Nothing here survives a crash of the machine: the cluster is disposable, and quick is what counts.
SETTINGS = """\
# Written by reconciler for a disposable server: a crash of the machine may lose all of it.
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{socket_dir}'
unix_socket_permissions = 0700
shared_preload_libraries = 'pg_cron'
cron.database_name = '{database}'
cron.host = '{socket_dir}'
cron.use_background_workers = {background_workers}
max_worker_processes = 30
max_connections = 100
shared_buffers = 32MB
dynamic_shared_memory_type = {shared_memory}
fsync = off
full_page_writes = off
wal_level = minimal
max_wal_senders = 0
lc_messages = 'C'
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %q%u@%d '
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalServer:
    """A private server, running or not.

    Attributes:
        account: Who runs it.
        major: The major version of PostgreSQL.
        bin_dir: Its programs.
        home: Its folder: data, log and, where the path is short enough, the socket.
        socket_dir: The folder of its socket.
        port: Its TCP port on 127.0.0.1.
        database: The database that pg_cron lives in.
        password: The superuser's password over TCP.
        background_workers: How pg_cron runs jobs: in background workers, or over connections of its own.

    All paths are as seen from inside the account's root directory.
    """

    account: Account
    major: int
    bin_dir: Path
    home: Path
    socket_dir: Path
    port: int
    database: str
    password: str
    background_workers: bool

    @property
    def data_dir(self) -> Path:
        """Return the folder of the cluster."""
        return self.home / "data"

    @property
    def log_file(self) -> Path:
        """Return the server's log."""
        return self.home / "server.log"

    @property
    def client_socket_dir(self) -> Path | None:
        """Return the socket's folder as clients see it; None where they cannot reach it."""
        folder = self.account.outside(self.socket_dir)
        reachable = os.geteuid() == 0 or self.account.root is None
        return folder if reachable and fits_socket(folder) else None

    @property
    def dsn(self) -> str:
        """Return the superuser's connection string: over the private socket where it can be reached."""
        folder = self.client_socket_dir
        if folder is None:
            return self.tcp_dsn
        return psycopg.conninfo.make_conninfo(
            "", host=str(folder), port=self.port, user=SUPERUSER, dbname=self.database
        )

    @property
    def tcp_dsn(self) -> str:
        """Return the superuser's connection string over TCP, with the password."""
        return f"postgresql://{SUPERUSER}:{self.password}@127.0.0.1:{self.port}/{self.database}"

    @property
    def dsn_without_password(self) -> str:
        """Return `dsn` as it may be shown to everybody."""
        return self.dsn.replace(f":{self.password}@", "@")


def fits_socket(folder: Path) -> bool:
    """Tell whether a socket in this folder has a path that the kernel takes: 107 bytes, 103 on macOS."""
    return len(os.fsencode(folder / ".s.PGSQL.65535")) <= 103


def create_cluster(server: LocalServer) -> None:
    """Make the cluster with its database; pg_cron comes with the first start.

    Args:
        server: What to make. Its home must not exist yet.

    Raises:
        LocalServerError: A program failed.
    """
    account = server.account
    account.make_private_folder(server.home)
    account.run(
        str(server.bin_dir / "initdb"),
        "--no-sync",
        "--auth-local=trust",  # the socket's folder is private
        "--auth-host=scram-sha-256",
        f"--username={SUPERUSER}",
        "--encoding=UTF8",
        "--no-locale",
        f"--pgdata={server.data_dir}",
        timeout=120,
    )
    # pg_cron's launcher dies until its database exists, and returns only after a second: so the database
    # is made before the first start, by the single-user server.
    account.run(
        str(server.bin_dir / "postgres"),
        "--single",
        "-F",
        "-D",
        str(server.data_dir),
        "postgres",
        text=f"CREATE DATABASE \"{server.database}\"\nALTER ROLE {SUPERUSER} PASSWORD '{server.password}'\n",
    )


def write_settings(server: LocalServer) -> None:
    """Write the cluster's settings as `server` describes them; they count from the next start."""
    text = SETTINGS.format(
        port=server.port,
        socket_dir=server.socket_dir,
        database=server.database,
        background_workers="on" if server.background_workers else "off",
        # A root directory need not have the memory file system that `posix` wants.
        shared_memory="posix" if server.account.root is None else "mmap",
    )
    server.account.run("tee", str(server.data_dir / "postgresql.conf"), text=text)


def start_cluster(server: LocalServer) -> None:
    """Start the server, make the extension and wait until pg_cron's launcher is up.

    Raises:
        LocalServerError: It did not start; the last lines of its log are in the message.
    """
    account = server.account
    account.make_private_folder(server.socket_dir)
    if not is_alive(server):
        # PostgreSQL would take a zombie, or whoever has its number now, for a running server. What still uses
        # the data is found all the same, by its shared memory.
        lock = server.socket_dir / f".s.PGSQL.{server.port}.lock"
        account.run("rm", "-f", str(server.data_dir / "postmaster.pid"), str(lock))
    command = [str(server.bin_dir / "pg_ctl"), "start", "-w", "-s", "-t", str(int(START_SECONDS))]
    command += ["-D", str(server.data_dir), "-l", str(server.log_file)]
    give_up_at = time.monotonic() + LEFTOVER_SECONDS
    while True:
        try:
            account.run(*command, timeout=START_SECONDS + 10)
            break
        except LocalServerError as error:
            log = read_log(server, lines=15)
            if "shared memory block" in log and "is still in use" in log and time.monotonic() < give_up_at:
                time.sleep(0.2)
                continue
            raise LocalServerError(
                f"PostgreSQL {server.major} in {server.home} did not start: {error.message}\n"
                f"  The end of its log:\n{_indent(log)}",
                remedy="Mend what the log says, or begin anew: reconciler local down --purge",
            ) from error
    with connect(server) as conn:
        # pg_cron 1.4 would else belong to the schema public, and vanish with it.
        conn.execute("CREATE EXTENSION IF NOT EXISTS pg_cron WITH SCHEMA pg_catalog")
        wait_for_launcher(server, conn)


def wait_for_launcher(server: LocalServer, conn: psycopg.Connection) -> None:
    """Wait until pg_cron's launcher is up.

    Raises:
        LocalServerError: It is not up after a minute.
    """
    give_up_at = time.monotonic() + LAUNCHER_SECONDS
    query = "SELECT FROM pg_stat_activity WHERE backend_type = 'pg_cron launcher'"
    while conn.execute(query).rowcount == 0:
        if time.monotonic() > give_up_at:
            raise LocalServerError(
                f"pg_cron's launcher did not start. The end of the log:\n{_indent(read_log(server))}",
                remedy="A row of cron.job whose role is gone stops it: look for `role ... does not exist`.",
            )
        time.sleep(0.02)


def stop_cluster(server: LocalServer, *, immediate: bool = False) -> None:
    """Stop the server; one that does not run is no error.

    Args:
        server: The server.
        immediate: Stop as a crash would.

    Raises:
        LocalServerError: It is still there.
    """
    command = [str(server.bin_dir / "pg_ctl"), "stop", "-w", "-s", "-D", str(server.data_dir)]
    if not immediate:
        try:
            server.account.run(*command, "-m", "fast", "-t", str(FAST_STOP_SECONDS))
        except LocalServerError:
            # pg_cron's launcher ignores the signal while a job copies to stdout (seen in 1.6.5).
            immediate = True
    if immediate and is_alive(server):
        server.account.run(*command, "-m", "immediate")


def has_data(server: LocalServer) -> bool:
    """Tell whether the cluster is there at all: temporary folders get tidied, root directories made anew."""
    try:
        server.account.run("test", "-f", str(server.data_dir / "PG_VERSION"))
    except LocalServerError:
        return False
    return True


def is_alive(server: LocalServer) -> bool:
    """Tell whether the server's main process is there, whether or not it answers."""
    try:
        status = server.account.run(str(server.bin_dir / "pg_ctl"), "status", "-D", str(server.data_dir))
    except LocalServerError:
        return False
    found = re.search(r"PID: (\d+)", status)
    return found is not None and _works_in(int(found[1]), server.account.outside(server.data_dir))


def _works_in(process: int, data_dir: Path) -> bool:
    """Tell whether a process is the main one of this cluster; pg_ctl only asks whether it exists.

    It may be a zombie, since in many containers nobody waits for a killed process, and after the machine's
    restart it may be anybody's.
    """
    if not Path("/proc/self/cwd").exists():
        return True
    try:
        return Path(f"/proc/{process}/cwd").samefile(data_dir)
    except FileNotFoundError:
        return False
    except PermissionError:  # inside a root directory, started with sudo
        return True


def connect(server: LocalServer) -> psycopg.Connection:
    """Connect as superuser, autocommit.

    Raises:
        LocalServerError: No answer.
    """
    try:
        return psycopg.connect(server.dsn, autocommit=True, connect_timeout=15, application_name="reconciler")
    except psycopg.OperationalError as error:
        raise LocalServerError(f"The private server in {server.home} does not answer: {error}") from error


def is_running(server: LocalServer) -> bool:
    """Tell whether this very server answers, not another one on its port."""
    try:
        with connect(server) as conn:
            row = conn.execute("SHOW data_directory").fetchone()
    except LocalServerError:
        return False
    return row == (str(server.data_dir),)


def read_log(server: LocalServer, *, lines: int = 20) -> str:
    """Read the end of the server's log.

    Args:
        server: The server.
        lines: How many lines at most.

    Returns:
        The lines; empty where there is no log yet.
    """
    try:
        return server.account.run("tail", "-n", str(lines), str(server.log_file))
    except LocalServerError:
        return ""


def remove_cluster(server: LocalServer) -> None:
    """Remove the server's folders; it must be stopped.

    Raises:
        LocalServerError: They could not be removed.
    """
    server.account.run("rm", "-rf", str(server.home), str(server.socket_dir), privileged=True)


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
