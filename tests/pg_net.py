"""A stand-in for pg_net, which cannot be had here.

It has functions and tables with the signatures that the documentation gives, and a test plays its worker.
What that does between queue and answer is not tested.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

if TYPE_CHECKING:
    from tests.declared import Site

STAND_IN: LiteralString = """
CREATE SCHEMA net;
CREATE UNLOGGED TABLE net.http_request_queue (
    id bigserial, method text, url text, headers jsonb, body jsonb, timeout_milliseconds integer);
CREATE UNLOGGED TABLE net._http_response (
    id bigint, status_code integer, content_type text, headers jsonb, content text, timed_out boolean,
    error_msg text, created timestamptz NOT NULL DEFAULT now());
CREATE FUNCTION net.http_post(
    url text, body jsonb DEFAULT '{}', params jsonb DEFAULT '{}',
    headers jsonb DEFAULT '{"Content-Type": "application/json"}', timeout_milliseconds integer DEFAULT 5000
) RETURNS bigint LANGUAGE sql AS $$
    INSERT INTO net.http_request_queue (method, url, headers, body, timeout_milliseconds)
    VALUES ('POST', url, headers, body, timeout_milliseconds) RETURNING id
$$;
CREATE FUNCTION net.http_get(
    url text, params jsonb DEFAULT '{}', headers jsonb DEFAULT '{}', timeout_milliseconds integer DEFAULT 5000
) RETURNS bigint LANGUAGE sql AS $$
    INSERT INTO net.http_request_queue (method, url, headers, timeout_milliseconds)
    VALUES ('GET', url, headers, timeout_milliseconds) RETURNING id
$$;
CREATE FUNCTION net.http_delete(
    url text, params jsonb DEFAULT '{}', headers jsonb DEFAULT '{}',
    timeout_milliseconds integer DEFAULT 5000, body jsonb DEFAULT NULL
) RETURNS bigint LANGUAGE sql AS $$
    INSERT INTO net.http_request_queue (method, url, headers, body, timeout_milliseconds)
    VALUES ('DELETE', url, headers, body, timeout_milliseconds) RETURNING id
$$;
"""


def answer(site: Site, status: int | None = 200, **fields: Any) -> list[dict[str, Any]]:
    """Do the worker's part: take all requests from the queue, and answer each.

    Args:
        site: Where.
        status: The answer's; None for no answer.
        **fields: Other columns of the answer.

    Returns:
        The requests.
    """
    taken = site.rows(
        "WITH q AS (DELETE FROM net.http_request_queue q RETURNING q.*) SELECT to_jsonb(q) FROM q"
    )
    for (request,) in taken:
        values = {"content": "fine", "timed_out": False, "error_msg": None, **fields}
        site.run(
            "INSERT INTO net._http_response (id, status_code, content, timed_out, error_msg)"
            " VALUES (%s, %s, %s, %s, %s)",
            *(request["id"], status, values["content"], values["timed_out"], values["error_msg"]),
        )
    return [request for (request,) in taken]
