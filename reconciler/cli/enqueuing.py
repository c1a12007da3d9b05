"""The command `enqueue`: put a job on a queue."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from reconciler.cli import exits
from reconciler.cli.parameters import read_duration, read_instant
from reconciler.cli.session import open_session, target_options

if TYPE_CHECKING:
    from datetime import datetime, timedelta


@click.command()
@target_options
@click.argument("handler")
@click.option("--payload", metavar="JSON|@FILE|-", default="{}", help="What it is called with [{}].")
@click.option("--queue", metavar="NAME", default="default", show_default=True, help="Where it waits.")
@click.option("--run-at", type=read_instant, metavar="INSTANT", help="When, such as 2026-12-01T08:00Z.")
@click.option("--in", "delay", type=read_duration, metavar="DURATION", help="How long from now, such as 10m.")
@click.option(
    "--priority", type=click.IntRange(-(2**31), 2**31 - 1), default=0, help="Higher ones first [0]."
)
@click.option("--unique-key", metavar="TEXT", help="At most one open job of the queue has it.")
@click.option("--ordering-key", metavar="TEXT", help="Those with the same one are done in order.")
@click.option(
    "--max-attempts", type=click.IntRange(1, 2**31 - 1), help="How often it is tried [the queue's]."
)
@click.option("--timeout", type=read_duration, metavar="DURATION", help="For one try [the queue's].")
@click.option("--type", "kind", metavar="WORD", default="custom", help="A word of your own [custom].")
def enqueue(
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    handler: str,
    payload: str,
    queue: str,
    run_at: datetime | None,
    delay: timedelta | None,
    priority: int,
    unique_key: str | None,
    ordering_key: str | None,
    max_attempts: int | None,
    timeout: timedelta | None,
    kind: str,
) -> int:
    """Put a job for HANDLER on a queue, and print its id.

    Where an open job has the unique key already, nothing is queued, and the id is that of the other one.
    """
    from reconciler.runtime.jobs import enqueue as put

    if run_at is not None and delay is not None:
        raise click.UsageError("--run-at and --in say the same twice: give one of them")
    value = _read_payload(payload)
    session = open_session(config_path, target_name, dsn)
    with session.connect() as conn:
        put_job = put(
            conn,
            handler,
            value,
            queue=queue,
            run_at=run_at if delay is None else delay,
            priority=priority,
            unique_key=unique_key,
            ordering_key=ordering_key,
            max_attempts=max_attempts,
            timeout=timeout,
            type=kind,
        )
    click.echo(put_job.id)
    if not put_job.created:
        click.echo(f"Nothing was queued: job {put_job.id} has this unique key and is still open.", err=True)
    return exits.DONE


def _read_payload(text: str) -> Any:
    """Read a payload: itself, from a file, or from standard input."""
    where = "--payload"
    if text == "-":
        where, text = "standard input", sys.stdin.read()
    elif text.startswith("@"):
        where = text[1:]
        try:
            text = Path(where).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
            raise click.BadParameter(f"{where} cannot be read: {reason}", param_hint="--payload") from None
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(
            f'{where} holds no JSON: {error}; write it as in \'{{"to": "anna"}}\', or @file',
            param_hint="--payload",
        ) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is none of JSON's values")
