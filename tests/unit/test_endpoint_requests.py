"""What a call to the run endpoint asks for, and what is said of one that cannot be read."""

from __future__ import annotations

import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from reconciler.core.bearer_tokens import BearerTokens, make_challenge, read_bearer
from reconciler.core.endpoint_requests import (
    Problem,
    RunRequest,
    RunRules,
    parse_new_job,
    parse_run_request,
)
from reconciler.core.hidden import Hidden
from reconciler.core.queued_jobs import NewJob
from reconciler.errors import ConfigError
from reconciler.runtime.http_messages import Call

RULES = RunRules(max_limit=50, budget=timedelta(seconds=25), max_budget=timedelta(minutes=2))


def parse(query: str, *prefer: str) -> RunRequest:
    """Parse a query that is right."""
    request = parse_run_request(Call(query=query).read_query(), prefer, RULES)
    assert isinstance(request, RunRequest), request
    return request


def refuse(query: str) -> Problem:
    """Parse a query that is wrong."""
    problem = parse_run_request(Call(query=query).read_query(), (), RULES)
    assert isinstance(problem, Problem), problem
    assert problem.status == 400
    assert problem.remedy
    return problem


def test_without_parameters_it_is_one_pending_job_of_the_default_queue() -> None:
    """The defaults are those that workers without a query rely on."""
    assert parse("") == RunRequest(
        queue="default", status="pending", limit=1, budget=timedelta(seconds=25), is_waiting=True
    )


@pytest.mark.parametrize(
    ("query", "queue", "status"),
    [
        ("queue=outreach", "outreach", "pending"),
        ("queue=outreach&status=failed", "outreach", "failed"),
        ("status=failed", "default", "failed"),
        ("queue=failed", "default", "failed"),
        ("queue=failed&status=failed", "default", "failed"),
        ("queue=failed&status=pending", "failed", "pending"),
        ("queue=a%20b+%C3%BC", "a b ü", "pending"),
    ],
)
def test_queue_and_status_are_taken(query: str, queue: str, status: str) -> None:
    """The queue `failed` is the failed jobs of the default queue, unless its pending ones are asked for."""
    request = parse(query)
    assert (request.queue, request.status) == (queue, status)


@pytest.mark.parametrize(("text", "limit"), [("1", 1), ("050", 50), ("7", 7)])
def test_a_limit_is_taken(text: str, limit: int) -> None:
    """Whole numbers up to the upper bound are limits."""
    assert parse(f"limit={text}").limit == limit


@pytest.mark.parametrize("text", ["0", "-1", "51", "1.5", "ten", "", "٣", "9" * 5000])
def test_another_limit_is_refused(text: str) -> None:
    """A limit that is no number within the bounds is named, with the bounds."""
    assert "is no number of jobs from 1 to 50" in refuse(f"limit={text}").detail


@pytest.mark.parametrize(("text", "seconds"), [("10", 10), ("10s", 10), ("1m30s", 90), ("250ms", 0.25)])
def test_a_time_is_taken(text: str, seconds: float) -> None:
    """The time in which jobs may begin is a duration, or a number of seconds."""
    assert parse(f"timeout={text}").budget == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["0", "-1", "3m", "soon", ""])
def test_another_time_is_refused(text: str) -> None:
    """A time that is none, or too long, is named with what could be sent."""
    assert "up to 120s" in refuse(f"timeout={text}").remedy


@pytest.mark.parametrize(
    ("query", "prefer", "is_waiting"),
    [
        ("", (), True),
        ("wait=false", (), False),
        ("", ("respond-async",), False),
        ("", ("Respond-Async, wait=10",), False),
        ("", ("handling=lenient", "respond-async"), False),
        ("", ("respond-asynchronously",), True),
        ("wait=true", ("respond-async",), True),
    ],
)
def test_who_does_not_wait_says_so(query: str, prefer: tuple[str, ...], is_waiting: bool) -> None:
    """The header Prefer, or the parameter, which goes before it, asks for an answer at once."""
    assert parse(query, *prefer).is_waiting == is_waiting


