"""The commands `roles create`, `roles show` and `roles drop`: roles that let a login do one part of the work.

Shows, asks and prints; what each role needs is known to `reconciler.database.roles`.
"""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, TypeVar

import click

from reconciler.cli import exits
from reconciler.cli.asking import ask, yes_option
from reconciler.cli.session import open_session, target_options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from reconciler.database.roles import Role

_Function = TypeVar("_Function", bound="Callable[..., object]")
_WIDTH = 110
_HALF_BLIND = ", who sees no entries of others in cron.job (BYPASSRLS shows them)"
_KINDS = ("reader", "planner", "applier", "worker", "service")


def _options(function: _Function) -> _Function:
    prefix = click.option(
        "--prefix",
        default="reconciler_",
        show_default=True,
        metavar="TEXT",
        help="What the names begin with.",
    )
    return target_options(prefix(function))


_sql_option = click.option("--sql", "sql_only", is_flag=True, help="Only print the SQL.")


class _Grant(click.ParamType[tuple[str, str]]):
    """Reads `planner=ci`."""

    name = "ROLE=LOGIN"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Split it into the kind of the role and the login."""
        kind, _, login = value.partition("=")
        if kind not in _KINDS or not login.isprintable() or not login:
            self.fail(f"{value!r} is not {'|'.join(_KINDS)}=LOGIN", param, ctx)
        return kind, login


@click.group()
def roles() -> None:
    """Make roles that let a login do one part of the work, and no more."""


@roles.command()
@_options
@click.option("--grant", "grants", multiple=True, type=_Grant(), help="Put a login into a role.")
@click.option("--bypass-rls", is_flag=True, help="Let those logins see every entry of cron.job.")
@yes_option
@_sql_option
def create(
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    prefix: str,
    grants: tuple[tuple[str, str], ...],
    bypass_rls: bool,
    yes: bool,
    sql_only: bool,
) -> int:
    """Make the roles what they are to be: shows the SQL, and asks.

    Run it again after an upgrade: it grants what new tables need, and takes away what is no longer needed.
    Exits with 1 where this connection may not grant all of it; the rest is done.
    """
    from reconciler.database.roles import execute_statements, read_roles, write_create

    if bypass_rls and not grants:
        raise click.UsageError("--bypass-rls is for logins: name them with --grant")
    session = open_session(config_path, target_name, dsn)
    with session.connect() as conn:
        statements = write_create(conn, read_roles(conn, prefix), grants, bypass=bypass_rls)
        _show_sql(statements, otherwise="Nothing to do: the roles are as they are to be.")
        if sql_only or not statements:
            return exits.DONE
        _ask(yes, f"Execute {_count(len(statements), 'statement')} on {session.target.name}?")
        refused = {one.statement: one.why for one in execute_statements(conn, statements)}
        left = write_create(conn, read_roles(conn, prefix), grants, bypass=bypass_rls)
    click.echo(f"Executed: {_count(len(statements) - len(left), 'statement')}.")
    return _tell_left(left, refused)


@roles.command()
@_options
@click.option("--json", "as_json", is_flag=True, help="Show them as JSON.")
def show(
    config_path: Path | None, target_name: str | None, dsn: str | None, prefix: str, as_json: bool
) -> int:
    """Show what each role has, what it lacks or has too much, and who is in it.

    Exits with 1 where `roles create` would do something.
    """
    from reconciler.database.roles import read_roles

    session = open_session(config_path, target_name, dsn)
    with session.connect() as conn:
        found = read_roles(conn, prefix)
    if as_json:
        click.echo(json.dumps([_to_json(role) for role in found], indent=2, ensure_ascii=False))
    else:
        click.echo("\n\n".join(_render(role) for role in found))
    return exits.DONE if all(role.is_right for role in found) else exits.ERROR


@roles.command()
@_options
@yes_option
@_sql_option
def drop(
    config_path: Path | None, target_name: str | None, dsn: str | None, prefix: str, yes: bool, sql_only: bool
) -> int:
    """Take the roles away: shows the SQL, and asks.

    A role that has rights in another database of the server loses those in this one, and stays.
    """
    from reconciler.database.roles import execute_statements, read_roles, write_drop

    session = open_session(config_path, target_name, dsn)
    with session.connect() as conn:
        statements = write_drop(conn, read_roles(conn, prefix))
        _show_sql(statements, otherwise="Nothing to do: none of the roles is there.")
        if sql_only or not statements:
            return exits.DONE
        _ask(yes, f"Execute {_count(len(statements), 'statement')} on {session.target.name}?")
        refused = {one.statement: one.why for one in execute_statements(conn, statements)}
        found = read_roles(conn, prefix)
    click.echo(f"Executed: {_count(len(statements) - len(refused), 'statement')}.")
    stay = [role.name for role in found if role.is_there and f"DROP ROLE {role.name}" not in refused]
    if stay:
        click.echo(f"Stay, with their rights in other databases: {', '.join(stay)}.")
    return _tell_left(tuple(refused), refused)


def _ask(yes: bool, question: str) -> None:
    if not yes:
        ask(question, otherwise="execute without asking")


def _tell_left(left: Sequence[str], refused: dict[str, str]) -> int:
    """Tell what is for an administrator to do."""
    if not left:
        return exits.DONE
    click.echo("This connection may not do the rest. As an administrator:", err=True)
    for statement in left:
        why = refused.get(statement)
        click.echo(f"  {statement};" + (f"  -- {why}" if why else ""), err=True)
    return exits.ERROR


def _show_sql(statements: Sequence[str], *, otherwise: str) -> None:
    """Show what is executed; without it nothing goes to standard output, which may be a script."""
    for statement in statements:
        click.echo(f"{statement};")
    if not statements:
        click.echo(otherwise, err=True)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _render(role: Role) -> str:
    from reconciler.database.roles import KINDS

    head = click.style(role.name, bold=True)
    if not role.is_there:
        return f"{head}  {KINDS[role.kind]}\n  is not there"
    lines = [f"{head}  {KINDS[role.kind]}"]
    if role.is_superuser:
        lines.append("  superuser: nothing is kept from it")
    words = {"has": "has", "missing": "lacks", "extra": "too much"}
    for one in role.rights:
        start = f"  {words[one.state]:8}  "
        lines += textwrap.wrap(
            one.describe(),
            _WIDTH,
            initial_indent=start,
            subsequent_indent=" " * len(start),
            break_on_hyphens=False,
        )
    lines += [
        f"  member    {member.name}" + ("" if member.sees_all or role.kind == "worker" else _HALF_BLIND)
        for member in role.members
    ]
    return "\n".join([*lines, *([] if role.members else ["  member    nobody"])])


def _to_json(role: Role) -> dict[str, object]:
    return {
        "kind": role.kind,
        "name": role.name,
        "is_there": role.is_there,
        "can_login": role.can_login,
        "is_superuser": role.is_superuser,
        **{
            key: [
                {"on": one.class_, "privileges": one.privileges, "objects": list(one.objects)}
                for one in role.rights
                if one.state == state
            ]
            for key, state in (("has", "has"), ("missing", "missing"), ("too_much", "extra"))
        },
        "members": [
            {"name": member.name, "can_login": member.can_login, "sees_all_entries": member.sees_all}
            for member in role.members
        ],
    }
