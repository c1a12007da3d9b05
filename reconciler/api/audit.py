"""Every write: written down before and after, and done once however often it is asked for with one key.

The key comes in the header Idempotency-Key (draft-ietf-httpapi-idempotency-key-header). What a call does, and
the end of its row, are one transaction: a row without an end tells that nothing was done, and its key is soon
free again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Annotated, Any, Final

import psycopg
from fastapi import Depends, Header, Request
from fastapi.encoders import jsonable_encoder
from starlette.responses import Response

from reconciler.database.api_calls import CallAnswer, NewCall, begin_call, end_call, hold_call
from reconciler.errors import ConnectError, ReconcilerError

from .callers import Caller
from .context import Service
from .problems import ProblemError, explain, render_problem

_KEY_PATTERN: Final = r'^("[\x21\x23-\x5b\x5d-\x7e]{1,255}"|[\x21\x23-\x5b\x5d-\x7e]{1,255})$'
_LONGEST: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a write is answered.

    Attributes:
        status: Of HTTP.
        document: A model, or what JSON knows; None for an empty body.
        headers: What the answer's head says besides; they are kept with it.
    """

    status: int = 200
    document: object = None
    headers: Mapping[str, str] = field(default_factory=dict)


def _describe_key(
    idempotency_key: Annotated[
        str | None,
        Header(
            pattern=_KEY_PATTERN,
            description="Any text of your own. The same request with the same key is done once: "
            "within 24 hours it is answered as the first time, with the header `Idempotency-Replayed: true`.",
        ),
    ] = None,
) -> None:
    """Let the OpenAPI document tell of the header; `carry_out` reads it."""


KEYED: Final = Depends(_describe_key)
"""For `dependencies=[KEYED]` of each route that calls `carry_out`."""


def carry_out(
    service: Service,
    request: Request,
    caller: Caller,
    *,
    action: str,
    subject: str,
    act: Callable[[psycopg.Connection[Any]], Reply],
    is_atomic: bool = True,
) -> Response:
    """Do what a request asks for: written down, and once for each key.

    Args:
        service: Of the request.
        request: As it came.
        caller: Who asks.
        action: What is done, such as `job.create`.
        subject: To what, such as the name of a job; not secret.
        act: Does it, and says what is answered; what it raises is answered, too, and nothing is done. Its
            connection is in a transaction.
        is_atomic: False where `act` needs a connection in autocommit mode, such as for an apply. Then a
            process that ends in between leaves open whether it was done, and the key opens nothing for a day.

    Returns:
        The answer; that of the first time where the key was used before.

    Raises:
        ProblemError: Of `act`; 409 while the first request with the key goes on, or was cut off; 422 where it
            was another request, or the key is none.
        ReconcilerError: Of `act`.
    """
    key = _read_key(request)
    call = NewCall(
        token_id=caller.token_id,
        caller=caller.name,
        action=action,
        subject=_clean(subject),
        method=_clean(request.method),
        path=_clean(request.url.path),
        key=key,
        digest=None if key is None else _make_digest(request),
        is_atomic=is_atomic,
    )
    begun = None
    try:
        with service.connections.connection() as conn:
            begun = begin_call(conn, call)
            if begun.state != "begun":
                return _make_response(_find_answer(begun.state, begun.answer), is_replayed=True)
            if not is_atomic:
                answer = _render(act(conn))
                end_call(conn, begun.id, answer, keeps=True)
                return _make_response(answer)
            with conn.transaction():
                if not hold_call(conn, begun.id, key):
                    _find_answer("running", None)
                answer = _render(act(conn))
                end_call(conn, begun.id, answer, keeps=True)
            return _make_response(answer)
    except Exception as error:
        # A lost connection may have been lost while it committed: the row alone knows.
        if begun is not None and begun.state == "begun" and not isinstance(error, ConnectError):
            _end_refused(service, begun.id, error)
        raise


def _find_answer(state: str, answer: CallAnswer | None) -> CallAnswer:
    if state == "other":
        raise ProblemError(
            422, "the Idempotency-Key was used for another request", "send a new key with each new request"
        )
    if answer is None:
        raise ProblemError(
            409,
            "the first request with this Idempotency-Key goes on, or was cut off",
            "ask again in a moment; GET /api/v1/calls shows what became of it",
            {"Retry-After": "10"},
        )
    return answer


def _end_refused(service: Service, call_id: int, error: Exception) -> None:
    """Write down why nothing was done; the key stays free, since the same request may be right later."""
    answer = CallAnswer(status=500, document=None)
    if isinstance(error, ProblemError | ReconcilerError):
        problem = error.problem if isinstance(error, ProblemError) else explain(error)
        answer = CallAnswer(status=problem.status, document=json.dumps(render_problem(problem)))
    with suppress(ReconcilerError), service.connections.connection() as conn:
        end_call(conn, call_id, answer, keeps=False)


def _render(reply: Reply) -> CallAnswer:
    # In ASCII, so that neither the answer nor the database stumbles over a lone surrogate.
    document = (
        None
        if reply.document is None
        else json.dumps(jsonable_encoder(reply.document), allow_nan=False, separators=(",", ":"))
    )
    return CallAnswer(status=reply.status, document=document, headers=reply.headers)


def _make_response(answer: CallAnswer, *, is_replayed: bool = False) -> Response:
    headers = {**answer.headers, **({"Idempotency-Replayed": "true"} if is_replayed else {})}
    media_type = None if answer.document is None else "application/json"
    return Response(answer.document, status_code=answer.status, headers=headers, media_type=media_type)


def _read_key(request: Request) -> str | None:
    text = request.headers.get("idempotency-key")
    if text is None:
        return None
    if re.fullmatch(_KEY_PATTERN, text) is None:
        raise ProblemError(
            422,
            "header.idempotency-key: it has 1 to 255 visible characters of ASCII, no quotes, no backslashes",
            "send a UUID, for instance",
        )
    return text.strip('"')


def _make_digest(request: Request) -> bytes:
    """Make a digest of all that was asked: of the body, the part that was read."""
    body = getattr(request.state, "body_digest", None)
    parts = [request.method, str(request.url.path), request.url.query, request.headers.get("if-match", "")]
    head = "\0".join(parts).encode("utf-8", "surrogatepass")
    return sha256(sha256(head).digest() + (b"" if body is None else body.digest())).digest()


def _clean(text: str) -> str:
    """Make a text of somebody's such as PostgreSQL takes, and not too long."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()[:_LONGEST]
