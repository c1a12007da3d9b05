"""Who is let in to the service, with real tokens in the database."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from reconciler.api.callers import MEMORY, Caller, KnownCallers
from reconciler.api.context import Limits
from reconciler.core import api_tokens
from reconciler.database.api_tokens import revoke_token
from reconciler.runtime.thread_connections import ThreadConnections
from tests.declared import Site
from tests.served import serve

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from httpx import Response

    from tests.served import Served

pytestmark = pytest.mark.one_server

PATH = "/api/v1/calls"
"""What the scope read opens."""


def call(served: Served, authorization: str | None = None) -> int:
    """Read something, and return how that was answered; each problem has its form."""
    headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
    answer: Response = served.client.get(PATH, headers=headers)
    if answer.status_code != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code
        assert answer.json()["remedy"]
    if answer.status_code == 401:
        assert answer.headers["www-authenticate"].startswith('Bearer realm="reconciler"')
    return answer.status_code


def test_only_a_good_token_in_the_header_opens(served: Served) -> None:
    """Nothing else does: no other header, no query, no cookie, no part of a token and no other case."""
    token = served.token("read")
    assert call(served, f"Bearer {token}") == 200
    assert call(served, f"bearer {token}") == 200
    wrong = (
        *(None, "", "Bearer", "Bearer ", f"Basic {token}", token, f"Bearer {token} {token}"),
        *(f"Bearer {token[:-1]}", f"Bearer {token}x", f"Bearer {token.swapcase()}", "Bearer \x00\xff"),
        # The secret of another token, and an id that there is not.
        f"Bearer {token[:21]}{served.token('write')[21:]}",
        f"Bearer rct_aaaaaaaaaaaaaaaa_{token[21:]}",
    )
    assert {authorization: call(served, authorization) for authorization in wrong} == dict.fromkeys(
        wrong, 401
    )
    for name in ("token", "access_token", "authorization"):
        assert served.client.get(PATH, params={name: token}).status_code == 401
    assert (
        served.client.get(PATH, headers={"Cookie": f"Authorization={token}; token={token}"}).status_code
        == 401
    )
    assert served.client.get(PATH, headers={"X-Authorization": f"Bearer {token}"}).status_code == 401


def test_nothing_is_read_of_who_brings_no_token(served: Served) -> None:
    """Whatever the body is, and however long it takes to parse: the token is asked for first."""
    for path, operations in served.app.openapi()["paths"].items():
        for method, operation in operations.items():
            if "requestBody" in operation:
                answer = served.request(
                    method, path.format(id="1"), content=b"[" * 100_000, headers={"Content-Type": "text/x"}
                )
                assert answer.status_code == 401, (method, path)


def test_a_body_that_does_not_come_is_not_waited_for(site: Site) -> None:
    """408, the connection ends, and nothing is done: who trickles holds up no end of the service."""
    with serve(site, limits=Limits(body_time=0.2)) as served:
        headers = [(b"host", b"a"), (b"authorization", f"Bearer {served.token('write')}".encode())]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/api/jobs",
            "query_string": b"",
            "headers": headers,
        }
        sent: list[MutableMapping[str, Any]] = []

        parts = iter(range(40))

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0.05)
            return {"type": "http.request", "body": b" ", "more_body": next(parts, 39) < 39}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        asyncio.run(served.app(scope, receive, send))
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]
    assert json.loads(sent[1]["body"])["detail"] == "the body did not come within 0.2 seconds"
    assert site.rows("SELECT FROM reconciler.jobs") == []


def test_each_scope_opens_its_own(served: Served) -> None:
    """The answer says which one is missing; none of them holds another."""
    for scope in ("trigger", "write", "run"):
        answer = served.get(PATH, scopes=(scope,))
        assert answer.status_code == 403
        assert answer.json()["detail"] == f"the token {scope} lacks the scope read"
        assert 'error="insufficient_scope", scope="read"' in answer.headers["www-authenticate"]
    assert served.get(PATH, scopes=("read", "run")).status_code == 200


def test_a_token_is_good_until_it_expires(site: Site) -> None:
    """At once then, although it was let in a moment ago."""
    now = [datetime(2026, 12, 1, 8, tzinfo=UTC)]
    with serve(site, now=lambda: now[0]) as served:
        token = served.make_token("ci", expires_at=now[0] + timedelta(seconds=1))
        assert call(served, f"Bearer {token}") == 200
        now[0] += timedelta(seconds=1)
        assert call(served, f"Bearer {token}") == 401


def test_a_token_that_is_revoked_opens_nothing_five_seconds_later(site: Site) -> None:
    """In between the process knows it still; its name is free for another one."""
    clock = [0.0]
    with serve(site, known_callers=KnownCallers(clock=lambda: clock[0])) as served:
        token = served.make_token("ci")
        assert call(served, f"Bearer {token}") == 200
        with site.database.server.connect() as conn:
            revoke_token(conn, "ci")
        clock[0] = MEMORY - 0.001
        assert call(served, f"Bearer {token}") == 200
        clock[0] = MEMORY
        assert call(served, f"Bearer {token}") == 401
        # It is forgotten for good, also by what asks for less.
        assert served.service.known_callers.find(token, datetime.now(UTC), within=3600) is None
        assert call(served, f"Bearer {served.make_token('ci')}") == 200


def test_the_database_is_asked_once_in_five_seconds(site: Site) -> None:
    """A thousand requests a second are none to it."""
    with serve(site) as served:
        token = served.make_token("ci")
        assert call(served, f"Bearer {token}") == 200
        site.run("UPDATE reconciler.api_tokens SET name = 'other'")
        known = served.service.known_callers.find(token, datetime.now(UTC))
        assert known is not None
        assert known.name == "ci"
        assert call(served, f"Bearer {token}") == 200


def test_only_so_many_callers_are_known() -> None:
    """Memory has a limit: who was let in first is asked for again."""
    known = KnownCallers(most=2)
    now = datetime.now(UTC)
    for name in "abc":
        known.remember(name, api_caller(name))
    assert [known.find(name, now) is None for name in "abc"] == [True, False, False]


def api_caller(name: str) -> Caller:
    """Make a caller."""
    return Caller(token_id=name, name=name, scopes=frozenset())


def test_a_token_that_there_is_not_costs_the_same(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """One question and one comparison of digests, whether or not the id is known."""
    token = served.token("read")
    compared: list[int] = []
    compare = api_tokens.is_match

    def note(given: api_tokens.GivenToken, kept: api_tokens.ApiToken | None) -> bool:
        compared.append(len(api_tokens.UNKNOWN_DIGEST if kept is None else kept.digest))
        return compare(given, kept)

    monkeypatch.setattr("reconciler.api.security.is_match", note)
    other = served.token("write")[21:]
    assert call(served, f"Bearer {token[:21]}{other}") == 401
    assert call(served, f"Bearer rct_aaaaaaaaaaaaaaaa_{other}") == 401
    assert compared == [32, 32]


def test_its_last_use_is_noted_every_ten_minutes(site: Site) -> None:
    """More often would make each look a write."""
    with serve(site, known_callers=KnownCallers(most=0)) as served:
        token = served.make_token("ci")
        seen = []
        for minutes in (None, 9, 11):
            if minutes is not None:
                site.run(
                    "UPDATE reconciler.api_tokens SET last_used_at = clock_timestamp() - %s",
                    timedelta(minutes=minutes),
                )
            assert call(served, f"Bearer {token}") == 200
            seen += site.rows(
                "SELECT clock_timestamp() - last_used_at < '1 minute' FROM reconciler.api_tokens"
            )
        assert seen == [(True,), (False,), (True,)]


def test_a_role_with_allow_service_alone_finds_callers(site: Site) -> None:
    """It reads no table of them, and makes no token; without the grant the remedy is told."""
    site.apply()
    site.run("CREATE ROLE svc LOGIN")
    with serve(Site(site.database, "svc")) as served:
        answer = served.get(PATH)
        assert answer.status_code == 500
        assert "reconciler.allow_service" in answer.json()["remedy"]
        site.run("SELECT reconciler.allow_service('svc')")
        assert served.get(PATH).status_code == 200
        assert served.get(PATH).json() == {"items": [], "next_cursor": None}
    for statement in (
        "SELECT * FROM reconciler.api_tokens",
        "SELECT * FROM reconciler.api_calls",
        "DELETE FROM reconciler.api_calls",
        "INSERT INTO reconciler.api_tokens DEFAULT VALUES",
        "SELECT reconciler.allow_service('svc')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            site.database.connect("svc").execute(statement)


def test_without_a_server_or_a_schema_the_answer_says_so(site: Site) -> None:
    """503 where there is none; a problem, too, where the schema is missing or older."""
    with serve(site) as served:
        token = served.token("read")
        site.run("DROP FUNCTION reconciler.find_api_token")
        answer = served.client.get(PATH, headers={"Authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.json()["remedy"]) == (500, "run reconciler migrate")
    lost = Site(site.database, "nobody")
    with serve(site) as served:
        connections = ThreadConnections(lost.dsn)
        service = replace(served.service, connections=connections)
        served.app.state.service = service
        answer = served.client.get(PATH, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
