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
from reconciler.api.status_reading import read_overview

from .rendering import render
from .sessions import Viewer, ViewerDep, check_form_key, check_origin, find_root

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    import psycopg

    from reconciler.api.status_reading import LauncherState, Overview
    from reconciler.database.status import State, TickState

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
_SMALL: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What stands above every page.

    Attributes:
        launcher: running, not_running or unknown.
        tick: seen, late, not_yet, none or unknown.
        tick_at: When the tick last began, to the second; None where nothing is known of it.
        failing: Jobs that fail, were missed, or lost their entry.
        worst: One of the states that these jobs are in.
        waiting: Messages that no channel got yet.
    """

    launcher: LauncherState
    tick: TickState
    tick_at: datetime | None
    failing: int
    worst: State
    waiting: int


class Visit:
    """One request of somebody who is signed in.

    Attributes:
        request: The request.
        service: What it works with.
        viewer: Who looks.
        root: Below which path the application is mounted.
        overview: What holds for all jobs together, within `connection()` and after it.
    """

    overview: Overview

    def __init__(self, request: Request, service: ServiceDep, viewer: ViewerDep) -> None:
        self.request = request
        self.service: Service = service
        self.viewer: Viewer = viewer
        self.root = find_root(request)
        self._counts: Mapping[State, int] = {}
        self._target = service.target

    @property
    def zone(self) -> str:
        """The zone in which pg_cron reads schedules."""
        return self.overview.timezone

    @property
    def now(self) -> datetime:
        """The server's clock, two seconds ago at the most."""
        return self.overview.now

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """Give out a connection, when it is known what stands above the page.

        Yields:
            The connection, in autocommit mode.

        Raises:
            DatabaseError: There is no server, no pg_cron, or nothing was applied to it.
        """
        # Before there is a connection of our own: it is read through another one.
        self.overview = read_overview(self.service)
        self._counts = self.overview.counts
        with self.service.connections.connection() as conn:
            self._target = self._target or conn.info.dbname
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
            target=self._target,
            head=head,
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
        seen = self.overview
        failing = [state for state in FAILING if self._counts.get(state)]
        age = seen.tick_age if seen.tick in ("seen", "late") else None
        return Head(
            launcher=seen.launcher,
            tick=seen.tick,
            tick_at=None if age is None else (seen.now - timedelta(seconds=age)).replace(microsecond=0),
            failing=sum(self._counts[state] for state in failing),
            worst=next(iter(failing), FAILING[0]),
            waiting=seen.deliveries_waiting,
        )

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
