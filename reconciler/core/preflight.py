"""Dangers of pg_cron that a target is in, found before they bite, each with its remedy.

The facts behind each were measured on pg_cron 1.4.2, 1.6.5 and 1.6.7 or read in its source; the finding names
the versions it holds for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from reconciler.core.schedules import find_problem
from reconciler.core.times.dialects import format_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reconciler.core.facts import Facts
    from reconciler.core.state import ObservedState

Severity = Literal["error", "warning"]
DangerCode = Literal[
    "unknown_role", "no_login", "no_connect", "unknown_database", "superuser", "copy", "other_node"
]

# 1.6.5 to 1.6.7 crash; nothing tells them from 1.6.1 to 1.6.4, while a later one shows by its settings.
_MAY_CRASH = ((1, 6, 1), (1, 6, 8))
_RESTARTING = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Danger:
    """An entry of anybody's that endangers itself or all others.

    Attributes:
        code: What is wrong with it.
        jobid: Of the entry.
        name: Of the entry; "" for none.
        detail: The role, the database or the node that it is about.
    """

    code: DangerCode
    jobid: int
    name: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One danger, as told to a person.

    Attributes:
        code: A stable name.
        severity: error, when something does not run or will break; warning otherwise.
        message: What is so.
        remedy: What to do.
    """

    code: str
    severity: Severity
    message: str
    remedy: str


def find_dangers(facts: Facts, dangers: Sequence[Danger]) -> tuple[Finding, ...]:
    """Find the dangers that a target is in.

    Args:
        facts: The server.
        dangers: Entries that the server itself pointed out.

    Returns:
        Findings, errors first, then by code.
    """
    findings = [
        *_check_launcher(facts, dangers),
        *_check_entries(facts, dangers),
        *_check_settings(facts),
        *_check_rights(facts),
    ]
    return tuple(sorted(findings, key=lambda finding: (finding.severity, finding.code, finding.message)))


def find_bad_schedules(observed: ObservedState) -> tuple[Finding, ...]:
    """Find entries of anybody's whose schedule never fires, or not when a person would think.

    Args:
        observed: With every visible entry.

    Returns:
        One warning for each, by jobid.
    """
    findings = []
    for jobid in sorted(observed.entries):
        entry = observed.entries[jobid]
        problem = find_problem(entry.schedule, observed.facts.dialect)
        if problem is not None:
            remedy = f"write {problem.suggestion!r}" if problem.suggestion else "correct or unschedule it"
            findings.append(
                Finding(
                    code="misread_schedule",
                    severity="warning",
                    message=f"{_call(entry.name, jobid)}: schedule {entry.schedule!r}: {problem.reason}",
                    remedy=remedy,
                )
            )
    return tuple(findings)


def _call(name: str, jobid: int) -> str:
    return f"entry {name} (jobid {jobid})" if name else f"unnamed entry (jobid {jobid})"


def _list(dangers: Sequence[Danger], code: DangerCode) -> list[Danger]:
    return [danger for danger in dangers if danger.code == code]


def _check_launcher(facts: Facts, dangers: Sequence[Danger]) -> Iterator[Finding]:
    for danger in _list(dangers, "unknown_role"):
        yield Finding(
            code="unknown_role",
            severity="error",
            message=f"{_call(danger.name, danger.jobid)} belongs to the role {danger.detail}, which does not "
            "exist: pg_cron's launcher dies on it once a second, and no job of anybody runs",
            remedy=f'CREATE ROLE "{danger.detail}" LOGIN, or as a superuser: '
            f"SELECT cron.unschedule({danger.jobid})",
        )
    if facts.in_recovery:
        yield Finding(
            code="standby",
            severity="error",
            message="the server is a standby: pg_cron does not run here and nothing can be applied",
            remedy="connect to the primary",
        )
    elif facts.preloaded is False:
        yield Finding(
            code="not_preloaded",
            severity="error",
            message="pg_cron is not in shared_preload_libraries: no job runs",
            remedy="add pg_cron to shared_preload_libraries and restart the server",
        )
    elif facts.launcher_running is False:
        yield Finding(
            code="launcher_down",
            severity="error",
            message="pg_cron's launcher is not running: no job runs",
            remedy="read the server's log for lines of pg_cron; restart the server if nothing else helps "
            "(up to pg_cron 1.6.0 a terminated launcher stays away until then)",
        )
    elif facts.launcher_age is not None and facts.launcher_age < _RESTARTING:
        yield Finding(
            code="launcher_restarting",
            severity="warning",
            message=f"pg_cron's launcher started {facts.launcher_age:.0f} s ago: it may be dying and "
            "starting over again",
            remedy="look again in a minute; if it is still young, read the server's log",
        )


