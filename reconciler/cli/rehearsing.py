"""The option `run --dry-run`: what a job would do, with nothing of it left behind."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli import exits
from reconciler.cli.render_text import clean
from reconciler.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import psycopg

    from reconciler.cli.session import Session
    from reconciler.database.rehearsal import Rehearsed

_USUAL_LIMIT = timedelta(seconds=60)
_LINE_WIDTH = 110
_LEADING_COMMENTS = re.compile(r"\A(?:\s*--[^\n]*\n)+")
_NOT_UNDONE = (
    "What no rollback undoes: numbers taken from sequences, and what dblink, http or COPY tell others. Its "
    "locks are real until the end."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """A job to rehearse: as declared, or as last applied.

    Attributes:
        name: Of the job.
        declared: Its declaration.
        role: The role that would run it; "" for whoever applies.
        where: Where it was declared.
    """

    name: str
    declared: Mapping[str, Any]
    role: str
    where: str


def rehearse(session: Session, name: str, *, from_target: bool) -> int:
    """Show what a job would do.

    Args:
        session: With the target.
        name: Of the job.
        from_target: Take what was last applied there, not what the files declare.

    Returns:
        The exit code: 1 where the body failed.
    """
    if not from_target:
        candidate = _find_declared(session, name)
        if "sql" not in candidate.declared:
            return _show_unsent(candidate)
        with session.connect() as conn:
            return _execute(conn, candidate)
    with session.connect() as conn:
        candidate = _find_applied(conn, name)
        return _execute(conn, candidate) if "sql" in candidate.declared else _show_unsent(candidate)


def _find_declared(session: Session, name: str) -> _Candidate:
    from reconciler.core.names import find_nearest
    from reconciler.core.specs import JobSpec, WorkerSpec

    jobs = {spec.name: spec for spec in session.load_specs() if isinstance(spec, JobSpec | WorkerSpec)}
    spec = jobs.get(name)
    if spec is None:
        nearest = find_nearest(name, jobs)
        raise ConfigError(
            f"the files declare no job {name} for the target {session.target.name}",
            remedy=f"did you mean {nearest}?" if nearest else "--applied takes what is on the target",
        )
    return _Candidate(
        name=name,
        declared=_read_declared(spec.kind, json.loads(spec.document)),
        role=spec.role or session.target.role,
        where=f"{spec.place.path}:{spec.place.line}",
    )


def _find_applied(conn: psycopg.Connection, name: str) -> _Candidate:
    from reconciler.database.control import find_jobs
    from reconciler.database.observe import observe_facts
    from reconciler.database.runs import require_runtime

    observe_facts(conn)
    require_runtime(conn)
    (job,) = find_jobs(conn, [name])
    declared = _read_declared(job.kind, job.read())
    return _Candidate(name=name, declared=declared, role=job.role, where="as last applied")


def _read_declared(kind: str, declared: dict[str, Any]) -> dict[str, Any]:
    """Give a worker the request that it sends, in the form that a job declares."""
    if kind != "worker":
        return declared
    from reconciler.core.run_calls import make_run_url

    return {"http": {**declared, "url": make_run_url(declared)}}


def _execute(conn: psycopg.Connection, candidate: _Candidate) -> int:
    from reconciler.core.durations import parse_duration, render_duration
    from reconciler.database.rehearsal import read_session, rehearse
    from reconciler.loader.sql_texts import split_statements

    declared = candidate.declared
    user, database = read_session(conn)
    if declared.get("database", database) != database:
        raise ConfigError(
            f"{candidate.name} runs in the database {declared['database']}, this connection is to {database}",
            remedy="connect there with --dsn",
        )
    limit = parse_duration(declared["timeout"]) if "timeout" in declared else _USUAL_LIMIT
    role = "" if candidate.role == user else candidate.role
    click.echo(
        f"Dry run of {candidate.name} ({clean(candidate.where)}) as the role {candidate.role or user}, for "
        f"at most {render_duration(limit)}: all of it is rolled back.\n{_NOT_UNDONE}"
    )
    failed = False
    for number, done in enumerate(
        rehearse(conn, split_statements(declared["sql"]), role=role, timeout=limit), start=1
    ):
        click.echo("\n" + "\n".join(_render(number, done)))
        failed = failed or bool(done.error)
    click.echo("\n" + (click.style("It fails", fg="red") if failed else "Done") + "; nothing was changed.")
    return exits.ERROR if failed else exits.DONE


def _render(number: int, done: Rehearsed) -> Iterator[str]:
    from reconciler.cli.tables import shorten
    from reconciler.cli.times import render_length

    rows = "" if done.rows is None else f"  {done.rows} row{'' if done.rows == 1 else 's'}"
    head = click.style(f"{number}. {done.command}", bold=True)
    yield f"{head}{rows}  {render_length(timedelta(seconds=done.seconds))}"
    yield f"   {shorten(clean(_LEADING_COMMENTS.sub('', done.text)), _LINE_WIDTH)}"
    yield from (f"     {clean(line)}" for line in done.plan)
    for label, line in zip(["error:"] + [""] * 100, clean(done.error).splitlines(), strict=False):
        yield f"   {click.style(label, fg='red')} {line}" if label else f"          {line}"


def _show_unsent(candidate: _Candidate) -> int:
    declared = candidate.declared
    where = clean(candidate.where)
    if "http" in declared:
        click.echo(f"Dry run of {candidate.name} ({where}): this request would be sent, and is not.\n")
        click.echo("\n".join(f"  {clean(line)}" for line in _describe_request(declared["http"])))
    else:
        click.echo(f"Dry run of {candidate.name} ({where}): this job would be queued, and is not.\n")
        click.echo(f"  queue    {declared.get('queue', 'default')}")
        click.echo(f"  handler  {clean(declared['handler'])}")
        click.echo(f"  payload  {clean(json.dumps(declared.get('payload', {}), ensure_ascii=False))}")
    return exits.DONE


def _describe_request(http: Mapping[str, Any]) -> Iterator[str]:
    """Describe a request as the target would send it; a secret is named, never read."""
    body = http.get("body")
    headers = dict(http.get("headers", {}))
    method = http.get("method", "POST")
    if not any(name.lower() == "content-type" for name in headers) and (
        body is not None or method in {"POST", "PUT", "PATCH"}
    ):
        headers["Content-Type"] = "text/plain" if isinstance(body, str) else "application/json"
    headers["Idempotency-Key"] = "reconciler-run-<number of the run>"
    if "token" in http:
        headers["Authorization"] = f"Bearer *** (the secret {http['token']['secret']})"
    yield f"{method} {http['url']}"
    yield from (f"{name}: {value}" for name, value in sorted(headers.items()))
    if body is not None:
        yield ""
        yield from (
            body if isinstance(body, str) else json.dumps(body, indent=2, ensure_ascii=False)
        ).splitlines()
    yield ""
    expect = http.get("expect", "2xx")
    wanted = ", ".join(map(str, expect)) if isinstance(expect, list) else expect
    yield f"expects {wanted} within {http.get('timeout', '30s')}"
