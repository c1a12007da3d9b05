"""One look at the dashboard: who looks, through which connection, and the page that comes of it."""

from __future__ import annotations

import gzip
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Depends, Form, Request, Response
from starlette.responses import HTMLResponse, RedirectResponse

from reconciler.api.context import Service, ServiceDep
from reconciler.api.problems import ProblemError
from reconciler.database.job_pages import read_job_page
from reconciler.database.observe import observe_facts, require_pg_cron
from reconciler.database.runs import require_runtime
from reconciler.database.status import read_summary

from .rendering import render
from .sessions import Viewer, ViewerDep, check_form_key, check_origin, find_root

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    import psycopg

    from reconciler.core.facts import Facts
    from reconciler.database.status import State, Summary

NAV: Final = (
    ("Jobs", "/"),
    ("Calendar", "/calendar"),
    ("Queues", "/queues"),
    ("Drift", "/drift"),
    ("Revisions", "/revisions"),
    ("Alerts", "/alerts"),
)
FAILING: Final[tuple[State, ...]] = ("failing", "missed", "missing")
"""States of jobs that somebody has to look at."""
_SILENT: Final = 300.0
"""Seconds without a tick that are no accident."""
_FRESH: Final = 2.0
"""Seconds for which what stands above the pages is good."""
_SMALL: Final = 2000
_STALE: Final = 30.0
_PATIENCE: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What stands above every page.

    Attributes:
        launcher: alive, dead, or unknown where it cannot be seen.
        tick: alive, silent, none, or unknown where it cannot be seen.
        tick_at: When the tick last began, to the second; None where nothing is known of it.
        failing: Jobs that fail, were missed, or lost their entry.
        worst: One of the states that these jobs are in.
        waiting: Messages that no channel got yet.
    """

    launcher: str
    tick: str
    tick_at: datetime | None
    failing: int
    worst: str
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ground:
    """What every page needs, read for all of them at once.

    Attributes:
        facts: Of the server.
        summary: What holds for all jobs together.
        counts: Jobs by state.
    """

    facts: Facts
    summary: Summary
    counts: Mapping[State, int]


class Visit:
    """One request of somebody who is signed in.

    Attributes:
        request: The request.
        service: What it works with.
        viewer: Who looks.
        root: Below which path the application is mounted.
        facts: Of the server, within `connection()` and after it.
        now: The server's clock, likewise.
    """

    facts: Facts
    now: datetime

    def __init__(self, request: Request, service: ServiceDep, viewer: ViewerDep) -> None:
        self.request = request
        self.service: Service = service
        self.viewer: Viewer = viewer
        self.root = find_root(request)
        self._ground: _Ground | None = None
        self._counts: Mapping[State, int] = {}

    @property
    def zone(self) -> str:
        """The zone in which pg_cron reads schedules."""
        return self.facts.timezone

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """Give out a connection, when it is known what stands above the page.

        Yields:
            The connection, in autocommit mode.

        Raises:
            DatabaseError: There is no server, no pg_cron, or nothing was applied to it.
        """
        # Before there is a connection of our own: it is read through another one.
        found = self.service.answers.find(
            "dashboard", self._read_ground, max_age=_FRESH, patience=_PATIENCE, stale=_STALE
        )
        self._ground = found.value
        self._counts = found.value.counts
        self.facts = found.value.facts
        self.now = found.value.summary.now + timedelta(seconds=found.age)
        with self.service.connections.connection() as conn:
            yield conn

    def count_jobs(self, counts: Mapping[State, int]) -> None:
        """Say how the jobs fare, where a page has read that itself.

        Args:
            counts: Jobs by state.
        """
        self._counts = counts

    def require(self, scope: str) -> None:
        """Refuse what the viewer's token does not open.

        Raises:
            ProblemError: 403.
        """
        caller = self.viewer.caller
        if scope not in caller.scopes:
            raise ProblemError(
                403,
                f"the token {caller.name} lacks the scope {scope}",
                f"sign in with one of reconciler token create --scope {scope}",
            )

    def show(
        self, template: str, *, status: int = 200, live: bool = True, seen: object = None, **values: Any
    ) -> Response:
        """Show a page, or the part of it that changes to who has it open.

        Args:
            template: Its name.
            status: Of the answer.
            live: Whether it looks for news while it is open.
            seen: All that the page tells but for the time; the same again is answered by 304. None where
                nobody knows that.
            **values: What the template shows.
        """
        head = self._make_head()
        is_part = self.request.headers.get("hx-request") == "true"
        headers = {"Vary": "Accept-Encoding, HX-Request"}
        digest = "" if seen is None else self._digest((seen, head))
        if digest:
            headers["ETag"] = f'"{digest}"'
            if self.request.headers.get("if-none-match") == f'"{digest}"':
                return Response(status_code=304, headers=headers)
        html = render(
            template,
            layout="part.html" if is_part else "base.html",
            root=self.root,
            here=self.root + self._find_path(),
            path=self._find_path().partition("?")[0],
            nav=NAV,
            viewer=self.viewer,
            target=self.service.target or self.facts.database,
            head=head,
            facts=self.facts,
            zone=self.zone,
            now=self.now,
            live=live,
            digest=digest,
            **values,
        )
        body = html.encode("utf-8", "replace")
        # No other site can make a browser send the cookie: the length of what is packed tells it nothing.
        if "gzip" in self.request.headers.get("accept-encoding", "") and len(body) > _SMALL:
            body = gzip.compress(body, 4, mtime=0)
            headers["Content-Encoding"] = "gzip"
        return HTMLResponse(body, status_code=status, headers=headers)

    def redirect(self, path: str) -> Response:
        """Send the browser on, after a form.

        Args:
            path: Of the page, below the application's own.
        """
        return RedirectResponse(self.root + path, status_code=303)

    def _make_head(self) -> Head:
        assert self._ground is not None  # noqa: S101 - pages are shown of what was read
        facts, summary = self._ground.facts, self._ground.summary
        age, sees_all = summary.tick_age, facts.rights.sees_all
        if not summary.ticks:
            tick = "none" if sees_all else "unknown"
        elif age is None:
            tick = "unseen" if sees_all else "unknown"
        else:
            tick = "silent" if age > _SILENT else "alive"
        began = None if age is None else (summary.now - timedelta(seconds=age)).replace(microsecond=0)
        failing = [state for state in FAILING if self._counts.get(state)]
        return Head(
            launcher={None: "unknown", True: "alive", False: "dead"}[facts.launcher_running],
            tick=tick,
            tick_at=began if tick in ("alive", "silent") else None,
            failing=sum(self._counts[state] for state in failing),
            worst=next(iter(failing), FAILING[0]),
            waiting=summary.deliveries_waiting,
        )

    def _read_ground(self) -> _Ground:
        with self.service.connections.connection() as conn:
            facts = observe_facts(conn)
            require_pg_cron(facts)
            require_runtime(conn)
            counts = read_job_page(conn, zone=facts.timezone, limit=1).counts
            return _Ground(facts=facts, summary=read_summary(conn), counts=counts)

    def _find_path(self) -> str:
        url = self.request.url
        return url.path.removeprefix(self.root) + (f"?{url.query}" if url.query else "")

    def _digest(self, seen: tuple[object, Head]) -> str:
        what, head = seen
        told = (what, head, sorted(self.viewer.caller.scopes))
        return sha256(repr(told).encode("utf-8", "surrogatepass")).hexdigest()[:24]


def check_submission(
    request: Request, visit: Annotated[Visit, Depends()], csrf: Annotated[str, Form()] = ""
) -> Visit:
    """Let a form in that a page of ours made for this session.

    Raises:
        ProblemError: 403.
    """
    check_origin(request)
    check_form_key(visit.viewer, csrf)
    return visit


VisitDep = Annotated[Visit, Depends()]
"""A look at a page."""
Submission = Annotated[Visit, Depends(check_submission)]
"""A form that was sent."""
