"""Which secrets the database needs, and which of them it will not have."""

from __future__ import annotations

from reconciler.core.secret_needs import find_missing_secrets, list_needed_secrets
from reconciler.core.specs import ChannelSpec
from tests.core_builders import PLACE
from tests.declared import channel, job, queue, worker


def _channel(name: str, secret: str) -> ChannelSpec:
    return ChannelSpec(name=name, place=PLACE, document="{}", secret=secret, deliver="database")


SPECS = (
    job("b", http={"url": "https://a.test", "token": {"secret": "shared"}}),
    job("a", http={"url": "https://a.test", "token": {"secret": "shared"}}),
    job("open", http={"url": "https://a.test"}),
    job("sql"),
    queue("q"),
    worker("w", token={"secret": "run"}),
    worker("bare"),
    channel("ops"),
    _channel("pager", "page"),
)


def test_tokens_of_jobs_and_workers_and_channels_of_the_database_are_needed() -> None:
    """What another process sends needs no secret in the database."""
    assert list_needed_secrets(SPECS) == {"page": ("pager",), "run": ("w",), "shared": ("a", "b")}


def test_what_is_neither_stored_nor_given_is_said() -> None:
    """Each missing secret is named with those that will fail without it."""
    missing = find_missing_secrets(SPECS, stored={"page", "run"}, given=())
    assert [(notice.code, notice.names) for notice in missing] == [("secret", ("a", "b"))]
    assert "the secret shared" in missing[0].message
    assert find_missing_secrets(SPECS, stored=(), given=("page", "run", "shared")) == ()


def test_a_role_that_sees_no_secrets_is_told_so() -> None:
    """One notice names all that need secrets; none where nothing does."""
    (notice,) = find_missing_secrets(SPECS, stored=None, given=("page", "shared"))
    assert notice.names == ("a", "b", "pager", "w")
    assert "owner" in notice.message
    assert find_missing_secrets((job("sql"),), stored=None, given=()) == ()
