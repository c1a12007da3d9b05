"""Turn lines of a crontab that work in a database into declarations; pure.

Of a command only that is kept which a database can do: the SQL that psql runs, the request that curl sends.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from reconciler.core.imports.cron_history import Source
from reconciler.core.imports.crontab_lines import CrontabLine, read_crontab
from reconciler.core.imports.excerpts import may_be_secret, render_command
from reconciler.core.imports.results import (
    ImportedFiles,
    LeftPassage,
    Remark,
    escape_sql,
    escape_text,
    suggest_variable,
)
from reconciler.core.imports.shell_jobs import HttpJob, SqlJob, read_curl, read_psql
from reconciler.core.imports.shell_words import Command, ShellError, Word, read_command
from reconciler.core.imports.sql_tokens import SqlTextError, read_statements
from reconciler.core.names import NAME_LIMIT, OWN_PREFIX
from reconciler.core.schedules import ANY_DIALECT, find_problem
from reconciler.core.times.clocks import find_zone
from reconciler.core.times.occurrences import UTC_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from reconciler.core.imports.sql_tokens import Token
    from reconciler.core.specs import Mode

_YEARLY: Final = frozenset({"@yearly", "@annually"})
_DURATION: Final = re.compile(r"([0-9]+)([smhd]?)")
_EVEN: Final = re.compile(r"(?:\*|\*/(?:1|2|3|5|6|10|15|30)) \* \* \* \*")
_TRANSACTION: Final = frozenset(
    {"begin", "commit", "rollback", "start", "end", "abort", "savepoint", "release"}
)
_SYSTEM_USERS: Final = frozenset({"root", "postgres", "www-data", "nobody"})
_NOT_WAITING: Final = frozenset({"-n", "--nonblock", "-xn", "-nx"})
_EXCLUSIVE: Final = frozenset({"-x", "-e", "--exclusive"})
_WORDS: Final = re.compile(r"[a-z0-9]+")
_NAME_WORDS: Final = 6
_SLUG: Final = 40
_NO_ZONE: Final = (
    "no CRON_TZ says in which zone these times are: pg_cron reads them in its own, which is GMT unless "
    "cron.timezone says otherwise; name the machine's with --timezone"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A line that was understood."""

    line: CrontabLine
    source: Source
    job: SqlJob | HttpJob
    timeout: str = ""
    waits: bool = False


def import_crontab(
    text: str,
    *,
    path: str,
    find_fault: Callable[[str, Mode], str],
    read_file: Callable[[str], str | None],
    has_users: bool = False,
    timezone: str = "",
    database: str = "",
) -> ImportedFiles:
    """Make declarations of what the lines of a crontab do in a database.

    Args:
        text: The crontab.
        path: What it is called.
        find_fault: Says why a SQL body cannot run in a mode; "" where it can.
        read_file: Gives the text of a file that psql runs; None where it is not here.
        has_users: Whether it has a column of users.
        timezone: The zone of its machine; "" for unknown.
        database: The only one whose jobs are wanted; "" for any, where all are on one.

    Returns:
        The declarations; a line that does anything else is left with its reason.
    """
    left: list[LeftPassage] = []
    read: list[_Read] = []
    for line in read_crontab(text, has_users=has_users):
        if isinstance(line, int):
            shown = render_command(text.split("\n")[line - 1])
            left.append(LeftPassage(source=Source(path, line, shown), reason="it is no line of a crontab"))
            continue
        source = Source(path, line.line, render_command(f"{line.schedule} {line.command}"))
        try:
            read.append(_read_line(line, source, read_file, timezone))
        except ShellError as error:
            left.append(LeftPassage(source=source, reason=_add_hint(str(error), line, has_users=has_users)))
    read = _pick_database(read, database, left)
    return _declare_all(read, left, find_fault, timezone)


def _read_line(
    line: CrontabLine, source: Source, read_file: Callable[[str], str | None], timezone: str
) -> _Read:
    schedule = "0 0 1 1 *" if line.schedule in _YEARLY else line.schedule
    line = replace(line, schedule=schedule)
    if schedule.startswith("@reboot"):
        raise ShellError("pg_cron's @reboot is whenever its launcher starts, not when the machine does")
    problem = find_problem(schedule, ANY_DIALECT)
    if problem is not None:
        hint = f"; write {problem.suggestion!r}" if problem.suggestion else ""
        raise ShellError(f"its schedule {schedule!r}: {problem.reason}{hint}")
    zone = line.variables.get("CRON_TZ", timezone)
    _check_zone(zone)
    command = read_command(line.command, line.variables)
    if line.stdin is not None:
        command = replace(command, said=Word(line.stdin))
    command, timeout, waits = _unwrap(command)
    program = command.words[0].text.rpartition("/")[2]
    if program == "psql":
        job: SqlJob | HttpJob = read_psql(command, line.variables, read_file)
    elif program == "curl":
        job = read_curl(command)
    else:
        raise ShellError(f"what {render_command(program, limit=30)} does, a database cannot")
    return _Read(line=line, source=source, job=job, timeout=timeout, waits=waits)


