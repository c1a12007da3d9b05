"""A private PostgreSQL with pg_cron in a folder of one's own: for trying things out, and for tests.

Keeps a state file in the folder (`.reconciler/local` by default), so that later commands find the server, and
a lock, so that two commands at once do no harm. Never touches the machine's own clusters. Prints nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pwd
import re
import secrets
import shutil
import socket
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.errors import LocalServerError
from reconciler.runtime.accounts import Account
from reconciler.runtime.cluster import (
    LocalServer,
    create_cluster,
    fits_socket,
    has_data,
    is_alive,
    is_running,
    remove_cluster,
    start_cluster,
    stop_cluster,
    write_settings,
)
from reconciler.runtime.installations import (
    Installation,
    choose_installation,
    find_installations,
    read_distribution,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_DIRECTORY = Path(".reconciler/local")
DEFAULT_DATABASE = "app"
STATE_VERSION = 1
# Who runs the server when root asks for it: PostgreSQL refuses to run as root.
UNPRIVILEGED_USERS = ("postgres", "nobody")
DATABASE_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
PORT_ATTEMPTS = 3


def find_local_server(directory: Path = DEFAULT_DIRECTORY) -> LocalServer | None:
    """Read the state file of a folder.

    Args:
        directory: The folder.

    Returns:
        The server, running or not; None where none was made.

    Raises:
        LocalServerError: The state file cannot be read.
    """
    path = directory / "state.json"
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        root = state["root"]
        return LocalServer(
            account=Account(uid=state["uid"], gid=state["gid"], root=Path(root) if root else None),
            major=state["major"],
            bin_dir=Path(state["bin_dir"]),
            # Relative where they are in the folder: a checkout may be moved.
            home=directory.resolve() / state["home"],
            socket_dir=directory.resolve() / state["socket_dir"],
            port=state["port"],
            database=state["database"],
            password=state["password"],
            background_workers=state["background_workers"],
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LocalServerError(
            f"{path} cannot be read: {error.strerror}", remedy="Another user made it: work as that user."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise LocalServerError(
            f"{path} is no state file of this release: {error!r}", remedy=f"Remove {directory}."
        ) from error


def find_local_dsn(directory: Path = DEFAULT_DIRECTORY) -> str:
    """Return the superuser's connection string of the server in a folder, which must be running.

    Args:
        directory: The folder.

    Returns:
        The connection string.

    Raises:
        LocalServerError: There is none, or it does not run.
    """
    server = find_local_server(directory)
    if server is None or not is_running(server):
        raise LocalServerError(
            f"No private PostgreSQL is running in {directory}.", remedy="Start it: reconciler local up"
        )
    return server.dsn


def find_psql(directory: Path = DEFAULT_DIRECTORY) -> str:
    """Find a psql for the server of a folder: its own, or the one of PATH.

    Args:
        directory: The folder.

    Returns:
        The path of the program.

    Raises:
        LocalServerError: There is none.
    """
    server = find_local_server(directory)
    if server is not None and server.account.root is None and (server.bin_dir / "psql").exists():
        return str(server.bin_dir / "psql")
    found = shutil.which("psql")
    if found is None:
        raise LocalServerError("psql is not installed.", remedy="Debian: apt-get install postgresql-client")
    return found


def start_local_server(
    directory: Path = DEFAULT_DIRECTORY,
    *,
    installation: Installation | None = None,
    major: int | None = None,
    database: str | None = None,
    background_workers: bool | None = None,
) -> LocalServer:
    """Make the server of a folder where there is none, and start it where it does not run.

    Args:
        directory: The folder; made where it is missing.
        installation: The programs to use; None to choose the newest with pg_cron on this machine.
        major: Choose this major version.
        database: The database that pg_cron lives in; None for `app`, or for the one it was made with.
        background_workers: How pg_cron runs jobs; None for connections, or as it is.

    Returns:
        The running server.

    Raises:
        LocalServerError: Nothing fits, or it does not start.
    """
    if database is not None and not DATABASE_NAME.fullmatch(database):
        raise LocalServerError(
            f"{database!r} is no name for the database.", remedy="Use small letters, digits and underscores."
        )
    with _locked(directory):
        server = find_local_server(directory)
        if server is None or not has_data(server):
            if installation is None:
                installation = choose_installation(
                    find_installations(), major=major, distribution=read_distribution()
                )
            name = database or (DEFAULT_DATABASE if server is None else server.database)
            return _start(directory, _make(directory, installation, name, bool(background_workers)))
        _refuse_other(server, directory, database=database, major=major)
        mode = server.background_workers if background_workers is None else background_workers
        if is_running(server) and mode == server.background_workers:
            return server
        server = replace(server, background_workers=mode)
        if is_alive(server):
            stop_cluster(server)
        return _start(directory, server)


def stop_local_server(directory: Path = DEFAULT_DIRECTORY, *, purge: bool = False) -> LocalServer | None:
    """Stop the server of a folder.

    Args:
        directory: The folder.
        purge: Remove its data too.

    Returns:
        The server as it was; None where there was none.

    Raises:
        LocalServerError: It could not be stopped or removed.
    """
    if not (directory / "state.json").exists():
        return None
    with _locked(directory):
        server = find_local_server(directory)
        if server is None:
            return None
        if is_alive(server):
            stop_cluster(server)
        if purge:
            remove_cluster(server)
            (directory / "state.json").unlink()
        return server


def _refuse_other(server: LocalServer, directory: Path, *, database: str | None, major: int | None) -> None:
    differences = []
    if major not in (None, server.major):
        differences.append(f"PostgreSQL {server.major}, not {major}")
    if database not in (None, server.database):
        differences.append(f"the database {server.database}, not {database}")
    if differences:
        raise LocalServerError(
            f"The private server in {directory} was made with {' and '.join(differences)}.",
            remedy="Remove it first, with its data: reconciler local down --purge",
        )


def _make(
    directory: Path, installation: Installation, database: str, background_workers: bool
) -> LocalServer:
    account = _choose_account(installation.root)
    home = _choose_home(directory, account)
    socket_dir = home / "socket"
    if not fits_socket(socket_dir):
        socket_dir = _short_folder(directory)
    server = LocalServer(
        account=account,
        major=installation.major,
        bin_dir=installation.bin_dir,
        home=home,
        socket_dir=socket_dir,
        port=_find_free_port(),
        database=database,
        password=secrets.token_hex(16),
        background_workers=background_workers,
    )
    remove_cluster(server)  # what an interrupted first start left
    create_cluster(server)
    return server


def _start(directory: Path, server: LocalServer) -> LocalServer:
    if not _is_free(server.port):
        server = replace(server, port=_find_free_port())
    for attempt in range(1, PORT_ATTEMPTS + 1):
        write_settings(server)
        # Before the start: a server that runs is always found, also when this process is killed meanwhile.
        _write_state(directory, server)
        try:
            start_cluster(server)
            break
        except LocalServerError as error:
            # Somebody took the port in between.
            if attempt == PORT_ATTEMPTS or "could not bind IPv4" not in error.message:
                raise
            server = replace(server, port=_find_free_port())
    return server


def _choose_account(root: Path | None) -> Account:
    if root is not None:
        for line in (root / "etc/passwd").read_text(encoding="utf-8").splitlines():
            name, _, uid, gid, *_ = line.split(":")
            if name == UNPRIVILEGED_USERS[0]:
                return Account(uid=int(uid), gid=int(gid), root=root)
        raise LocalServerError(f"{root} has no user {UNPRIVILEGED_USERS[0]}.")
    if os.geteuid() != 0:
        return Account()
    for user in UNPRIVILEGED_USERS:
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            continue
        return Account(uid=entry.pw_uid, gid=entry.pw_gid)
    raise LocalServerError(
        "PostgreSQL does not run as root, and there is no user postgres or nobody to run it.",
        remedy="Work as an ordinary user, or make one: useradd --system postgres",
    )


def _choose_home(directory: Path, account: Account) -> Path:
    """Choose where the data lives: in the folder, unless the server's user cannot come there."""
    if account.root is not None:
        parent = Path("/var/lib/reconciler")
        account.run("install", "-d", "-m", "711", str(parent), privileged=True)
        return parent / _hash(directory)
    home = directory.resolve() / "server"
    if account.uid is not None:
        try:
            account.run("test", "-x", str(home.parent))
        except LocalServerError:
            return _short_folder(directory, parent=Path("/var/tmp"))  # noqa: S108 - its owner is checked
    return home


