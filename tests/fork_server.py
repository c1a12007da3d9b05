"""Run `python -m reconciler` in processes that need not import it anew: forks of one that has imported it.

A start costs about 0.4 s of processor time for imports, and most calls of a test cost far less for what they
do. So each pytest process keeps one server, this file run as a script: it has imported what the commands
import, has one thread and no connection, and forks for each call. The child takes the call's arguments,
folder, environment, standard input and outputs, and then is what a plain start makes: it runs the package as
`-m` does and ends as Python ends. What an interpreter reads only when it starts (PYTHON*, the locale) cannot
be changed in a fork, nor can modules in the call's folder come before those that are imported already: such
a call is a plain start, and so are all where RECONCILER_TEST_PROCESSES is `plain`.

As a script it must know nothing of the tests, whose modules are not there in a plain start.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import locale
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PLAIN = "RECONCILER_TEST_PROCESSES"
START_SECONDS = 120.0

# What the interpreter and libraries read once, before a program's first line or while they are imported.
_READ_AT_START = (
    "COVERAGE_", "DYLD_", "LANG", "LC_", "LD_", "MALLOC_", "OPENSSL_", "PSYCOPG_", "PYTHON", "SSL_",
)  # fmt: skip
_MODULE_SUFFIXES = ("", ".py", ".pyc", ".so")  # "" for a folder

# What is imported where it is needed alone, by commands and by the libraries that they import.
_PACKAGES = ("cli", "core", "database", "loader", "runtime")
_LIBRARIES = ("deepdiff", "jsonschema", "jsonschema_rs", "pglast.parser", "psycopg_binary", "croniter")


def run_plain(
    args: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdin: str, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Start `python -m reconciler` as its users do, and wait for its end.

    Args:
        args: What follows.
        cwd: Where it runs.
        env: Its whole environment.
        stdin: What it reads.
        timeout: Seconds that it may take.

    Raises:
        subprocess.TimeoutExpired: It took too long, and was killed.
    """
    return subprocess.run(
        [sys.executable, "-m", "reconciler", *args],
        cwd=cwd,
        env=env,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


class ForkServer:
    """The server of one pytest process, as seen from there; it starts with the first call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._settings: dict[str, str] = {}
        self._imported: frozenset[str] = frozenset()

    def run(
        self, args: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdin: str, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Do what `run_plain` does, in a fork wherever that comes to the same.

        Args:
            args: What follows `python -m reconciler`.
            cwd: Where it runs.
            env: Its whole environment.
            stdin: What it reads.
            timeout: Seconds that it may take.

        Raises:
            subprocess.TimeoutExpired: It took too long, and was killed.
        """
        if not self.can_fork(cwd, env):
            return run_plain(args, cwd=cwd, env=env, stdin=stdin, timeout=timeout)
        with contextlib.closing(_Call(args)) as call:
            self._send(call, {"args": list(args), "cwd": str(cwd), "env": dict(env)})
            return call.communicate(stdin.encode(locale.getencoding()), timeout)

    def can_fork(self, cwd: Path, env: Mapping[str, str]) -> bool:
        """Tell whether a fork is what a plain start would be; starts the server if it may be."""
        if (
            os.environ.get(PLAIN) == "plain"
            or not hasattr(os, "pidfd_open")
            or "COVERAGE_PROCESS_START" in env
        ):
            return False
        with self._lock:
            if self._process is None:
                self._start()
        folders = env.get("PYTHONPATH", "/").split(os.pathsep)
        if _pick_settings(env) != self._settings or not all(map(os.path.isabs, folders)):
            return False
        return not any(
            path.suffix in _MODULE_SUFFIXES and path.name.partition(".")[0] in self._imported
            for path in cwd.iterdir()
        )

    def close(self) -> None:
        """End the server, which reads the end of its socket."""
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            self._process.communicate(timeout=START_SECONDS)

    def _start(self) -> None:
        """Start the server, on pipes as a call is: Python makes the standard streams by what they are."""
        self._settings = _pick_settings(os.environ)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        ours.settimeout(START_SECONDS)
        told = ours.recv(1 << 17)
        if not told:
            raise RuntimeError(f"the fork server did not start: {self._process.communicate()}")
        self._socket, self._imported = ours, frozenset(json.loads(told))

    def _send(self, call: _Call, what: Mapping[str, object]) -> None:
        """Hand over a call: descriptors alone, one of them of a file that says the rest at any length."""
        assert self._socket is not None
        text = os.memfd_create("call")
        try:
            os.write(text, json.dumps(what).encode())
            socket.send_fds(self._socket, [b"call"], [text, *call.theirs])
        finally:
            os.close(text)
        call.close_theirs()


class _Call:
    """One call: its pipes, of which the last tells the process's number and then the code of its end."""

    def __init__(self, args: Sequence[str]) -> None:
        self._args = ["reconciler", *args]
        child_in, self._in = os.pipe()
        self._out, child_out = os.pipe()
        self._err, child_err = os.pipe()
        self._told, teller = os.pipe()
        self.theirs = [child_in, child_out, child_err, teller]
        self._open = {*self.theirs, self._in, self._out, self._err, self._told}
        self._read = {one: bytearray() for one in (self._out, self._err, self._told)}

    def close_theirs(self) -> None:
        """Close what the child has, so that its end is seen."""
        for one in self.theirs:
            self._close(one)

    def close(self) -> None:
        """Close what is open still."""
        for one in list(self._open):
            self._close(one)

    def communicate(self, data: bytes, timeout: float) -> subprocess.CompletedProcess[str]:
        """Feed the child and take what it prints, until its outputs are closed and it has ended."""
        if not self._exchange(data, {self._out, self._err, self._told}, timeout):
            os.kill(int(self._read[self._told].split()[0]), signal.SIGKILL)
            self._exchange(b"", {self._told}, START_SECONDS)
            raise subprocess.TimeoutExpired(self._args, timeout)
        told = self._read[self._told].split()
        if len(told) != 2:
            raise RuntimeError(f"the fork server told only {told}")
        out, err = (_read_text(self._read[one]) for one in (self._out, self._err))
        return subprocess.CompletedProcess(self._args, int(told[1]), out, err)

    def _exchange(self, data: bytes, outputs: set[int], seconds: float) -> bool:
        """Write and read until all outputs have ended; return False when the time is over."""
        give_up_at = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            for one in outputs:
                selector.register(one, selectors.EVENT_READ)
            if data:
                os.set_blocking(self._in, False)
                selector.register(self._in, selectors.EVENT_WRITE)
            elif self._in in self._open:
                self._close(self._in)
            while outputs & self._open:
                if time.monotonic() >= give_up_at:
                    return False
                for key, _ in selector.select(give_up_at - time.monotonic()):
                    if key.fd == self._in:
                        data = self._feed(data)
                        is_over = not data
                    else:
                        is_over = not self._take(key.fd)
                    if is_over:
                        selector.unregister(key.fd)
                        self._close(key.fd)
        return True

    def _feed(self, data: bytes) -> bytes:
        """Write what the child's pipe takes; return what is left, nothing where nobody reads."""
        try:
            return data[os.write(self._in, data) :]
        except BrokenPipeError:
            return b""

    def _take(self, one: int) -> bytes:
        data = os.read(one, 1 << 16)
        self._read[one] += data
        return data

    def _close(self, one: int) -> None:
        self._open.discard(one)
        os.close(one)


def _pick_settings(env: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in env.items() if key.startswith(_READ_AT_START)}


def _read_text(data: bytearray) -> str:
    """Read text as the text pipes of `subprocess` do."""
    return data.decode(locale.getencoding()).replace("\r\n", "\n").replace("\r", "\n")


def import_package() -> None:
    """Import what commands import, most of it late; see that a fork then shares nothing with this process."""
    for package in _PACKAGES:
        folder = importlib.import_module(f"reconciler.{package}").__path__
        for module in pkgutil.walk_packages(folder, f"reconciler.{package}."):
            importlib.import_module(module.name)
    for name in _LIBRARIES:
        with contextlib.suppress(ModuleNotFoundError):  # an extra that is not installed
            importlib.import_module(name)
    threads, files = (list(Path(f"/proc/self/{kind}").iterdir()) for kind in ("task", "fd"))
    assert len(threads) == 1, f"imports started threads: {threads}"
    assert len(files) == 5, f"imports opened files: {files}"  # standard streams, the socket, the list itself


def serve(calls: socket.socket, interrupt: Any) -> None:
    """Fork for each call until the socket ends; return in a child, when it has become the call's process.

    Args:
        calls: Where they come from.
        interrupt: What a process started here does at SIGINT.
    """
    import gc

    gc.collect()
    gc.freeze()  # a child that collects would else write to, and so copy, all that it shares
    tellers: dict[int, tuple[int, int]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(calls, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd in tellers:
                    pid, teller = tellers.pop(key.fd)
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    _tell(teller, f"{code}\n")
                    os.close(teller)
                    continue
                _, files, _, _ = socket.recv_fds(calls, 16, 5)
                if not files:
                    os._exit(0)
                pid = os.fork()
                if pid == 0:
                    selector.close()
                    calls.detach()
                    _become(files)
                    signal.signal(signal.SIGINT, interrupt)
                    return
                *others, teller = files
                for one in others:
                    os.close(one)
                _tell(teller, f"{pid}\n")
                ended = os.pidfd_open(pid)
                tellers[ended] = (pid, teller)
                selector.register(ended, selectors.EVENT_READ)


def _tell(teller: int, what: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # the test was interrupted
        os.write(teller, what.encode())


def _become(files: list[int]) -> None:
    """Make a fork what the call's process would be."""
    text = os.pread(files[0], os.fstat(files[0]).st_size, 0)
    for number in range(3):
        os.dup2(files[number + 1], number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    call: dict[str, Any] = json.loads(text)
    os.environ.clear()
    os.environ.update(call["env"])
    time.tzset()
    os.chdir(call["cwd"])
    sys.path[0] = str(Path.cwd())
    sys.argv = ["-m", *call["args"]]
    sys.orig_argv = [sys.executable, "-m", "reconciler", *call["args"]]
    sys.modules["__main__"] = types.ModuleType("__main__")


if __name__ == "__main__":
    INTERRUPT = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests and the calls
    del sys.path[0]  # the folder of the tests' modules
    SOCKET = socket.socket(fileno=int(sys.argv[1]))
    with warnings.catch_warnings():  # a library may set filters, for all where it is imported
        import_package()
    sys.path.insert(0, "")
    SOCKET.send(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})).encode())
    serve(SOCKET, INTERRUPT)
    runpy._run_module_as_main("reconciler")  # type: ignore[attr-defined]
