"""An endpoint that tells the token that it got does not bring it into the log of runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from tests.canary import CANARY, read_everything
from tests.declared import Site, job
from tests.pg_net import STAND_IN, answer
from tests.runs import call, tick

if TYPE_CHECKING:
    from tests.servers import Database

pytestmark = pytest.mark.one_server

LOG: LiteralString = (
    "SELECT status, error_message, error_detail FROM reconciler.cron_execution_log ORDER BY id DESC LIMIT 1"
)
TOKEN = f'{CANARY}"quoted'
PUT: LiteralString = "INSERT INTO reconciler.secrets (name, value) VALUES ('token', %s)"


@pytest.fixture
def sent(database: Database) -> Site:
    """A database with the stand-in for pg_net, where a request with a token waits for its answer."""
    site = Site(database)
    site.run(STAND_IN)
    site.apply(job("a", http={"url": "https://a.test/", "token": {"secret": "token"}}))
    site.run(PUT, TOKEN)
    assert call(site) is None
    return site


@pytest.mark.parametrize("spell", [str, json.dumps])
@pytest.mark.parametrize("field", ["content", "error_msg"])
def test_a_token_is_taken_out_of_an_answer(sent: Site, spell: Any, field: str) -> None:
    """As it is, and as JSON spells it; also out of what pg_net says where there is none."""
    told = f"no, not {spell(f'Bearer {TOKEN}')}, {'x' * 3000}"
    answer(sent, 500 if field == "content" else None, **{"content": "", field: told})
    tick(sent)
    [(status, message, detail)] = sent.rows(LOG)
    assert status == "failed"
    assert "Bearer ***" in (detail if field == "content" else message)
    assert len(detail or "") <= 2000
    sent.run("TRUNCATE net._http_response")  # pg_net's own, for some hours
    assert CANARY not in read_everything(sent)


def test_where_the_token_cannot_be_read_the_answer_is_not_kept(sent: Site) -> None:
    """Nothing tells what of it would be the token."""
    sent.run("DELETE FROM reconciler.secrets")
    answer(sent, 500, content=f"no, not {CANARY}")
    tick(sent)
    assert sent.rows(LOG) == [
        (
            "failed",
            "the endpoint answered 500, not 2xx",
            "(not shown, since the token that was sent cannot be read any more)",
        )
    ]


def test_an_answer_without_the_token_is_kept(sent: Site) -> None:
    """It is there to be read."""
    answer(sent, 500, content="out of stock")
    tick(sent)
    assert sent.rows(LOG) == [("failed", "the endpoint answered 500, not 2xx", "out of stock")]


def test_nobody_else_may_ask_what_is_in_a_text(sent: Site) -> None:
    """The function would tell whether a guess is right."""
    sent.run("CREATE ROLE guesser LOGIN; GRANT USAGE ON SCHEMA reconciler TO guesser")
    [(allowed,)] = sent.rows(
        "SELECT has_function_privilege('guesser', 'reconciler.hide_secret(text, text)', 'EXECUTE')"
    )
    assert allowed is False
