"""Read the revisions of a target: who changed what, when and why, and the state of then. Changes nothing."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from psycopg.rows import class_row, dict_row

from reconciler.core.canonical import render_canonical
from reconciler.core.changes import ACTIONS
from reconciler.core.history import HistoryError, Present, Revision, read_change, restore
from reconciler.core.names import find_nearest
from reconciler.core.restoration import RestoreError, bring_back
from reconciler.core.state import Entry
from reconciler.errors import DatabaseError, RefusedError

from .queries import load_queries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import psycopg

    from reconciler.core.changes import Change
    from reconciler.core.history import Restored


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a revision says of itself.

    Attributes:
        id: Its number.
        owner: Whose resources it changed.
        target: The target's name then.
        applied_at: When, aware.
        applied_by: The role that applied it.
        actor: Who asked for it; "" if unknown.
        commit: The commit of the files; "" if unknown.
        release: Of the tool.
        summary: Counts of the plan; `emergency` with its reason, `rollback_to` with a revision,
            `restored` with names.
        actions: What was done, change by change.
        names: To what, in the same order.
    """

    id: int
    owner: str
    target: str
    applied_at: datetime
    applied_by: str
    actor: str
    commit: str
    release: str
    summary: Mapping[str, Any]
    actions: Sequence[str]
    names: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole(Head):
    """A revision with its changes.

    Attributes:
        changes: As they are stored.
    """

    changes: Sequence[Mapping[str, Any]]

    def read_changes(self) -> tuple[Change, ...]:
        """Read the changes."""
        return tuple(read_change(change) for change in self.changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch(Head):
    """A revision with its change of one resource.

    Attributes:
        change: As it is stored.
    """

    change: Mapping[str, Any]

    def read_change(self) -> Change:
        """Read the change."""
        return read_change(self.change)


def list_revisions(
    conn: psycopg.Connection, *, owner: str | None, limit: int, before: int | None = None
) -> list[Head]:
    """List revisions, the newest first.

    Args:
        conn: To the target.
        owner: Whose; None for everybody's.
        limit: How many at the most.
        before: The last one of the page before; None for the first page.

    Returns:
        The revisions; none where nothing was ever applied.
    """
    if not _has_revisions(conn):
        return []
    with conn.cursor(row_factory=class_row(Head)) as cursor:
        query = load_queries("history")["list_revisions"]
        return cursor.execute(query, {"owner": owner, "limit": limit, "before": before}).fetchall()


def list_fields(head: Head) -> dict[str, Any]:
    """List what a revision says of itself, by the names that JSON has for it everywhere.

    Args:
        head: Any revision.

    Returns:
        Values that JSON knows, but for `applied_at`.
    """
    actions = list(head.actions)
    return {
        "revision": head.id,
        "owner": head.owner,
        "target": head.target,
        "applied_at": head.applied_at,
        "applied_by": head.applied_by,
        "actor": head.actor or None,
        "commit": head.commit or None,
        "release": head.release,
        "rollback_to": head.summary.get("rollback_to"),
        "restored": head.summary.get("restored", []),
        "emergency": head.summary.get("emergency"),
        "transferred_to": head.summary.get("transferred_to"),
        "transferred_from": head.summary.get("transferred_from"),
        "counts": {action: actions.count(action) for action in ACTIONS},
        "names": list(head.names),
    }


def read_revision(conn: psycopg.Connection, number: int) -> Whole | None:
    """Read a revision, of whatever owner.

    Args:
        conn: To the target.
        number: Its number.

    Returns:
        The revision; None where there is none of this number.
    """
    if not _has_revisions(conn):
        return None
    with conn.cursor(row_factory=class_row(Whole)) as cursor:
        return cursor.execute(load_queries("history")["read_revision"], {"id": number}).fetchone()


def find_revision(conn: psycopg.Connection, number: int) -> Whole:
    """Find a revision, of whatever owner.

    Args:
        conn: To the target.
        number: Its number.

    Returns:
        The revision.

    Raises:
        DatabaseError: There is none of this number.
    """
    found = read_revision(conn, number)
    if found is None:
        raise DatabaseError(
            f"there is no revision {number} on this target", remedy="reconciler history --all lists them"
        )
    return found


def list_touches(conn: psycopg.Connection, name: str) -> list[Touch]:
    """List what changed a resource, under this name and those that it had before.

    Args:
        conn: To the target.
        name: Of a resource that is there, or was; of whatever owner.

    Returns:
        Revisions with their change of it, the newest first; the one that gave the resource another name is
        one of them.

    Raises:
        DatabaseError: No revision knows the name.
    """
    touches: list[Touch] = []
    if _has_revisions(conn):
        with conn.cursor(row_factory=class_row(Touch)) as cursor:
            _follow(cursor, name, touches)
    if not touches:
        raise _make_unknown_error(conn, name)
    return touches


def _follow(cursor: psycopg.Cursor[Touch], name: str, touches: list[Touch]) -> None:
    query = load_queries("history")["list_changes_of"]
    seen: set[str] = set()
    before: int | None = None
    while name not in seen:
        seen.add(name)
        found = cursor.execute(query, {"name": name}).fetchall()
        for touch in found:
            if before is not None and touch.id >= before:
                continue
            touches.append(touch)
            origin = touch.read_change().renamed_from
            if touch.names[0] == name and origin:
                name, before = origin, touch.id
                break


def _make_unknown_error(conn: psycopg.Connection, name: str) -> DatabaseError:
    names: list[str] = []
    if _has_revisions(conn):
        names = [row[0] for row in conn.execute(load_queries("history")["list_known_names"]).fetchall()]
    nearest = find_nearest(name, names)
    return DatabaseError(
        f"no revision of this target knows {name!r}",
        remedy=f"did you mean {nearest!r}?" if nearest else "reconciler history --all lists what was applied",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Memory:
    """What revisions and definitions say of one owner, read in one snapshot.

    Attributes:
        revisions: All of them, the oldest first.
        present: The definitions, without those that stand still.
        elsewhere: The owners of other owners' definitions, by name.
        now: By the database's clock, aware.
    """

    revisions: tuple[Revision, ...]
    present: Mapping[str, Present]
    elsewhere: Mapping[str, str]
    now: datetime


def find_restored(conn: psycopg.Connection, number: int, *, owner: str) -> Restored:
    """Find the state that an owner had after a revision.

    Args:
        conn: In autocommit mode, outside of a transaction.
        number: Of the revision.
        owner: Whose state is wanted.

    Returns:
        The state.

    Raises:
        DatabaseError: There is no such revision.
        RefusedError: It is another owner's, or the revisions do not tell all of that state.
    """
    wanted = find_revision(conn, number)
    if wanted.owner != owner:
        raise RefusedError(
            f"revision {number} is of the owner {wanted.owner}, and this is {owner}",
            remedy="nothing was changed; roll back with the configuration of that owner",
        )
    with _explained(f"revision {number}"):
        memory = _read_memory(conn, owner)
        return restore(memory.revisions, number, memory.present, now=memory.now)


def find_comeback(conn: psycopg.Connection, names: Sequence[str], *, owner: str) -> Restored:
    """Find single resources that were taken away, as they were last.

    Args:
        conn: In autocommit mode, outside of a transaction.
        names: Of the resources.
        owner: Whose they are.

    Returns:
        The state of these alone.

    Raises:
        RefusedError: One of them cannot come back, or the revisions do not tell all of it.
    """
    try:
        if not _has_revisions(conn):
            return bring_back(names, (), {}, {}, now=datetime.min.replace(tzinfo=UTC))
        with _explained(", ".join(names)):
            memory = _read_memory(conn, owner)
            return bring_back(names, memory.revisions, memory.present, memory.elsewhere, now=memory.now)
    except RestoreError as error:
        raise RefusedError(f"nothing was changed: {error}", remedy=error.remedy) from error


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Say of what the revisions do not tell that it cannot be restored."""
    try:
        yield
    except RestoreError:
        raise
    except (HistoryError, KeyError, TypeError) as error:
        why = (
            error if isinstance(error, HistoryError) else f"a revision holds what nobody can read ({error!r})"
        )
        raise RefusedError(
            f"{what} cannot be restored: {why}",
            remedy="nothing was changed; check out the files of then and apply them: reconciler history "
            "shows the commits",
        ) from error


def _read_memory(conn: psycopg.Connection, owner: str) -> _Memory:
    queries = load_queries("history")
    with conn.transaction(), conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        gap = cursor.execute(queries["find_gaps"]).fetchone()
        rows = cursor.execute(queries["read_changes"], {"owner": owner}).fetchall()
        definitions = cursor.execute(queries["read_definitions"], {"owner": owner}).fetchall()
        others = cursor.execute(queries["read_other_owners"], {"owner": owner}).fetchall()
        now = cursor.execute(queries["read_now"]).fetchone()
    assert now is not None  # noqa: S101 - one row
    if gap is not None:
        raise HistoryError(f"revisions before {gap['id']} were deleted")
    return _Memory(
        revisions=tuple(
            Revision(
                id=row["id"],
                owner=row["owner"],
                changes=tuple(read_change(one) for one in row["changes"]),
            )
            for row in rows
        ),
        present={row["name"]: _read_present(row) for row in definitions},
        elsewhere={row["name"]: row["owner"] for row in others},
        now=now["now"],
    )


def _read_present(row: Mapping[str, Any]) -> Present:
    entry = None
    if row["schedule"] is not None:
        columns = ("name", "schedule", "command", "database", "username", "active")
        entry = Entry(**{column: row[column] for column in columns})
    return Present(
        kind=row["kind"],
        name=row["name"],
        document=render_canonical(row["document"]),
        digest=row["digest"],
        entry=entry,
        source=row["source"],
    )


def _has_revisions(conn: psycopg.Connection) -> bool:
    row = conn.execute(load_queries("history")["find_revisions"]).fetchone()
    return row is not None and bool(row[0])
