"""Read the lines of a crontab: times, users, commands and variables; pure.

The rules are those of Vixie cron, which the crons of Debian and Red Hat come from; CRON_TZ is Red Hat's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class CrontabLine:
    """A line that runs something.

    Attributes:
        line: Its number, from 1.
        schedule: Five fields with one blank between them, or a word such as `@daily`.
        command: For the shell.
        stdin: What the command reads; None for nothing.
        user: The system's user; "" where there is no such column.
        comment: The comment right above it; "" for none.
        variables: Of the environment, by name.
    """

    line: int
    schedule: str
    command: str
    stdin: str | None
    user: str
    comment: str
    variables: Mapping[str, str]


_VARIABLE: Final = re.compile(
    r"""[ \t]*(?:"([^"]+)"|'([^']+)'|([A-Za-z_][A-Za-z0-9_]*))[ \t]*=[ \t]*(.*?)[ \t]*"""
)
_TIME: Final = re.compile(r"[ \t]*(@\S+|(?:\S+[ \t]+){4}\S+)[ \t]+(.*)", re.DOTALL)
_USER: Final = re.compile(r"(\S+)[ \t]+(.*)", re.DOTALL)
# Comments that say nothing of the job below: another job that was switched off, headings, lines of dashes.
_LIKE_A_JOB: Final = re.compile(r"(?:@\w+|[0-9*][0-9*/,-]*(?:[ \t]+[0-9A-Za-z*][0-9A-Za-z*/,-]*){4})[ \t]+\S")
_HEADING: Final = re.compile(
    r"\bm(?:in(?:ute)?)?\b.*\bh(?:our)?\b.*\bdo[mw]\b|^[-=#*\s|.+]*$|^[|.\-\s]*[-.]{3}", re.IGNORECASE
)


def read_crontab(text: str, *, has_users: bool) -> Iterator[CrontabLine | int]:
    """Read a crontab.

    Args:
        text: All of it.
        has_users: Whether a column of users stands before the commands, as in /etc/crontab.

    Yields:
        Each line that runs something, or the number of a line that is none of a crontab.
    """
    variables: dict[str, str] = {}
    comment = ""
    for number, line in enumerate(text.split("\n"), start=1):
        bare = line.strip(" \t\r")
        if bare.startswith("#"):
            said = bare.lstrip("#").strip()
            comment = "" if _LIKE_A_JOB.match(said) or _HEADING.search(said) else said
            continue
        if not bare:
            comment = ""
            continue
        variable = _VARIABLE.fullmatch(line.rstrip("\r"))
        if variable is not None:
            name = variable[1] or variable[2] or variable[3]
            variables = {**variables, name: _unquote(variable[4])}
            continue
        found = _read_line(number, line.rstrip("\r"), comment, variables, has_users=has_users)
        yield found if found is not None else number
        comment = ""


def _unquote(value: str) -> str:
    is_quoted = len(value) > 1 and value[0] in "\"'" and value[-1] == value[0]
    return value[1:-1] if is_quoted else value


def _read_line(
    number: int, line: str, comment: str, variables: Mapping[str, str], *, has_users: bool
) -> CrontabLine | None:
    found = _TIME.fullmatch(line)
    if found is None:
        return None
    schedule, rest = " ".join(found[1].split()), found[2]
    user = ""
    if has_users:
        column = _USER.fullmatch(rest)
        if column is None:
            return None
        user, rest = column.groups()
    command, stdin = _split_percent(rest)
    return CrontabLine(
        line=number,
        schedule=schedule,
        command=command.strip(),
        stdin=stdin,
        user=user,
        comment=comment,
        variables=variables,
    )


def _split_percent(text: str) -> tuple[str, str | None]:
    """Split at the first %, behind which stands what the command reads; every further one ends a line."""
    parts = [part.replace("\\%", "%") for part in re.split(r"(?<!\\)%", text)]
    return parts[0], "\n".join(parts[1:]) if len(parts) > 1 else None