def _check_zone(zone: str) -> None:
    if not zone or zone in UTC_NAMES:
        return
    try:
        find_zone(zone)
    except ValueError:
        raise ShellError(f"there is no time zone {zone!r}") from None
    if "/" not in zone:
        raise ShellError(f"the time zone {zone!r} is not named after a place, such as Europe/Oslo")


def _add_hint(reason: str, line: CrontabLine, *, has_users: bool) -> str:
    first = line.command.split(" ", 1)[0]
    if has_users or first not in _SYSTEM_USERS:
        return reason
    return f"{reason}; if {first} is a user, give --system"


def _unwrap(command: Command) -> tuple[Command, str, bool]:
    """Take off what only watches over a command: a time limit, a lock, a lower priority."""
    timeout, waits = "", False
    words = list(command.words)
    while words:
        program = words[0].text.rpartition("/")[2]
        if program == "timeout" and len(words) > 2:
            found = _DURATION.fullmatch(words[1].text)
            if found is None or int(found[1]) == 0:
                raise ShellError("its time limit is not read")
            timeout, words = f"{int(found[1])}{found[2] or 's'}", words[2:]
        elif program == "flock" and len(words) > 2:
            words = words[1:]
            options: set[str] = set()
            while words[0].text.startswith("-") and len(words) > 2:
                options.add(words[0].text)
                words = words[1:]
            if not options <= _NOT_WAITING | _EXCLUSIVE:
                raise ShellError("its lock is not read")
            waits, words = options.isdisjoint(_NOT_WAITING), words[1:]
        elif program in {"nice", "ionice", "chronic"}:
            words = words[1:]
            while words and words[0].text.startswith("-"):
                words = words[2 if words[0].text in {"-n", "-c"} else 1 :]
        else:
            break
    if not words:
        raise ShellError("it runs no command")
    return replace(command, words=words), timeout, waits


def _pick_database(read: Sequence[_Read], database: str, left: list[LeftPassage]) -> list[_Read]:
    """Keep the jobs of one database; where there are several and none was named, none can be picked."""
    named = {one.job.database for one in read if isinstance(one.job, SqlJob)}
    kept = []
    for one in read:
        if isinstance(one.job, HttpJob):
            kept.append(one)
            continue
        own = one.job.database
        if database:
            if database in {own, own.rpartition("/")[2]}:
                kept.append(one)
            else:
                reason = f"it is on the database {_show(own)}, not {database}"
                left.append(LeftPassage(source=one.source, reason=reason))
        elif len(named) > 1:
            names = ", ".join(sorted(_show(name) for name in named))
            reason = f"these jobs are on several databases ({names}): import each with --database NAME"
            left.append(LeftPassage(source=one.source, reason=reason))
        else:
            kept.append(one)
    return kept


def _show(database: str) -> str:
    return render_command(database) if database else "(the user's own)"


def _declare_all(
    read: Iterable[_Read],
    left: list[LeftPassage],
    find_fault: Callable[[str, Mode], str],
    timezone: str,
) -> ImportedFiles:
    jobs: dict[str, dict[str, Any]] = {}
    remarks: list[Remark] = []
    secrets: dict[str, str] = {}
    unzoned: list[Source] = []
    for one in read:
        try:
            body = _declare_sql(one, find_fault) if isinstance(one.job, SqlJob) else _declare_http(one.job)
            when = _declare_when(one, timezone, body)
        except ShellError as error:
            left.append(LeftPassage(source=one.source, reason=str(error)))
            continue
        name = _choose_name(one, jobs)
        if "http" in body and isinstance(one.job, HttpJob) and one.job.has_token:
            body["http"]["token"] = {"secret": name}
            secrets[name] = one.job.variable or suggest_variable(name)
        if "timezone" not in when and not _EVEN.fullmatch(one.line.schedule):
            unzoned.append(one.source)
        comment = one.line.comment
        described = {"description": escape_text(comment)} if comment and not may_be_secret(comment) else {}
        jobs[name] = {**described, **when, **body, **_declare_guards(one, body)}
        remarks += _remark(one, name)
    on = next((one for one in read if isinstance(one.job, SqlJob) and one.job.database), None)
    if on is not None and isinstance(on.job, SqlJob):
        message = f"the SQL ran in {_show(on.job.database)}: apply it to that target"
        remarks.insert(0, Remark(source=replace(on.source, text=""), message=message))
    if unzoned:
        remarks.insert(0, Remark(source=replace(unzoned[0], text=""), message=_NO_ZONE))
    return ImportedFiles(
        jobs=dict(sorted(jobs.items())),
        left=tuple(sorted(left, key=lambda one: one.source.line)),
        remarks=tuple(sorted(remarks, key=lambda one: one.source.line)),
        secrets=dict(sorted(secrets.items())),
    )


