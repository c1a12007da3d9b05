"""The service of a test's database: its whole application, called without a server, with real tokens."""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from reconciler.api.context import Service
from reconciler.api.service import make_service_app
from reconciler.core.api_tokens import make_digest, make_token, read_scopes
from reconciler.database.api_tokens import create_token
from reconciler.runtime.thread_connections import ThreadConnections

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it would rather have the successor of httpx
    from starlette.testclient import TestClient

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from httpx import Response

    from reconciler.runtime.run_endpoint import RunEndpoint
    from tests.declared import Site


class Served:
    """The service, and who calls it.

    Attributes:
        site: Its database.
        service: What it was made with.
        app: The application.
        client: Calls it without a token; an error that nobody foresaw is an answer too.
    """

    def __init__(self, site: Site, *, endpoint: RunEndpoint | None = None, **fields: Any) -> None:
        """Make the service.

        Args:
            site: The database, whose schema is there; with a user, that role serves.
            endpoint: The run endpoint.
            **fields: Of `Service`.
        """
        self.site = site
        self.service = Service(connections=ThreadConnections(site.dsn), target="test", **fields)
        self.app = make_service_app(self.service, endpoint=endpoint)
        self.client = TestClient(self.app, base_url="http://testserver", raise_server_exceptions=False)
        self._tokens: dict[tuple[str, ...], str] = {}

    def token(self, *scopes: str) -> str:
        """Return a token with these scopes, one for each set of them."""
        key = read_scopes(scopes)
        if key not in self._tokens:
            self._tokens[key] = self.make_token("-".join(key), scopes=key)
        return self._tokens[key]

    def make_token(
        self, name: str, *, scopes: Sequence[str] = ("read",), expires_at: datetime | None = None
    ) -> str:
        """Make a token of a name that no other has."""
        given = make_token(os.urandom(10), os.urandom(32))
        with self.site.database.server.connect() as conn:
            create_token(
                conn,
                token_id=given.id,
                name=name,
                digest=make_digest(given),
                scopes=read_scopes(scopes),
                expires_at=expires_at,
            )
        return given.render().reveal()

    def request(
        self,
        method: str,
        path: str,
        *,
        scopes: Sequence[str] = (),
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> Response:
        """Send a request.

        Args:
            method: GET, POST, ...
            path: With its query.
            scopes: Of the token that it brings; none for a request without a token.
            headers: More of them.
            **options: Of httpx: json, content, params, ...
        """
        bearer = {"Authorization": f"Bearer {self.token(*scopes)}"} if scopes else {}
        response: Response = self.client.request(
            method, path, headers={**bearer, **(headers or {})}, **options
        )
        return response

    def get(self, path: str, *, scopes: Sequence[str] = ("read",), **options: Any) -> Response:
        """Get something; the options are those of `request`."""
        return self.request("GET", path, scopes=scopes, **options)

    def post(self, path: str, *, scopes: Sequence[str] = ("write",), **options: Any) -> Response:
        """Post something; the options are those of `request`."""
        return self.request("POST", path, scopes=scopes, **options)

    def put(self, path: str, *, scopes: Sequence[str] = ("write",), **options: Any) -> Response:
        """Put something; the options are those of `request`."""
        return self.request("PUT", path, scopes=scopes, **options)

    def delete(self, path: str, *, scopes: Sequence[str] = ("write",), **options: Any) -> Response:
        """Delete something; the options are those of `request`."""
        return self.request("DELETE", path, scopes=scopes, **options)


@contextmanager
def serve(site: Site, *, endpoint: RunEndpoint | None = None, **fields: Any) -> Iterator[Served]:
    """Serve a database for as long as a block takes.

    Args:
        site: The database; its schema is made where it is not there.
        endpoint: The run endpoint.
        **fields: Of `Service`.
    """
    if site.rows("SELECT to_regclass('reconciler.migrations') IS NULL") == [(True,)]:
        site.apply()
    made = Served(site, endpoint=endpoint, **fields)
    with made.client:
        yield made