def _short_folder(directory: Path, parent: Path | None = None) -> Path:
    """Name a folder outside of the checkout; refuse one that somebody else made."""
    parent = parent or Path(tempfile.gettempdir())
    if not fits_socket(parent / "reconciler-0123456789ab"):
        parent = Path("/tmp")  # noqa: S108 - its owner is checked
    folder = parent / f"reconciler-{_hash(directory)}"
    if folder.is_symlink() or (folder.exists() and not _is_ours(folder)):
        raise LocalServerError(f"{folder} belongs to somebody else.", remedy="Remove it, then try again.")
    return folder


def _is_ours(folder: Path) -> bool:
    owner = folder.stat().st_uid
    if os.geteuid() != 0:
        return owner == os.geteuid()
    return owner == 0 or owner == _choose_account(None).uid


def _hash(directory: Path) -> str:
    return hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:12]


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _write_state(directory: Path, server: LocalServer) -> None:
    account = server.account
    state = {
        "state_version": STATE_VERSION,
        "background_workers": server.background_workers,
        "bin_dir": str(server.bin_dir),
        "database": server.database,
        "gid": account.gid,
        "home": _relative(server.home, directory),
        "major": server.major,
        "password": server.password,
        "port": server.port,
        "root": str(account.root) if account.root else None,
        "socket_dir": _relative(server.socket_dir, directory),
        "uid": account.uid,
    }
    # Never half-written, and never readable by others: it holds the password.
    descriptor, name = tempfile.mkstemp(dir=directory, prefix="state-")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(state, file, indent=2)
        file.write("\n")
    Path(name).replace(directory / "state.json")


def _relative(folder: Path, directory: Path) -> str:
    top = directory.resolve()
    return str(folder.relative_to(top) if folder.is_relative_to(top) else folder)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise LocalServerError(f"{directory} cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
