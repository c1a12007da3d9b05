"""A forked call of the command line comes to the same as a plain start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fork_server import PLAIN, ForkServer, run_plain
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

JOBS = """\
jobs:
  a:
    schedule: "0 3 * * *"
    sql: SELECT 'ä'
"""
CONFIG = """\
owner: shop
targets:
  test: {dsn: "host=127.0.0.1 port=1"}
"""
WORKER = ("worker", "--app", "app", "--dsn", "host=127.0.0.1 port=1")
"""A command that imports a module of the folder, so that a test sees the process from within."""

TELL = """\
import atexit, gc, json, locale, logging, os, random, signal, sys, threading, time, warnings
atexit.register(print, "at the end")
main = sys.modules["__main__"]
print(json.dumps({
    "argv": sys.argv, "orig_argv": sys.orig_argv, "path": sys.path, "flags": str(sys.flags),
    "main": [main.__name__, main.__file__, main.__spec__.name, main.__package__],
    "tests": sorted(name for name in sys.modules if name.startswith(("tests", "pytest"))),
    "streams": [
        [one.name, one.encoding, one.errors, one.line_buffering, one.write_through, one.seekable()]
        for one in (sys.stdin, sys.stdout, sys.stderr)
    ],
    "stdin": sys.stdin.read(),
    "environment": dict(os.environ), "cwd": os.getcwd(), "umask": os.umask(0o22), "group": os.getpgrp(),
    "zone": [time.tzname, time.localtime(0).tm_hour], "locale": locale.setlocale(locale.LC_ALL),
    "signals": [str(signal.getsignal(one)) for one in sorted(signal.valid_signals())],
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "files": sorted(os.listdir("/proc/self/fd"))[:-1],
    "threads": os.listdir("/proc/self/task") == [str(os.getpid())],
    "warnings": [str(one) for one in warnings.filters],
    "loggers": [str(logging.root.handlers), logging.root.level],
    "collector": [gc.isenabled(), gc.get_threshold()], "recursion": sys.getrecursionlimit(),
}))
sys.stderr.write("to standard error")
raise SystemExit(7)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    """A server of these tests' own."""
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with one job, whose server does not answer."""
    (tmp_path / "jobs.d").mkdir()
    (tmp_path / "jobs.d" / "a.yaml").write_text(JOBS, encoding="utf-8")
    (tmp_path / "bad.d").mkdir()
    (tmp_path / "bad.d" / "a.yaml").write_text("jobs: {a: {schedule: 5 * *, sql: [}}", encoding="utf-8")
    (tmp_path / "reconciler.yaml").write_text(CONFIG, encoding="utf-8")
    return tmp_path


def outcomes(
    server: ForkServer, folder: Path, *args: str, stdin: str = "", **env: str
) -> list[tuple[int, str, str]]:
    """Return code and outputs of a forked and of a plain call."""
    outside = {**os.environ, **env}
    assert server.can_fork(folder, outside)
    runs = [
        start(args, cwd=folder, env=outside, stdin=stdin, timeout=60) for start in (server.run, run_plain)
    ]
    return [(run.returncode, run.stdout, run.stderr) for run in runs]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("--help", 0),
        ("plan --help", 0),
        ("--version", 0),
        ("schema", 0),
        ("validate", 0),
        ("validate bad.d/a.yaml", 2),
        ("explain 61 3 * * *", 1),
        ("plna", 2),
        ("", 2),
        ("plan", 1),
        ("plan --target other", 1),
    ],
)
def test_the_same_is_printed(server: ForkServer, folder: Path, command: str, code: int) -> None:
    """Byte for byte, and with the same exit code; so are errors."""
    forked, plain = outcomes(server, folder, *command.split())
    assert forked == plain
    assert (forked[0], forked[1] + forked[2] != "") == (code, True)


def test_the_process_is_the_same_from_within(
    server: ForkServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a module sees that a command imports, at the end of the process too."""
    (folder / "app.py").write_text(TELL, encoding="utf-8")
    monkeypatch.delenv("USER", raising=False)
    forked, plain = outcomes(server, folder, *WORKER, stdin="ä\n" * 100_000, TZ="Asia/Tokyo", PGUSER="ä")
    seen, wanted = (json.loads(run[1].splitlines()[0]) for run in (forked, plain))
    assert seen == wanted
    assert (seen["environment"]["PGUSER"], "USER" in seen["environment"]) == ("ä", False)
    assert (seen["zone"], len(seen["stdin"]), seen["files"]) == (
        [["JST", "JST"], 9],
        200_000,
        ["0", "1", "2"],
    )
    assert forked == plain
    assert (forked[0], forked[1].splitlines()[1:], forked[2]) == (7, ["at the end"], "to standard error")


