"""Make and remove workers in SQL, as people call it."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

from tests.canary import CANARY

if TYPE_CHECKING:
    from tests.declared import Site

URL = "https://app.test/api/jobs/run"
CREATE: LiteralString = "SELECT reconciler.create_queue_worker(%s, %s, %s, %s)"
DROP: LiteralString = "SELECT reconciler.drop_queue_worker(%s)"


def create(
    site: Site,
    name: str = "worker-default-1",
    url: str = URL,
    token: str | None = CANARY,
    schedule: str | None = "0 0 29 2 *",
    user: str | None = None,
) -> int:
    """Make a worker; return its jobid."""
    row = site.database.connect(user or site.user).execute(CREATE, [name, url, token, schedule]).fetchone()
    assert row is not None
    return int(row[0])


def drop(site: Site, name: str = "worker-default-1", user: str | None = None) -> bool:
    """Remove a worker; return whether there was one."""
    row = site.database.connect(user or site.user).execute(DROP, [name]).fetchone()
    assert row is not None
    return bool(row[0])