def test_who_does_not_wait_has_all_the_time() -> None:
    """Nobody's patience ends the beginning of jobs in the background."""
    assert parse("wait=false").budget == timedelta(minutes=2)
    assert parse("wait=false&timeout=3s").budget == timedelta(seconds=3)


@pytest.mark.parametrize(
    ("query", "detail", "remedy"),
    [
        ("staus=failed", "there is no parameter staus", "did you mean status?"),
        ("x=1", "there is no parameter x", "known are queue, status, limit, timeout, wait"),
        ("limit=1&limit=2", "the parameter limit stands there twice", "send it once"),
        ("status=done", "status=done is none that can be run", "send status=pending or status=failed"),
        ("status=", "status= is none that can be run", "send status=pending or status=failed"),
        (
            "queue=failed&status=x",
            "status=x is none that can be run",
            "send status=pending or status=failed",
        ),
        ("wait=maybe", "wait=maybe is neither true nor false", "send wait=false to get a 202 at once"),
        ("queue=", "queue is no text of 1 to 200 characters", "send another queue, or none"),
        ("queue=a%00b", "queue is no text of 1 to 200 characters", "send another queue, or none"),
        ("queue=%ff", "the query cannot be read", "send queue, status, limit, timeout, wait, in UTF-8"),
    ],
)
def test_a_wrong_query_is_explained(query: str, detail: str, remedy: str) -> None:
    """What is wrong and what to do stand in the problem."""
    problem = refuse(query)
    assert (problem.detail, problem.remedy) == (detail, remedy)


def test_a_job_is_read() -> None:
    """Every key of a job arrives in its type; `name` is the handler."""
    body = {
        "name": "mail.welcome",
        "run_at": "2026-12-01T09:00:00+01:00",
        "payload": {"user": 7},
        "queue": "outreach",
        "priority": -3,
        "unique_key": "u",
        "ordering_key": "o",
        "max_attempts": 2,
        "timeout": "1m30s",
        "type": "email",
    }
    assert parse_new_job(json.dumps(body).encode()) == NewJob(
        "mail.welcome",
        {"user": 7},
        queue="outreach",
        run_at=datetime(2026, 12, 1, 8, tzinfo=UTC),
        priority=-3,
        unique_key="u",
        ordering_key="o",
        max_attempts=2,
        timeout=timedelta(seconds=90),
        type="email",
    )


def test_a_job_needs_a_name_only() -> None:
    """What is left out, or null, is as usual; `handler` is another word for the name."""
    assert parse_new_job(b'{"handler": "a"}') == NewJob("a")
    assert parse_new_job(b'{"name": "a", "run_at": null, "payload": null}') == NewJob("a")


def test_a_whole_number_may_be_written_with_a_point() -> None:
    """JSON has one kind of number; seconds may stand alone."""
    job = parse_new_job(b'{"name": "a", "priority": -2.0, "max_attempts": 1e1, "timeout": 90.0}')
    assert job == NewJob("a", priority=-2, max_attempts=10, timeout=timedelta(seconds=90))
    job = parse_new_job(b'{"name": "a", "timeout": 90}')
    assert job == NewJob("a", timeout=timedelta(seconds=90))


