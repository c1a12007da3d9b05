"""The command `worker`: claim queued jobs and do them here, until a signal comes.

Finds handlers and database, and shows how it goes; what is done lies in `reconciler.runtime.worker`.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from reconciler.cli import exits
from reconciler.cli.parameters import read_duration
from reconciler.cli.session import open_session, target_options

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta
    from pathlib import Path

    from reconciler.runtime.worker import Worker

_LEVELS = ("debug", "info", "warning", "error")
_SECONDS = 60.0
_SECONDS_ON_TERMINAL = 1.0
_CLEAR = "\r\x1b[K"


@click.command()
@target_options
@click.option("--app", "app", required=True, metavar="MODULE[:NAME]", help="Where the handlers are.")
@click.option(
    "--queue", "-q", "queues", multiple=True, default=["default"], show_default=True, metavar="NAME",
    help="A queue to serve; give several, or several separated by commas.",
)  # fmt: skip
@click.option(
    "--concurrency", "-c", default=10, show_default=True, type=click.IntRange(1, 10_000), help="Jobs at once."
)
@click.option(
    "--poll", type=read_duration, metavar="DURATION", help="How often to look without a reason [1s]."
)
@click.option(
    "--grace", type=read_duration, metavar="DURATION", help="How long jobs may take at the end [25s]."
)
@click.option("--drain", is_flag=True, help="Stop when there is nothing left to do.")
@click.option(
    "--log-level", default="warning", show_default=True, type=click.Choice(_LEVELS), help="What to tell."
)
def worker(
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    app: str,
    queues: tuple[str, ...],
    concurrency: int,
    poll: timedelta | None,
    grace: timedelta | None,
    drain: bool,
    log_level: str,
) -> int:
    """Claim jobs of queues and do them here; SIGTERM or Ctrl-C ends it in order, a second one at once."""
    from reconciler.runtime.handlers import load_handlers
    from reconciler.runtime.tracing import exporting
    from reconciler.runtime.worker import Worker

    click.get_current_context().with_resource(exporting(os.environ, service="reconciler-worker"))
    names = [name.strip() for text in queues for name in text.split(",") if name.strip()]
    if not names:
        raise click.BadParameter("name a queue", param_hint="--queue")
    # A machine that only works needs no configuration.
    found = dsn if dsn and config_path is None else open_session(config_path, target_name, dsn).find_dsn()
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as python -m does
    made = Worker(
        found,
        load_handlers(app),
        names,
        concurrency=concurrency,
        poll=1.0 if poll is None else poll.total_seconds(),
        grace=25.0 if grace is None else grace.total_seconds(),
        drain=drain,
    )
    logging.basicConfig(
        level=log_level.upper(),
        handlers=[_Handler()],
        format="%(asctime)s %(levelname)s %(message)s",
    )
    click.echo(f"Worker {made.id} serves {', '.join(names)}, {concurrency} at once.", err=True)
    try:
        with _progress(made):
            made.run(signals=True)
    finally:
        click.echo(f"Worker {made.id} ends: {_render(made)}.", err=True)
    return exits.DONE


class _Handler(logging.StreamHandler):  # type: ignore[type-arg] # of whatever stderr is
    """Writes over the line of progress, where there is one."""

    terminator = "\n"

    def format(self, record: logging.LogRecord) -> str:
        """Render a record as one entry, without what could steer a terminal."""
        text = "".join(one if one.isprintable() or one in "\n\t" else " " for one in super().format(record))
        return f"{_CLEAR}{text}" if sys.stderr.isatty() else text


@contextmanager
def _progress(made: Worker) -> Iterator[None]:
    """Show how it goes: on a terminal one line that changes, else a line a minute with news."""
    is_over = threading.Event()
    is_terminal = sys.stderr.isatty()

    def show() -> None:
        before = ""
        began, done = time.monotonic(), 0
        while not is_over.wait(_SECONDS_ON_TERMINAL if is_terminal else _SECONDS):
            now = time.monotonic()
            rate, began, done = (made.tally.completed - done) / (now - began), now, made.tally.completed
            line = f"{_render(made)}; {rate:,.0f} a second, {made.running} at work, {made.waiting} ahead"
            if is_terminal:
                click.echo(f"{_CLEAR}{line}", nl=False, err=True)
            elif line != before:
                click.echo(line, err=True)
            before = line
        if is_terminal:
            click.echo(_CLEAR, nl=False, err=True)

    thread = threading.Thread(target=show, name="reconciler-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(1)


def _render(made: Worker) -> str:
    tally = made.tally
    parts = [f"{tally.completed:,} done"]
    parts += [
        f"{count:,} {what}"
        for count, what in (
            (tally.failed, "tries failed"),
            (tally.snoozed, "put off"),
            (tally.cancelled, "cancelled"),
            (tally.returned, "given back"),
            (tally.stale, "too late"),
        )
        if count
    ]
    return ", ".join(parts)