def test_chance_differs(server: ForkServer, folder: Path) -> None:
    """No two forks draw the same."""
    (folder / "app.py").write_text(
        "import random, uuid\nraise SystemExit(f'{random.random()} {uuid.uuid4()}')"
    )
    assert len({outcomes(server, folder, *WORKER)[0] for _ in range(3)}) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGPIPE])
def test_signals_do_the_same(server: ForkServer, folder: Path, number: signal.Signals) -> None:
    """To a process that is in the midst of its work."""
    (folder / "app.py").write_text(f"import os\nprint('begun', flush=True)\nos.kill(os.getpid(), {number})")
    forked, plain = outcomes(server, folder, *WORKER)
    assert forked == plain
    assert forked[1] == "begun\n"


def test_who_does_not_read_its_input_is_not_waited_for(server: ForkServer, folder: Path) -> None:
    """More than a pipe holds."""
    forked, plain = outcomes(server, folder, "--version", stdin="x" * 1_000_000)
    assert forked == plain


def test_who_takes_too_long_is_killed(server: ForkServer, folder: Path) -> None:
    """As `subprocess.run` kills; the server goes on."""
    (folder / "app.py").write_text(
        "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)\n"
    )
    with pytest.raises(subprocess.TimeoutExpired):
        server.run(WORKER, cwd=folder, env=dict(os.environ), stdin="", timeout=2)
    pid = (folder / "pid").read_text()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), seconds=5, what="the process is gone")
    assert outcomes(server, folder, "--version")[0][0] == 0


def test_calls_at_the_same_time(server: ForkServer, folder: Path) -> None:
    """Each has its own environment, input, outputs and end."""
    (folder / "app.py").write_text(
        "import os, sys, time\nsys.stderr.write(os.environ['CALL'])\n"
        "time.sleep(0.2)\nprint(sys.stdin.read())\nraise SystemExit(int(os.environ['CALL']))\n"
    )

    def run(number: int) -> tuple[int, str, str]:
        env = {**os.environ, "CALL": str(number)}
        done = server.run(WORKER, cwd=folder, env=env, stdin=f"{number}", timeout=60)
        return done.returncode, done.stdout, done.stderr

    with ThreadPoolExecutor(6) as pool:
        ends = list(pool.map(run, range(6)))
    assert ends == [(number, f"{number}\n", str(number)) for number in range(6)]


@pytest.mark.parametrize(
    ("name", "env"),
    [
        ("", {"PYTHONWARNINGS": "error"}),
        ("", {"PYTHONPATH": "."}),
        ("", {"LC_ALL": "C"}),
        ("yaml.py", {}),
        ("queue.py", {}),
        ("reconciler", {}),
    ],
)
def test_what_a_fork_cannot_be_is_a_plain_start(
    server: ForkServer, folder: Path, name: str, env: dict[str, str]
) -> None:
    """What counts when Python starts, and modules that would come before those that are imported."""
    if name:
        (folder / name).mkdir()
    assert not server.can_fork(folder, {**os.environ, **env})


def test_all_can_be_plain_starts(server: ForkServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By one setting."""
    monkeypatch.setenv(PLAIN, "plain")
    assert not server.can_fork(folder, os.environ)


def test_the_server_ends_with_its_owner(folder: Path) -> None:
    """It reads the end of its socket."""
    server = ForkServer()
    assert server.can_fork(folder, os.environ)
    process: Any = server._process
    server.close()
    assert process.returncode == 0
