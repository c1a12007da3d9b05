"""The command `worker` as people run it: with an application of their own, until a signal comes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.declared import Site
from tests.queued import fill, statuses, wait_for_statuses
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Cli
    from tests.servers import Database

pytestmark = pytest.mark.one_server

APP = '''
"""The jobs of a shop."""

import asyncio
import os
import threading

from reconciler.runtime import Handlers, Job

handlers = Handlers()


@handlers.handler("work.do")
async def do(n: int) -> int:
    return n


@handlers.handler("work.long")
async def long(n: int, job: Job) -> str:
    open("began", "a").close()
    await asyncio.sleep(n)
    return job.key


@handlers.handler("work.block")
def block(n: int) -> None:
    open("began", "a").close()
    threading.Event().wait(60)


@handlers.handler("work.fail")
def fail(n: int) -> None:
    raise LookupError("\\x1b[31mno such order")
'''


@pytest.fixture
def site(database: Database) -> Site:
    """A database with the schema."""
    site = Site(database)
    site.apply()
    return site


@pytest.fixture
def app(cli: Cli) -> Cli:
    """A folder with an application."""
    (cli.directory / "shop").mkdir()
    (cli.directory / "shop" / "__init__.py").touch()
    (cli.directory / "shop" / "tasks.py").write_text(APP)
    return cli


def put(site: Site, handler: str, seconds: int = 0, count: int = 1) -> None:
    """Put jobs on the default queue."""
    fill(site.database.connect(), count)
    site.run("UPDATE reconciler.jobs SET handler = %s", handler)
    if seconds:
        site.run("UPDATE reconciler.jobs SET payload = jsonb_build_object('n', %s::int)", seconds)


@contextmanager
def started(app: Cli, site: Site, *args: str) -> Iterator[subprocess.Popen[str]]:
    """Run a worker beside the test; it is killed at the end."""
    command = [sys.executable, "-m", "reconciler", "worker", "--app", "shop.tasks", "--dsn", site.dsn, *args]
    with subprocess.Popen(command, cwd=app.directory, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def wait_for_begin(app: Cli) -> None:
    """Wait until a handler has begun."""
    wait_until((app.directory / "began").exists, seconds=20, what="a handler has begun")


def test_it_does_what_there_is_and_stops(app: Cli, site: Site) -> None:
    """--drain: exit code 0, with a line at the beginning and one at the end."""
    put(site, "work.do", count=300)
    result = app("worker", "--app", "shop.tasks", "--dsn", site.dsn, "--drain")
    assert (result.exit_code, result.stdout) == (0, "")
    lines = result.stderr.splitlines()
    assert len(lines) == 2, result.stderr
    first, last = lines
    assert first.endswith("serves default, 10 at once.")
    assert last.endswith("ends: 300 done.")
    assert statuses(site) == {"completed": 300}


def test_it_finds_its_target_in_the_configuration(app: Cli, site: Site) -> None:
    """Like every other command; a machine that only works needs none."""
    put(site, "work.do")
    (app.directory / "reconciler.yaml").write_text(f'owner: shop\ntargets: {{test: {{dsn: "{site.dsn}"}}}}\n')
    result = app("worker", "--app", "shop.tasks:handlers", "-t", "test", "-q", "other,default", "--drain")
    assert result.exit_code == 0, result.stderr
    assert "serves other, default" in result.stderr
    assert statuses(site) == {"completed": 1}


def test_the_application_of_the_page_works(cli: Cli, site: Site) -> None:
    """docs/workers.md: what its handlers return and raise is what becomes of the jobs."""
    page = (Path(__file__).parents[2] / "docs" / "workers.md").read_text(encoding="utf-8")
    block = next(
        text
        for text in re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        if "shop/tasks.py" in text
    )
    (cli.directory / "shop").mkdir()
    (cli.directory / "shop" / "tasks.py").write_text(block)
    for order in (-1, 7, 1001):
        site.run("SELECT reconciler.enqueue('mail.welcome', jsonb_build_object('order', %s::int))", order)
    site.run("SELECT reconciler.enqueue('report.print')")
    result = cli("worker", "--app", "shop.tasks", "--dsn", site.dsn, "--drain")
    assert result.exit_code == 0, result.stderr
    assert site.rows("SELECT status, attempts, result, last_error FROM reconciler.jobs ORDER BY id") == [
        ("failed", 1, None, "there is no such order"),
        ("completed", 1, {"order": 7, "attempt": 1}, None),
        ("pending", 0, None, None),
        ("pending", 1, None, "the printer is busy"),
    ]


def test_a_failure_is_one_line(app: Cli, site: Site) -> None:
    """What a handler says cannot steer the terminal, and the traceback is in the job."""
    put(site, "work.fail")
    result = app("worker", "--app", "shop.tasks", "--dsn", site.dsn, "--drain")
    assert result.exit_code == 0
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    assert (
        "WARNING <Job 1 work.fail on default, try 1> of 5 failed, it is tried again: LookupError" in lines[1]
    )
    assert "\x1b" not in result.stderr
    assert lines[2].endswith("ends: 0 done, 1 tries failed.")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(app: Cli, site: Site, number: signal.Signals) -> None:
    """What runs is finished; the exit code is 0."""
    put(site, "work.long", seconds=1)
    with started(app, site) as process:
        wait_for_begin(app)
        process.send_signal(number)
        assert process.wait(10) == 0
    assert statuses(site) == {"completed": 1}


def test_a_second_signal_ends_it_at_once(app: Cli, site: Site) -> None:
    """What runs is given back."""
    put(site, "work.long", seconds=60)
    with started(app, site) as process:
        wait_for_begin(app)
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.terminate()
        assert process.wait(5) == 0
    assert statuses(site) == {"pending": 1}


def test_a_function_that_hangs_does_not_keep_the_process(app: Cli, site: Site) -> None:
    """After its grace the job is given back, and the process is gone although the thread was not."""
    put(site, "work.block")
    with started(app, site, "--grace", "200ms") as process:
        wait_for_begin(app)
        process.terminate()
        assert process.wait(8) == 0
    assert statuses(site) == {"pending": 1}


def test_hanging_functions_end_the_process_with_a_reason(app: Cli, site: Site) -> None:
    """For its supervisor to start it again: exit code 1."""
    put(site, "work.block", count=3)
    site.run("UPDATE reconciler.jobs SET timeout = '200 ms'")
    with started(app, site, "-c", "2") as process:
        assert process.wait(15) == 1
        assert process.stderr is not None
        text = process.stderr.read()
    assert "Error: 2 handlers hang beyond their time, and only the end of the process ends them" in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ([], 2, "Missing option '--app'"),
        (["--app", "shop.taks"], 1, "there is no module shop.taks"),
        (["--app", "shop"], 1, "shop registers no handler"),
        (["--app", "shop.tasks", "-q", ","], 2, "name a queue"),
        (["--app", "shop.tasks", "-c", "0"], 2, "0 is not in the range"),
        (["--app", "shop.tasks", "--poll", "often"], 2, "is no duration"),
    ],
)
def test_wrong_options_are_told(app: Cli, site: Site, args: list[str], code: int, message: str) -> None:
    """What is wrong and what to do, without a traceback."""
    result = app("worker", "--dsn", site.dsn, *args)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_no_server_and_no_schema_are_told(app: Cli, database: Database) -> None:
    """Before anything else, at the start."""
    result = app("worker", "--app", "shop.tasks", "--dsn", f"host={app.directory} dbname=app")
    assert (result.exit_code, "cannot connect to app on" in result.stderr) == (1, True)
    result = app("worker", "--app", "shop.tasks", "--dsn", database.dsn)
    assert (result.exit_code, "run reconciler migrate" in result.stderr) == (1, True)


def test_an_idle_worker_costs_next_to_nothing(app: Cli, site: Site) -> None:
    """Its processor time while it waits is less than a fiftieth."""
    with started(app, site) as process:
        wait_until(
            lambda: site.rows("SELECT 1 FROM reconciler.pull_workers") == [(1,)],
            seconds=10,
            what="it is there",
        )
        before = processor_seconds(process.pid)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        assert processor_seconds(process.pid) - before < 0.04
        site.run("SELECT reconciler.enqueue('work.do', '{\"n\": 1}')")
        wait_for_statuses(site, "default", completed=1, seconds=2)


def processor_seconds(pid: int) -> float:
    """Return how long a process has computed."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123 - a file of the kernel
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
