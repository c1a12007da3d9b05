"""Roles that let a login do one part of the work: what each is to have, and has, and how that is changed.

What each needs stands in `sql/queries/roles.sql`; the server quotes every name. Prints nothing, asks nobody.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from psycopg import errors

from reconciler.errors import ConfigError, MigrationError, RefusedError, RightsError

from .queries import load_queries

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psycopg

KINDS: Final[Mapping[str, str]] = {
    "reader": "looks at everything but secrets",
    "planner": "plans and compares",
    "applier": "applies what is declared",
    "worker": "claims and does queued jobs, and puts others",
    "service": "serves the API, the dashboard and the run endpoint",
}
"""Each kind of role, in the order in which they are shown, with what it does."""

_PREFIX: Final = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,49}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Who is in a role.

    Attributes:
        name: Of the member.
        can_login: Whether it is a login.
        sees_all: Whether row-level security hides no entry of `cron.job` from it.
    """

    name: str
    can_login: bool
    sees_all: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """Rights of one sort that a role has, lacks, or has beyond what it needs.

    Attributes:
        kind: Of the role.
        state: has, missing or extra.
        class_: What they are on: DATABASE, SCHEMA, TABLE, SEQUENCE, ROUTINE; ROLE for a membership.
        privileges: Such as `SELECT, INSERT`.
        objects: Quoted names.
        statement: What grants them (missing) or revokes them (extra); "" where there is nothing to do.
    """

    kind: str
    state: Literal["has", "missing", "extra"]
    class_: str
    privileges: str
    objects: tuple[str, ...]
    statement: str

    def describe(self) -> str:
        """Describe them in one line, without who has them."""
        names = ", ".join(self.objects)
        return f"member of {names}" if self.class_ == "ROLE" else f"{self.privileges} on {names}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """One of the roles as it is.

    Attributes:
        kind: Such as `reader`.
        name: With its prefix.
        is_there: Whether the server has it.
        can_login: Whether somebody made it a login, which it need not be.
        is_superuser: Whether somebody made it a superuser, so that nothing is kept from it.
        members: Who is in it, by name.
        rights: What it has, lacks and has beyond that.
    """

    kind: str
    name: str
    is_there: bool
    can_login: bool
    is_superuser: bool
    members: tuple[Member, ...]
    rights: tuple[Rights, ...]

    @property
    def is_right(self) -> bool:
        """Whether it is there and has what it needs and no more."""
        return self.is_there and all(one.state == "has" for one in self.rights)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A statement that this connection may not execute.

    Attributes:
        statement: As it was sent.
        why: In the server's words.
    """

    statement: str
    why: str


def name_role(kind: str, prefix: str) -> str:
    """Name a role.

    Args:
        kind: One of `KINDS`.
        prefix: What the names begin with.

    Returns:
        The role's name.

    Raises:
        ConfigError: The prefix is none.
    """
    if _PREFIX.fullmatch(prefix) is None:
        raise ConfigError(
            f"{prefix!r} is no prefix for names of roles",
            remedy="take up to 50 small letters, digits and underscores; pg_ is the server's own",
        )
    return prefix + kind


def read_roles(conn: psycopg.Connection, prefix: str) -> tuple[Role, ...]:
    """Read what the roles have here and what they lack.

    Args:
        conn: To the target; any role may ask.
        prefix: What their names begin with.

    Returns:
        One for each of `KINDS`, in that order, there or not.

    Raises:
        ConfigError: The prefix is none.
        MigrationError: The target has no schema reconciler.
    """
    queries = load_queries("roles")
    for kind in KINDS:
        name_role(kind, prefix)
    if conn.execute(queries["find_schema"]).fetchone() != (True,):
        raise MigrationError(
            "this target has no schema reconciler, so there is nothing to grant",
            remedy="run reconciler migrate first",
        )
    values = {"prefix": prefix, "kinds": list(KINDS)}
    rights = [
        Rights(
            kind=kind,
            state=state,
            class_=class_,
            privileges=privileges,
            objects=tuple(objects),
            statement=text,
        )
        for kind, state, class_, privileges, objects, text in conn.execute(queries["list_rights"], values)
    ]
    return tuple(
        Role(
            kind=kind,
            name=name,
            is_there=is_there,
            can_login=can_login,
            is_superuser=is_superuser,
            members=tuple(Member(**member) for member in members),
            rights=tuple(one for one in rights if one.kind == kind),
        )
        for kind, name, is_there, can_login, is_superuser, members in conn.execute(
            queries["list_roles"], values
        )
    )