def test_an_instant_without_an_offset_is_in_utc() -> None:
    """The documented form has no offset and means UTC."""
    job = parse_new_job(b'{"name": "a", "run_at": "2026-12-01T08:00:00"}')
    assert isinstance(job, NewJob)
    assert job.run_at == datetime(2026, 12, 1, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "the body is no JSON"),
        (b"\xff", "the body is no JSON"),
        (b'{"name": "a", "payload": NaN}', "NaN is no JSON"),
        (b'{"name": "a", "payload": 1e999}', "1e999 is too large a number"),
        (b"[" * 100_000, "the body is no JSON: it is nested too deeply"),
        (b"9" * 1001, "999… is too large a number"),
        (b"[]", "the body is no JSON object"),
        (b"{}", "the job has no name"),
        (b'{"name": "a", "handler": "b"}', "a name and a handler"),
        (b'{"name": 1}', "name is no text of 1 to 200 characters"),
        (b'{"name": "a", "nam": "b"}', "there is no key nam"),
        (b'{"name": "a", "run_at": "tomorrow"}', "run_at tomorrow is no instant in ISO 8601"),
        (b'{"name": "a", "run_at": 5}', "run_at is no instant"),
        (b'{"name": "a", "run_at": "0001-01-01T00:00:00+14:00"}', "is no instant"),
        (b'{"name": "a", "priority": true}', "priority is no whole number"),
        (b'{"name": "a", "priority": 3e9}', "priority is no whole number"),
        (b'{"name": "a", "max_attempts": 0}', "max_attempts is no whole number from 1 on"),
        (b'{"name": "a", "timeout": "soon"}', "timeout is no time"),
        (b'{"name": "a", "timeout": 0}', "timeout is no time"),
        (b'{"name": "a", "timeout": 1.5}', "timeout is no time"),
        (b'{"name": "a", "timeout": true}', "timeout is no time"),
        (b'{"name": "a", "priority": 1.5}', "priority is no whole number"),
    ],
)
def test_a_wrong_job_is_explained(body: bytes, detail: str) -> None:
    """What is wrong stands in the problem, with what to do."""
    problem = parse_new_job(body)
    assert isinstance(problem, Problem)
    assert detail in problem.detail
    assert (problem.status, bool(problem.remedy)) == (400, True)


@pytest.mark.parametrize(
    ("authorization", "token"),
    [
        ("Bearer a", "a"),
        (" bearer  a b ", "a b"),
        ("Bearer", None),
        ("Basic a", None),
        ("", None),
        (None, None),
    ],
)
def test_a_token_is_read(authorization: str | None, token: str | None) -> None:
    """Of the scheme Bearer alone."""
    assert read_bearer(authorization) == token


@pytest.mark.parametrize(
    ("authorization", "is_good"),
    [
        ("Bearer 123ABC", True),
        ("bearer   123ABC ", True),
        ("Bearer next", True),
        ("Bearer 123ABCD", False),
        ("Bearer 123AB", False),
        ("Bearer 123abc", False),
        ("Bearer ", False),
        ("Bearer", False),
        ("Basic 123ABC", False),
        ("123ABC", False),
        ("Bearer ünïcode", False),
        ("Bearer \udcff", False),
        ("", False),
        (None, False),
    ],
)
def test_only_a_right_token_opens(authorization: str | None, is_good: bool) -> None:
    """Each of the tokens does, and nothing else."""
    assert BearerTokens(["123ABC", Hidden("next")]).has(authorization) == is_good


@pytest.mark.parametrize("tokens", [[], [""], ["good", ""], [Hidden("")]])
def test_an_endpoint_is_never_open(tokens: list[Any]) -> None:
    """Without a token, or with an empty one, nothing starts."""
    with pytest.raises(ConfigError, match="anybody could run jobs"):
        BearerTokens(tokens)


def test_a_token_that_no_header_carries_is_refused() -> None:
    """The line end of a file, a blank or an umlaut would never match; the token is not repeated."""
    with pytest.raises(ConfigError, match="blanks, line ends") as caught:
        BearerTokens(["se cret\n"])
    assert "se cret" not in str(caught.value)


def test_every_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call tells nothing by how long it takes: neither which token it is, nor how much of one is right."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    tokens = BearerTokens(["first", "second", "a-third-one"])
    for authorization in ("Bearer first", "Bearer a-third-one", "Bearer wrong", "Basic first", None):
        compared.clear()
        tokens.has(authorization)
        assert len(compared) == 3
        assert {len(text) for pair in compared for text in pair} == {32}


def test_a_challenge_says_what_the_token_lacks() -> None:
    """Of RFC 6750: nothing more than the realm where none was sent."""
    assert make_challenge() == 'Bearer realm="reconciler"'
    assert (
        make_challenge("insufficient_scope", scope="read")
        == 'Bearer realm="reconciler", error="insufficient_scope", scope="read"'
    )
