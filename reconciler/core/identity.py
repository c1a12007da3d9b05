"""Where a target is at home, and what is said of a copy; the server has judged which of the two it is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC
from typing import TYPE_CHECKING, Literal

from reconciler.core.changes import Obstacle
from reconciler.core.preflight import Finding
from reconciler.core.state import Notice

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from reconciler.core.plan import Plan

Home = Literal["home", "upgraded", "copy"]

REGISTRY = "registry"
"""The target of programs that register their jobs: no name of a configuration, so it tells nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a database is.

    Attributes:
        system_identifier: Of the server's files, made with them; None where nobody may ask for it.
        database: The database's name.
        database_oid: Its number on that server.
        server_major: The major version of PostgreSQL.
    """

    system_identifier: int | None
    database: str
    database_oid: int
    server_major: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What is recorded of a target, and where it is now.

    Attributes:
        state: home; upgraded by pg_upgrade, which is home too and to be recorded anew; or copy.
        recorded: Where it was.
        here: Where it is.
        recorded_at: When that was recorded, aware.
        recorded_by: By which role.
        targets: The target's name by owner, as each applied last or claimed.
    """

    state: Home
    recorded: Place
    here: Place
    recorded_at: datetime
    recorded_by: str
    targets: Mapping[str, str] = field(default_factory=dict)


def describe_place(place: Place) -> str:
    """Describe where a database is, in one line.

    Args:
        place: Where.
    """
    system = place.system_identifier
    server = f"PostgreSQL {place.server_major}{'' if system is None else f', system {system}'}"
    return f"the database {place.database} (oid {place.database_oid}) of {server}"


def explain_home(identity: Identity) -> str:
    """Say why a target is at home, or is not, in half a sentence.

    Args:
        identity: Of the target.
    """
    recorded, here = identity.recorded, identity.here
    if identity.state == "upgraded":
        return (
            f"pg_upgrade brought it from PostgreSQL {recorded.server_major}, so its tables kept their numbers"
        )
    if identity.state == "home":
        unknown = here.system_identifier is None or recorded.system_identifier is None
        same = "the numbers of database and tables are" if unknown else "server and database are"
        renamed = (
            "" if here.database == recorded.database else f", though it was called {recorded.database} then"
        )
        return f"{same} those that were recorded{renamed}"
    if None in {here.system_identifier, recorded.system_identifier}:
        return "the numbers of database and tables are not those that were recorded"
    if here.system_identifier != recorded.system_identifier:
        return "it was recorded on another server, so it is a restored dump or a copy by replication"
    return "it was recorded as another database of this server"


def find_stranger(identity: Identity, *, owner: str, target: str) -> Finding | None:
    """Find out whether an owner applied here under another name.

    It is what tells a copy of a server's files, and a configuration with another target's dsn.

    Args:
        identity: Of the database.
        owner: Who applies.
        target: The target's name in the configuration.

    Returns:
        What is wrong; None where the name is the known one, the first, or that of a program's registry.
    """
    known = identity.targets.get(owner, target)
    if known == target or REGISTRY in {known, target}:
        return None
    return Finding(
        code="other_target",
        severity="error",
        message=f"{owner} applied here to the target {known} last, not to {target}: this is a copy of "
        f"{known}, or the dsn of {target} leads to {known}",
        remedy=f"look at the dsn; where the target was renamed, or this is a copy that is to be {target} "
        f"from now on: reconciler target claim --target {target}",
    )


def find_home_dangers(identity: Identity | None, *, owner: str, target: str) -> tuple[Finding, ...]:
    """Find out what is wrong with where a database is.

    Args:
        identity: Of the database; None where nothing is recorded.
        owner: Who looks.
        target: The target's name in the configuration.

    Returns:
        At most one finding.
    """
    if identity is None:
        return ()
    if identity.state != "copy":
        stranger = find_stranger(identity, owner=owner, target=target)
        return () if stranger is None else (stranger,)
    at = identity.recorded_at.astimezone(UTC)
    return (
        Finding(
            code="copied_database",
            severity="error",
            message=f"{_describe_copy(identity)}. On {at:%Y-%m-%d %H:%M:%SZ} it was "
            f"{describe_place(identity.recorded)}; now it is {describe_place(identity.here)}. No managed job "
            "runs here, no queued job is handed out and no alert is sent; jobs of mode direct have no guard, "
            "and the tick switches their entries off where its role may",
            remedy=f"if its jobs are to run here: reconciler target claim --target {target}, which shows "
            "first what will start; else leave it so",
        ),
    )


def guard_identity(plan: Plan, identity: Identity | None) -> Plan:
    """Close a plan for a database that is not the target, and say what else is to be known.

    Args:
        plan: Of the target.
        identity: Of the database; None where nothing is recorded.

    Returns:
        The same plan where all is well.
    """
    if identity is None:
        return plan
    for danger in find_home_dangers(identity, owner=plan.owner, target=plan.target):
        why = _describe_copy(identity) if identity.state == "copy" else danger.message
        closed = Obstacle(kind="refused", why=why, remedy=danger.remedy)
        return replace(plan, closed=closed, is_elsewhere=True, findings=(danger, *plan.findings))
    if identity.state == "upgraded":
        notice = Notice(code="server_upgraded", message=f"{explain_home(identity)}; apply records it anew")
        return replace(plan, notices=(*plan.notices, notice))
    return plan


def _describe_copy(identity: Identity) -> str:
    return f"this database is a copy that nobody has claimed: {explain_home(identity)}"
