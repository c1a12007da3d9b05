"""Turn SQL scripts that schedule jobs into declarations of what they leave in cron.job; pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from reconciler.core.imports.cron_history import CURRENT, Source
from reconciler.core.imports.results import (
    ImportedFiles,
    LeftPassage,
    Remark,
    escape_sql,
    escape_text,
    suggest_variable,
)
from reconciler.core.imports.sql_replay import Replay
from reconciler.core.imports.sql_tokens import SqlTextError, read_tokens
from reconciler.core.names import NAME_LIMIT, OWN_PREFIX, is_name
from reconciler.core.schedules import ANY_DIALECT, find_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from reconciler.core.imports.cron_history import Made
    from reconciler.core.specs import Mode

_DOWN: Final = re.compile(
    r"^--[ \t]*(?:\+goose|\+migrate|migrate:)[ \t]*down\b.*", re.IGNORECASE | re.MULTILINE
)
_TOKEN: Final = re.compile(
    r"""\bBearer[ \t]+[^\s'"%${<]{6,}|\beyJ[A-Za-z0-9_-]{10,}\.|"""
    r"""[?&][^=&]*(?:secret|token|key)=[^&%${<\s]{6,}|"""
    r""""[^"]*(?:secret|token|api-?key)"\s*:\s*"[^"%${<]{6,}\"""",
    re.IGNORECASE,
)
_PRIVATE: Final = re.compile(r"(?:bearer |secret|token|api-?key)", re.IGNORECASE)
_SHORTEST: Final = 5
_ADDRESS: Final = re.compile(r"https?://\S+")
_NAMES: Final = "its name is not of lower-case letters, digits, dots, underscores and hyphens"


def import_scripts(
    scripts: Iterable[tuple[str, str]], *, find_fault: Callable[[str, Mode], str]
) -> ImportedFiles:
    """Make declarations of the jobs and workers that scripts leave behind.

    Jobs are declared in `mode: direct`, so that the command stays as it is: under our lock and log it would
    be another one. Where the scripts were executed on an empty cron.job, and nothing was changed by hand
    since, the declarations change nothing.

    Args:
        scripts: Path and text of each, in the order in which they were executed.
        find_fault: Says why a SQL body cannot run in a mode; "" where it can.

    Returns:
        The declarations; what cannot be told from the text, or cannot be declared, is left with its reason.
    """
    replay = Replay()
    order: dict[str, int] = {}
    for path, text in scripts:
        down = _DOWN.search(text)
        order.setdefault(path, len(order))
        replay.run_script(path, text[: down.start()] if down else text)
        if down:
            source = Source(path, text.count("\n", 0, down.start()) + 1, down[0].strip())
            replay.ways.remark(source, "what follows undoes the migration, and was not read")
    jobs: dict[str, dict[str, Any]] = {}
    workers: dict[str, dict[str, Any]] = {}
    left, remarks = list(replay.ways.left), list(replay.ways.remarks)
    entries = list(replay.ways.history.entries.values())
    for made in entries:
        reason = _find_reason(made, entries, find_fault)
        if reason:
            left.append(LeftPassage(source=made.source, reason=reason))
            continue
        name = made.name or ""
        if made.kind == "job":
            jobs[name] = _declare_job(made)
        else:
            workers[name] = _declare_worker(made)
        remarks += _remark(made)
    return ImportedFiles(
        jobs=dict(sorted(jobs.items())),
        workers=dict(sorted(workers.items())),
        left=tuple(sorted(left, key=lambda one: (order[one.source.path], one.source.line))),
        remarks=tuple(sorted(remarks, key=lambda one: (order[one.source.path], one.source.line))),
        secrets={
            worker["token"]["secret"]: suggest_variable(name)
            for name, worker in sorted(workers.items())
            if "token" in worker
        },
    )


def _declare_job(made: Made) -> dict[str, Any]:
    job: dict[str, Any] = {"schedule": made.schedule, "sql": escape_sql(made.command), "mode": "direct"}
    if made.role != CURRENT:
        job["role"] = escape_text(made.role)
    if made.database != CURRENT:
        job["database"] = escape_text(made.database)
    if not made.active:
        job["active"] = False
    return job


def _declare_worker(made: Made) -> dict[str, Any]:
    worker: dict[str, Any] = {"schedule": made.schedule, "url": escape_text(made.url)}
    if made.has_token:
        worker["token"] = {"secret": f"worker.{made.name}"}
    if made.role != CURRENT:
        worker["role"] = escape_text(made.role)
    return worker


def _find_reason(made: Made, entries: Sequence[Made], find_fault: Callable[[str, Mode], str]) -> str:
    """Say why an entry cannot be declared; "" where it can."""
    if made.name is None:
        return "it has no name, so nothing can refer to it; schedule it under a name, and unschedule this one"
    if made.doubt:
        return made.doubt
    if not is_name(made.name):
        return f"{_NAMES}; schedule it under such a name, and unschedule this one"
    if made.name.startswith(OWN_PREFIX):
        return f"names that begin with {OWN_PREFIX} are the tool's own; schedule it under another name"
    others = [one for one in entries if one.name == made.name and one.role != made.role]
    if others and CURRENT in {made.role, *(one.role for one in others)}:
        return (
            "it is scheduled with a role and without: whether these are two jobs is up to who ran the files"
        )
    if others and next(one for one in entries if one.name == made.name) is not made:
        return f"another role has a job of this name, which was imported; this one belongs to {made.role}"
    problem = find_problem(made.schedule, ANY_DIALECT)
    if problem is not None:
        hint = f", as {problem.suggestion!r}" if problem.suggestion else ""
        return f"its schedule {made.schedule!r}: {problem.reason}; correct it first{hint}"
    if made.kind == "worker":
        if len(f"worker.{made.name}") > NAME_LIMIT:
            return "the name of a worker has at most 56 letters"
        return "" if _ADDRESS.fullmatch(made.url) else "its address does not begin with http:// or https://"
    return find_fault(made.command, "direct")


def _remark(made: Made) -> Iterable[Remark]:
    """Say what people ought to know of an entry that was imported."""
    for condition in made.perhaps:
        yield Remark(source=condition, message=f"conditional: whether there is {made.name} depends on this")
    if made.has_token:
        yield Remark(
            source=Source(made.source.path, made.source.line),
            message=f"the token of {made.name} stays out of the spec file: keep it as the secret "
            f"worker.{made.name}",
        )
    if made.kind == "job" and _holds_token(made.command):
        yield Remark(
            source=Source(made.source.path, made.source.line),
            message=f"the command of {made.name} holds what looks like a token, and is imported to the "
            "letter: let it read the token from a vault, or declare it with http and token",
        )


def _holds_token(command: str) -> bool:
    """Tell whether a literal of a command holds what looks like a token, or follows the name of one."""
    try:
        tokens = read_tokens(command)
    except SqlTextError:
        return _TOKEN.search(command) is not None
    for place, token in enumerate(tokens):
        if token.kind != "text":
            continue
        if _TOKEN.search(token.value):
            return True
        follows = tokens[place + 1 : place + 3]
        if len(follows) == 2 and follows[0].is_mark("||", ",") and follows[1].kind == "text":
            is_named = _PRIVATE.search(token.value[-12:]) is not None
            if is_named and len(follows[1].value) > _SHORTEST and not follows[1].value.endswith(" "):
                return True
    return False
