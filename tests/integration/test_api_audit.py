"""Every write is written down, and done once for each key: routes of the tests' own, on the real database."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, LiteralString

import psycopg
import pytest
from fastapi import Request  # noqa: TC002 - the framework looks at it

from reconciler.api.audit import KEYED, Reply, carry_out
from reconciler.api.context import ServiceDep  # noqa: TC001 - the framework looks at it
from reconciler.api.problems import ProblemError
from reconciler.api.security import Writer  # noqa: TC001 - the framework looks at it
from reconciler.database.api_calls import NewCall, begin_call
from reconciler.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import Response
    from httpx import Response as Answer

    from tests.declared import Site
    from tests.served import Served

pytestmark = pytest.mark.one_server

PATH = "/api/v1/effects/one"


@dataclass(kw_only=True)
class Shop:
    """The service with a route that has an effect: a row for each time.

    Attributes:
        served: The service.
        before: What happens before the effect.
        after: What happens after it.
        is_atomic: As for `carry_out`.
    """

    served: Served
    before: Callable[[], None] = field(default=lambda: None)
    after: Callable[[psycopg.Connection[Any]], None] = field(default=lambda _: None)
    is_atomic: bool = True

    def __post_init__(self) -> None:
        """Add the route."""
        self.site.run("CREATE TABLE effects (n integer)")

        @self.served.app.post("/api/v1/effects/{name}", dependencies=[KEYED])
        def have_effect(
            request: Request, service: ServiceDep, caller: Writer, name: str, body: dict[str, int]
        ) -> Response:
            def act(conn: psycopg.Connection[Any]) -> Reply:
                self.before()
                conn.execute("INSERT INTO effects VALUES (%s)", [body["n"]])
                self.after(conn)
                document = {"n": body["n"], "text": "\ud800 \0 ø"}
                return Reply(status=201, document=document, headers={"Location": "/effects/1"})

            return carry_out(
                service,
                request,
                caller,
                action="effect.have",
                subject=name,
                act=act,
                is_atomic=self.is_atomic,
            )

    @property
    def site(self) -> Site:
        """Where the effects are."""
        return self.served.site

    @property
    def effects(self) -> int:
        """Count them."""
        return len(self.site.rows("SELECT FROM effects"))

    def __call__(self, key: str | None = None, n: int = 1, *, path: str = PATH) -> Answer:
        """Ask for an effect."""
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.served.post(path, json={"n": n}, headers=headers)

    def calls(
        self, *columns: Literal["status", "ended", "key", "subject", "caller"]
    ) -> list[tuple[Any, ...]]:
        """Return columns of the calls that were written down, the oldest first."""
        found = self.site.rows(
            "SELECT status, ended_at IS NOT NULL, idempotency_key, subject, caller"
            " FROM reconciler.api_calls ORDER BY id"
        )
        names = ("status", "ended", "key", "subject", "caller")
        return [tuple(row[names.index(column)] for column in columns) for row in found]


@pytest.fixture
def shop(served: Served) -> Shop:
    """The service with a route that has an effect."""
    return Shop(served=served)


def test_each_write_is_written_down(shop: Shop) -> None:
    """Who, what, to what, when and how it ended; neither the token nor the query is there."""
    token = shop.served.token("write")
    assert shop(path=f"{PATH}?token={token}").status_code == 201
    assert shop(n=2).status_code == 201
    items = shop.served.get("/api/v1/calls").json()["items"]
    assert [item["id"] for item in items] == [2, 1]
    first = items[1]
    assert first.pop("at").endswith("Z")
    assert first.pop("ended_at").endswith("Z")
    assert first == {
        "id": 1,
        "token_id": token[4:20],
        "caller": "write",
        "action": "effect.have",
        "subject": "one",
        "method": "POST",
        "path": PATH,
        "idempotency_key": None,
        "status": 201,
    }
    kept = shop.site.rows("SELECT c::text FROM reconciler.api_calls c")
    assert not [row for (row,) in kept if token[21:] in row or "?" in row]


def test_calls_are_listed_in_pages(shop: Shop) -> None:
    """The newest first, each once; what is no cursor is refused."""
    for n in range(5):
        assert shop(n=n).status_code == 201
    seen: list[int] = []
    cursor: str | None = None
    for _ in range(3):
        page = shop.served.get(
            "/api/v1/calls", params={"limit": 2, **({} if cursor is None else {"cursor": cursor})}
        ).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert seen == [5, 4, 3, 2, 1]
    assert cursor is None
    for params in ({"limit": 0}, {"limit": 501}, {"limit": "x"}, {"cursor": "x"}, {"cursor": "W10"}):
        assert shop.served.get("/api/v1/calls", params=params).status_code == 422


def test_the_same_request_with_the_same_key_is_done_once(shop: Shop) -> None:
    """Later it is answered as the first time, to the byte, and says so."""
    first, again = shop("k1"), shop('"k1"')
    assert (first.status_code, again.status_code, shop.effects) == (201, 201, 1)
    assert first.content == again.content
    assert first.json()["text"] == "\ud800 \0 ø"
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == "/effects/1"
    assert shop.calls("status", "key") == [(201, "k1")]


def test_a_key_belongs_to_one_request_of_one_token(shop: Shop) -> None:
    """With another body, path or query it is refused; another token has keys of its own."""
    assert shop("k1").status_code == 201
    for answer in (shop("k1", n=2), shop("k1", path="/api/v1/effects/two"), shop("k1", path=f"{PATH}?a")):
        assert answer.status_code == 422
        assert "used for another request" in answer.json()["detail"]
    other = shop.served.make_token("other", scopes=["write"])
    headers = {"Idempotency-Key": "k1", "Authorization": f"Bearer {other}"}
    assert shop.served.client.post(PATH, json={"n": 1}, headers=headers).status_code == 201
    assert shop.effects == 2


@pytest.mark.parametrize("key", ["", '""', "a b", 'a"b', "a\\b", "x" * 256, '"x'])
def test_what_is_no_key_is_refused(shop: Shop, key: str) -> None:
    """Nothing is done, and nothing written down."""
    answer = shop(key)
    assert answer.status_code == 422
    assert (shop.effects, shop.calls("key")) == (0, [])


def test_what_fails_has_done_nothing_and_leaves_its_key_free(shop: Shop) -> None:
    """Its row says how it ended; the next try with the key is a new one, also with another body."""
    reasons: list[Exception] = [
        ProblemError(404, "no such thing", "look"),
        RefusedError("it is protected", remedy="ask"),
        ZeroDivisionError(),
        psycopg.errors.UniqueViolation("twice"),
    ]
    for reason in reasons:

        def fail(_: object, reason: Exception = reason) -> None:
            raise reason

        shop.after = fail
        shop("k1")
    assert shop.effects == 0
    assert shop.calls("status", "ended", "key") == [
        *((status, True, None) for status in (404, 409, 500, 409)),
    ]
    answers = shop.site.rows("SELECT answer ->> 'detail' FROM reconciler.api_calls ORDER BY id LIMIT 3")
    assert answers == [("no such thing",), ("it is protected",), (None,)]
    shop.after = lambda _: None
    assert shop("k1", n=7).status_code == 201


def add_trigger(shop: Shop, assignment: LiteralString) -> None:
    """Change each call as it begins."""
    shop.site.run(
        "CREATE FUNCTION public.change_call() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN " + assignment + "; RETURN NEW; END $$"
    )
    shop.site.run(
        "CREATE TRIGGER change_call BEFORE INSERT ON reconciler.api_calls"
        " FOR EACH ROW EXECUTE FUNCTION public.change_call()"
    )


@pytest.mark.parametrize("takes", ["moment", "hour"])
def test_while_the_first_goes_on_the_second_waits_for_its_answer(shop: Shop, takes: str) -> None:
    """409, and when to ask again, however long it takes; afterwards the answer of the first."""
    goes_on, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        goes_on.set()
        assert may_end.wait(30)

    shop.before = hold
    if takes == "hour":
        add_trigger(shop, "NEW.at := NEW.at - interval '1 hour'")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(shop, "k1")
        assert goes_on.wait(30)
        second = shop("k1")
        may_end.set()
        assert first.result().status_code == 201
    assert second.status_code == 409
    assert second.headers["retry-after"] == "10"
    assert shop("k1").headers["idempotency-replayed"] == "true"
    assert shop.effects == 1


def test_of_many_at_once_one_has_an_effect(shop: Shop) -> None:
    """The others hear of it, or are told to ask again."""
    start = threading.Barrier(8)

    def ask(_: int) -> int:
        start.wait(30)
        return shop("k1").status_code

    shop.served.token("write")
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(ask, range(8)))
    assert shop.effects == 1
    assert set(statuses) <= {201, 409}
    assert 201 in statuses


def cut_off(shop: Shop, seconds: int, *, is_atomic: bool = True) -> None:
    """Leave what a process leaves that ended right after it began, so many seconds ago."""
    token = shop.served.token("write")
    shop("k1")
    shop.site.run("TRUNCATE effects")
    (digest,) = shop.site.rows("SELECT request_digest FROM reconciler.api_calls")[0]
    shop.site.run("TRUNCATE reconciler.api_calls")
    with shop.site.database.server.connect() as conn:
        begun = begin_call(
            conn,
            NewCall(
                token_id=token[4:20],
                caller="write",
                action="effect.have",
                subject="one",
                method="POST",
                path=PATH,
                key="k1",
                digest=digest,
                is_atomic=is_atomic,
            ),
        )
        conn.execute(
            "UPDATE reconciler.api_calls SET at = at - make_interval(secs => %s) WHERE id = %s",
            [seconds, begun.id],
        )


def test_a_call_that_was_cut_off_is_done_by_the_next_try(shop: Shop) -> None:
    """What it did is rolled back, so that the key is free soon; its row stays without an end."""
    cut_off(shop, 5)
    assert shop("k1").status_code == 409
    cut_off(shop, 11)
    assert shop("k1").status_code == 201
    assert shop.effects == 1
    assert shop.calls("status", "ended", "key") == [(None, False, None), (201, True, "k1")]


def test_who_lost_his_key_meanwhile_does_nothing(shop: Shop) -> None:
    """A process that stood still before its first step finds that another one has taken over."""
    add_trigger(shop, "NEW.idempotency_key := NULL")
    assert shop("k1").status_code == 409
    assert shop.effects == 0


def test_what_is_not_atomic_and_was_cut_off_stays_open(shop: Shop) -> None:
    """Nobody knows whether it was done: the key opens nothing for a day."""
    shop.is_atomic = False
    assert shop("k0").status_code == 201
    cut_off(shop, 3600, is_atomic=False)
    assert shop("k1").status_code == 409
    assert shop.effects == 0
    cut_off(shop, 86401, is_atomic=False)
    assert shop("k1").status_code == 201


def test_a_key_counts_for_a_day(shop: Shop) -> None:
    """After it the same request is a new one."""
    shop("k1")
    shop.site.run("UPDATE reconciler.api_calls SET at = at - interval '23 hours'")
    assert "idempotency-replayed" in shop("k1").headers
    shop.site.run("UPDATE reconciler.api_calls SET at = at - interval '61 minutes'")
    assert "idempotency-replayed" not in shop("k1", n=2).headers
    assert (shop.effects, shop.calls("key")) == (2, [(None,), ("k1",)])


def test_a_lost_connection_leaves_the_row_to_tell(shop: Shop) -> None:
    """503; the next try finds out what became of the first one."""

    def end_it(conn: psycopg.Connection[Any]) -> None:
        shop.site.run("SELECT pg_terminate_backend(%s, 5000)", conn.info.backend_pid)

    shop.after = end_it
    assert shop("k1").status_code == 503
    assert (shop.effects, shop.calls("status", "ended", "key")) == (0, [(None, False, "k1")])


def test_calls_are_kept_for_ninety_days(shop: Shop) -> None:
    """Each new one takes a hundred of the old ones away, so that none has to do much."""
    shop.site.run(
        "INSERT INTO reconciler.api_calls (at, token_id, caller, action, subject, method, path, is_atomic)"
        " SELECT clock_timestamp() - make_interval(days => d), 't', 'c', 'a', 's', 'POST', '/', true"
        " FROM generate_series(1, 150) AS g (n),"
        " LATERAL (SELECT CASE WHEN n <= 120 THEN 91 ELSE 89 END) AS a (d)"
    )
    counts = []
    for _ in range(2):
        assert shop().status_code == 201
        counts += shop.site.rows("SELECT count(*) FROM reconciler.api_calls")
    assert counts == [(51,), (32,)]


def test_names_that_no_text_can_have_are_cleaned(shop: Shop) -> None:
    """Of a path: whatever stands in it, the row can be written."""
    assert shop(path="/api/v1/effects/a%00b%ED%A0%80" + "x" * 600).status_code == 201
    ((subject,),) = shop.calls("subject")
    assert subject.startswith("a\ufffdb")
    assert len(subject) == 500


@pytest.mark.parametrize(
    "body", [b"{", b"\xff\xfe", b"[" * 100_000, b'{"n": 1e999}', b"null", b'{"n": "\\ud800"}']
)
def test_a_broken_body_is_no_fault_of_the_service(shop: Shop, body: bytes) -> None:
    """It is refused before anything is written down."""
    answer = shop.served.post(PATH, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert (shop.effects, shop.calls("key")) == (0, [])
