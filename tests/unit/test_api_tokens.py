from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import api_tokens
from reconciler.core.api_tokens import (
    SCOPES,
    ApiToken,
    find_state,
    is_match,
    make_digest,
    make_token,
    parse_token,
    read_scopes,
)

if TYPE_CHECKING:
    from reconciler.core.api_tokens import GivenToken

NOW = datetime(2026, 12, 1, 8, tzinfo=UTC)
ONE = make_token(bytes(10), bytes(range(32)))


def keep(
    made: GivenToken, *, expires_at: datetime | None = None, revoked_at: datetime | None = None
) -> ApiToken:
    """Make the row of a token."""
    return ApiToken(
        id=made.id,
        name="ci",
        digest=make_digest(made),
        scopes=("read",),
        created_at=NOW,
        created_by="anna",
        expires_at=expires_at,
        revoked_at=revoked_at,
        last_used_at=None,
    )


def test_a_token_is_its_mark_its_id_and_its_secret() -> None:
    """So that scanners of leaked secrets know it, and its row is found without what opens."""
    text = ONE.render().reveal()
    assert text == "rct_aaaaaaaaaaaaaaaa_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert repr(ONE) == "GivenToken(id='aaaaaaaaaaaaaaaa', secret=***)"


@given(st.binary(min_size=10, max_size=10), st.binary(min_size=32, max_size=32))
def test_what_was_made_reads_back(id_bytes: bytes, secret_bytes: bytes) -> None:
    """Whatever chance gives."""
    made = make_token(id_bytes, secret_bytes)
    assert parse_token(made.render().reveal()) == made


@pytest.mark.parametrize(("id_bytes", "secret_bytes"), [(b"", bytes(32)), (bytes(10), bytes(31))])
def test_a_token_has_its_length(id_bytes: bytes, secret_bytes: bytes) -> None:
    """One that could be guessed is not made."""
    with pytest.raises(ValueError, match="10 and 32 bytes"):
        make_token(id_bytes, secret_bytes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rct_",
        ONE.render().reveal() + "x",
        ONE.render().reveal() + "\n",
        " " + ONE.render().reveal(),
        ONE.render().reveal().replace("rct", "RCT"),
        ONE.render().reveal().replace("aaaaaaaaaaaaaaaa", "AAAAAAAAAAAAAAAA"),
        ONE.render().reveal().replace("aaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaa1a"),
        ONE.render().reveal()[:-1] + "\N{LATIN SMALL LETTER O WITH STROKE}",
    ],
)
def test_what_is_no_token_is_none(text: str) -> None:
    """Also what is one but for a letter."""
    assert parse_token(text) is None


def test_only_the_digest_of_the_secret_is_kept() -> None:
    """It is the plain SHA-256 of its text, so that other programs can make tokens too."""
    assert make_digest(ONE) == sha256(ONE.secret.reveal().encode()).digest()


def test_the_secret_decides() -> None:
    """Another secret with the same id is another token; so is any where there is none."""
    other = make_token(bytes(10), bytes(32))
    assert other.id == ONE.id
    assert is_match(ONE, keep(ONE))
    assert not is_match(other, keep(ONE))
    assert not is_match(ONE, None)


def test_an_unknown_token_costs_the_same_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time does not tell whether there is a token of that id."""
    compared: list[tuple[int, int]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr("hmac.compare_digest", compare)
    for kept in (keep(ONE), keep(make_token(bytes(10), bytes(32))), None):
        is_match(ONE, kept)
    assert compared == [(32, 32)] * 3


def test_nothing_matches_where_there_is_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a secret with the digest that stands for none."""
    monkeypatch.setattr(api_tokens, "make_digest", lambda _: api_tokens.UNKNOWN_DIGEST)
    assert not is_match(ONE, None)


@pytest.mark.parametrize(
    ("expires_at", "revoked_at", "state"),
    [
        (None, None, "good"),
        (NOW + timedelta(microseconds=1), None, "good"),
        (NOW, None, "expired"),
        (None, NOW, "revoked"),
        (NOW, NOW, "revoked"),
    ],
)
def test_a_token_is_good_until_its_end(
    expires_at: datetime | None, revoked_at: datetime | None, state: str
) -> None:
    """At the instant of its end it is over."""
    assert find_state(keep(ONE, expires_at=expires_at, revoked_at=revoked_at), NOW) == state


def test_scopes_are_read_in_their_order() -> None:
    """Each once, whatever the order in which they were given."""
    assert read_scopes(["run", "read", "run"]) == ("read", "run")
    assert read_scopes(reversed(SCOPES)) == SCOPES


@pytest.mark.parametrize(("names", "why"), [([], "needs a scope"), (["read", "admin"], "no scope admin")])
def test_what_is_no_scope_is_refused(names: list[str], why: str) -> None:
    """The message lists those that there are."""
    with pytest.raises(ValueError, match=why) as caught:
        read_scopes(names)
    assert "read, trigger, write, run" in str(caught.value)
