from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.names import NAME_LIMIT, find_nearest, is_name


@pytest.mark.parametrize("text", ["a", "0", "a-b", "a.b_c-9", "a" * 63])
def test_a_name_is_small_letters_digits_dots_underscores_and_hyphens(text: str) -> None:
    """A name of up to 63 such characters is taken."""
    assert is_name(text)


@pytest.mark.parametrize(
    "text", ["", "-a", "a-", ".a", "a.", "_a", "A", "a b", "a'b", "a\n", "é", "٣", "a" * 64, "a/b"]
)
def test_other_texts_are_no_names(text: str) -> None:
    """What could be cut, quoted or confused is no name."""
    assert not is_name(text)


@given(st.text(max_size=70))
def test_a_name_is_as_long_in_bytes_as_in_characters(text: str) -> None:
    """Whatever is taken as a name fits pg_cron's 63 bytes and needs no quoting in SQL."""
    if is_name(text):
        assert len(text.encode()) <= NAME_LIMIT
        assert not set(text) & set("'\\\"\0 ")


def test_the_nearest_word_is_found() -> None:
    """A slip of the finger is told from a word that is not there at all."""
    words = ["schedule", "weekly", "daily"]
    assert find_nearest("shedule", words) == "schedule"
    assert find_nearest("zzz", words) == ""


@given(st.permutations(["nightly", "nightly-a", "nightly-b", "nightly-c"]))
def test_the_nearest_word_does_not_hang_on_the_order(words: list[str]) -> None:
    """Equally near words give the same answer in whatever order they come."""
    assert find_nearest("nightly-", words) == find_nearest("nightly-", sorted(words))