def write_create(
    conn: psycopg.Connection,
    roles: Sequence[Role],
    grants: Sequence[tuple[str, str]] = (),
    *,
    bypass: bool = False,
) -> tuple[str, ...]:
    """Write the statements that make the roles what they are to be.

    Args:
        conn: To the target.
        roles: As `read_roles` found them.
        grants: Kinds of roles, and the logins that get into them.
        bypass: Whether those logins are to see every entry of `cron.job`; workers look at none.

    Returns:
        Statements, in the order in which they work; none where nothing is to do.

    Raises:
        ConfigError: There is no such login.
    """
    queries = load_queries("roles")
    logins = [login for _, login in grants]
    found = {name for name, _, _ in conn.execute(queries["list_logins"], {"logins": logins})}
    missing = sorted(set(logins) - found)
    if missing:
        raise ConfigError(
            f"there is no role {missing[0]} on the server",
            remedy="make it first, with a password of its own: CREATE ROLE … LOGIN, then \\password in psql",
        )
    names = {role.kind: role.name for role in roles}
    lacking = [role.name for role in roles if not role.is_there]
    statements = [text for (text,) in conn.execute(queries["write_create"], {"names": lacking})]
    statements += [one.statement for role in roles for one in role.rights if one.statement]
    values = {"roles": [names[kind] for kind, _ in grants], "logins": logins}
    statements += [text for (text,) in conn.execute(queries["write_membership"], values)]
    if bypass:
        lookers = [login for kind, login in grants if kind != "worker"]
        statements += [text for (text,) in conn.execute(queries["write_bypass"], {"logins": lookers})]
    return tuple(statements)


def write_drop(conn: psycopg.Connection, roles: Sequence[Role]) -> tuple[str, ...]:
    """Write the statements that take the roles away, with their rights in this database.

    A role that has rights in another database of the server stays, without those that it had here.

    Args:
        conn: To the target.
        roles: As `read_roles` found them.

    Returns:
        Statements, in the order in which they work; none where no role is there.

    Raises:
        RefusedError: One of them owns something.
    """
    queries = load_queries("roles")
    names = [role.name for role in roles if role.is_there]
    kept = set()
    for name, is_owner, database, objects in conn.execute(queries["find_dependents"], {"names": names}):
        if is_owner:
            raise RefusedError(
                f"nothing was changed: the role {name} owns {objects} objects in {database or 'the server'}",
                remedy=f"give them to another role first: REASSIGN OWNED BY {name} TO …",
            )
        kept.add(name)
    values = {"names": names, "kept": sorted(kept)}
    return tuple(text for (text,) in conn.execute(queries["write_drop"], values))


def execute_statements(conn: psycopg.Connection, statements: Sequence[str]) -> tuple[Refused, ...]:
    """Execute statements in one transaction; what this connection may not do is left out.

    Args:
        conn: In autocommit mode.
        statements: Of `write_create` or `write_drop`.

    Returns:
        Those that were left out.

    Raises:
        RightsError: The very first may not be executed, and with it none.
    """
    refused = []
    with conn.transaction():
        for statement in statements:
            try:
                with conn.transaction():
                    # The server wrote it and quoted its names.
                    conn.execute(statement.encode())
            except errors.InsufficientPrivilege as error:
                if statement.startswith("CREATE ROLE"):
                    raise RightsError(
                        f"the role {conn.info.user} may make no roles: {error.diag.message_primary}",
                        remedy="connect as an administrator, or hand one the output of roles create --sql",
                    ) from error
                refused.append(Refused(statement=statement, why=error.diag.message_primary or str(error)))
    return tuple(refused)