def _declare_when(one: _Read, timezone: str, body: Mapping[str, Any]) -> dict[str, Any]:
    zone = one.line.variables.get("CRON_TZ", timezone)
    when = {"schedule": one.line.schedule}
    if not zone or one.line.schedule == "* * * * *":
        return when
    if body.get("mode") == "direct":
        if _EVEN.fullmatch(one.line.schedule):
            return when
        if zone not in UTC_NAMES:
            raise ShellError(
                f"its command needs mode: direct, where pg_cron's own zone counts, and not {zone}"
            )
    return {**when, "timezone": zone}


def _declare_sql(one: _Read, find_fault: Callable[[str, Mode], str]) -> dict[str, Any]:
    assert isinstance(one.job, SqlJob)  # noqa: S101 - the caller looked
    sql = one.job.sql
    try:
        statements = list(read_statements(sql))
    except SqlTextError as error:
        raise ShellError(f"its SQL cannot be read: {error.reason}") from None
    if one.job.is_file and any(_is_variable(tokens) for tokens in statements):
        raise ShellError("its SQL has a variable of psql (:name)")
    direct_fault = find_fault(sql, "direct")
    if direct_fault:
        raise ShellError(direct_fault)
    if len(statements) > 1:
        for tokens in statements:
            if tokens[0].is_word(*_TRANSACTION):
                raise ShellError("its SQL begins or ends transactions, and a run is one already")
            if find_fault(sql[tokens[0].start : tokens[-1].end], "managed"):
                raise ShellError("one of its statements has to run alone: make a job of each")
    fault = find_fault(sql, "managed")
    body: dict[str, Any] = {"sql": escape_sql(sql)}
    if fault:
        if _is_transaction(statements):
            raise ShellError(fault)
        body["mode"] = "direct"
    if one.job.role:
        body["role"] = escape_text(one.job.role)
    return body


def _is_transaction(statements: Sequence[Sequence[Token]]) -> bool:
    return bool(statements) and statements[0][0].is_word(*_TRANSACTION)


def _is_variable(tokens: Sequence[Token]) -> bool:
    return any(
        token.is_mark(":") and tokens[place + 1].start == token.end
        for place, token in enumerate(tokens[:-1])
        if tokens[place + 1].kind in {"word", "name", "text"}
    )


def _declare_http(job: HttpJob) -> dict[str, Any]:
    http: dict[str, Any] = {"url": escape_text(job.url), "method": job.method}
    if job.headers:
        http["headers"] = {name: escape_text(value) for name, value in job.headers.items()}
    if job.body is not None:
        http["body"] = escape_text(job.body)
    if job.timeout:
        whole = job.timeout.is_integer()
        http["timeout"] = f"{int(job.timeout)}s" if whole else f"{round(job.timeout * 1000)}ms"
    return {"http": http}


def _declare_guards(one: _Read, body: Mapping[str, Any]) -> dict[str, Any]:
    if body.get("mode") == "direct":
        return {}
    guards: dict[str, Any] = {"timeout": one.timeout} if one.timeout else {}
    return {**guards, "concurrency": "wait"} if one.waits else guards


def _remark(one: _Read, name: str) -> Iterable[Remark]:
    source = replace(one.source, text="")
    if isinstance(one.job, SqlJob):
        if one.job.is_file and one.job.sql.count(";") > 1:
            yield Remark(source=source, message=f"the statements of {name} become one transaction")
        if may_be_secret(one.job.sql):
            yield Remark(
                source=source, message=f"the SQL of {name} may hold a secret, and is imported to the letter"
            )
        return
    if one.job.has_token:
        yield Remark(
            source=source,
            message=f"the token of {name} stays out of the spec file: keep it as the secret {name}",
        )
    if one.job.has_retries:
        yield Remark(source=source, message=f"{name} no longer tries again: write on_failure for that")


def _choose_name(one: _Read, jobs: Mapping[str, object]) -> str:
    """Make a name of the comment above the line, else of what it does; a number makes it unique."""
    slug = "" if may_be_secret(one.line.comment) else _slug(one.line.comment)
    if not slug:
        job = one.job
        slug = (
            _slug(job.sql)
            if isinstance(job, SqlJob)
            else _slug(re.sub(r"^https?://[^/?#]*|[?#].*", "", job.url))
        )
    slug = slug or "job"
    if slug.startswith(OWN_PREFIX):
        slug = f"cron-{slug}"
    name, number = slug[:NAME_LIMIT], 1
    while name in jobs:
        number += 1
        name = f"{slug}-{number}"
    return name


def _slug(text: str) -> str:
    words = _WORDS.findall(text.lower())[:_NAME_WORDS]
    slug = "-".join(words)
    if len(slug) > _SLUG:
        slug = slug[:_SLUG].rpartition("-")[0] or slug[:_SLUG]
    return slug