def _check_entries(facts: Facts, dangers: Sequence[Danger]) -> Iterator[Finding]:
    superusers = _list(dangers, "superuser")
    if facts.settings.get("enable_superuser_jobs") == "off" and superusers:
        first = superusers[0]
        what = f"{len(superusers)} entries of superusers, first {_call(first.name, first.jobid)}"
        if _MAY_CRASH[0] <= facts.pg_cron < _MAY_CRASH[1]:
            message = (
                f"cron.enable_superuser_jobs is off and there are {what}: pg_cron 1.6.5 to 1.6.7 crashes the "
                "whole server on them, again and again"
            )
            severity: Severity = "error"
        else:
            message = f"cron.enable_superuser_jobs is off and there are {what}: they never run"
            severity = "warning"
        remedy = "give them another role with cron.alter_job(jobid, username := …), or unschedule them"
        yield Finding(code="superuser_entries", severity=severity, message=message, remedy=remedy)
    if facts.background_workers is not True:
        for danger in _list(dangers, "copy"):
            yield Finding(
                code="copy_loop",
                severity="error",
                message=f"{_call(danger.name, danger.jobid)} copies from or to the client: when it fires, "
                "pg_cron's launcher loops for ever and no other job runs until an immediate shutdown",
                remedy=f"unschedule it: SELECT cron.unschedule({danger.jobid}); copy to a file or program of "
                "the server",
            )
        for danger in _list(dangers, "other_node"):
            yield Finding(
                code="other_node",
                severity="warning",
                message=f"{_call(danger.name, danger.jobid)} is sent to {danger.detail}, which is not this "
                "server's port",
                remedy="after a change of cron.host or of the port: unschedule it and apply again",
            )
    yield from _check_roles(dangers)


def _check_roles(dangers: Sequence[Danger]) -> Iterator[Finding]:
    texts: tuple[tuple[DangerCode, str, str], ...] = (
        ("no_login", "runs as {}, which cannot log in", 'ALTER ROLE "{}" LOGIN'),
        ("unknown_database", "runs in the database {}, which does not exist", "alter or unschedule it ({})"),
        ("no_connect", "may not connect to its database ({})", "GRANT CONNECT ON DATABASE to its role ({})"),
    )
    for code, message, remedy in texts:
        for danger in _list(dangers, code):
            yield Finding(
                code=code,
                severity="error",
                message=f"{_call(danger.name, danger.jobid)} {message.format(danger.detail)}: "
                "every run fails",
                remedy=remedy.format(danger.detail),
            )


def _check_settings(facts: Facts) -> Iterator[Finding]:
    settings = facts.settings
    if settings.get("launch_active_jobs") == "off":
        yield Finding(
            code="launch_off",
            severity="error",
            message="cron.launch_active_jobs is off: no job runs, and running ones were cancelled",
            remedy="ALTER SYSTEM SET cron.launch_active_jobs = on; SELECT pg_reload_conf()",
        )
    if settings.get("log_run") == "off":
        yield Finding(
            code="log_off",
            severity="warning",
            message="cron.log_run is off: pg_cron keeps no record of any run",
            remedy="ALTER SYSTEM SET cron.log_run = on, and restart the server",
        )
    if facts.background_workers and facts.extension and facts.pg_cron < (1, 5, 0):
        yield Finding(
            code="serial_workers",
            severity="error",
            message=f"pg_cron {format_version(facts.pg_cron)} with background workers waits for the longest "
            "running job before it starts another or sees a change",
            remedy="upgrade to pg_cron 1.5 or later, or set cron.use_background_workers = off",
        )
    if facts.pg_cron[:2] == (1, 6) and facts.extension == "1.5":
        yield Finding(
            code="day_early",
            severity="error",
            message="pg_cron 1.6.0 reads day, month and weekday one day early",
            remedy="upgrade the package to pg_cron 1.6.2 or later, then ALTER EXTENSION pg_cron UPDATE",
        )
    if facts.extension and facts.extension_default not in {"", facts.extension}:
        yield Finding(
            code="version_skew",
            severity="warning",
            message=f"the extension is {facts.extension}, the installed package brings "
            f"{facts.extension_default}",
            remedy="ALTER EXTENSION pg_cron UPDATE",
        )


def _check_rights(facts: Facts) -> Iterator[Finding]:
    if not facts.extension:
        return
    rights = facts.rights
    grants = []
    if not rights.use_cron:
        grants.append("USAGE ON SCHEMA cron")
    else:
        if not rights.schedule:
            grants.append("EXECUTE ON FUNCTION cron.schedule(text, text, text)")
        if not rights.schedule_in_database:
            grants.append("EXECUTE ON FUNCTION cron.schedule_in_database")
        if not rights.alter_job:
            grants.append("EXECUTE ON FUNCTION cron.alter_job")
    if grants:
        yield Finding(
            code="missing_rights",
            severity="warning" if rights.use_cron and rights.schedule else "error",
            message=f"the role {facts.role} lacks rights: {', '.join(grants)}",
            remedy="as an administrator: "
            + "; ".join(f'GRANT {grant} TO "{facts.role}"' for grant in grants),
        )
    if rights.use_cron and not rights.sees_all:
        yield Finding(
            code="hidden_entries",
            severity="warning",
            message=f"row-level security shows the role {facts.role} its own entries only: entries of other "
            "roles are invisible to this plan, and so are those that endanger the launcher",
            remedy="plan with the role that owns the entries, or with one that bypasses row-level security",
        )
    if not facts.settings:
        yield Finding(
            code="hidden_settings",
            severity="warning",
            message=f"the role {facts.role} cannot see pg_cron's settings: the mode, the time zone (taken "
            "for GMT) and the exact version are unknown",
            remedy=f'as an administrator: GRANT pg_read_all_settings TO "{facts.role}"',
        )
