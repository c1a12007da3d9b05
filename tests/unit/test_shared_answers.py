"""Answers that are made once for all who ask."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from reconciler.errors import BusyError
from reconciler.runtime.shared_answers import SharedAnswers
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable


class Maker:
    """Makes numbers, when it may.

    Attributes:
        now: The clock.
        gate: What a number waits for.
        begun: How many were begun.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.gate = threading.Event()
        self.gate.set()
        self.begun = 0
        self.error: BaseException | None = None
        self.answers = SharedAnswers(lambda: self.now)

    def make(self) -> int:
        """Make the next number, or fail."""
        self.begun += 1
        number = self.begun
        assert self.gate.wait(10)
        if self.error is not None:
            raise self.error
        return number

    def find(self, *, patience: float = 10, stale: float = 0) -> tuple[int, float]:
        """Ask for a number."""
        kept = self.answers.find("number", self.make, max_age=5, patience=patience, stale=stale)
        return kept.value, kept.age


@pytest.fixture
def maker() -> Maker:
    """What makes numbers."""
    return Maker()


def count_waiting(maker: Maker) -> int:
    """Count who waits for the number that is being made."""
    pending = maker.answers._pending.get("number")
    return 0 if pending is None else len(pending._waiters)


def ask(pool: ThreadPoolExecutor, maker: Maker, count: int, **options: float) -> Callable[[], list[object]]:
    """Let many ask while the gate is closed; the result waits for their answers."""
    asked = [pool.submit(maker.find, **options) for _ in range(count)]
    wait_until(lambda: count_waiting(maker) == count, seconds=5, what="all wait")
    return lambda: [one.exception(10) or one.result() for one in asked]


def test_an_answer_is_kept_for_a_while(maker: Maker) -> None:
    """Up to its age; then another is made."""
    assert maker.find() == (1, 0)
    maker.now = 5
    assert maker.find() == (1, 5)
    maker.now = 5.1
    assert maker.find() == (2, 0)


def test_all_who_ask_at_once_get_the_same(maker: Maker) -> None:
    """Its age counts from when it was begun, since it may tell what was so then."""
    maker.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        results = ask(pool, maker, 8)
        maker.now = 2
        maker.gate.set()
        assert results() == [(1, 2)] * 8
    assert maker.begun == 1


def test_a_failure_is_heard_by_all_who_wait_and_not_kept(maker: Maker) -> None:
    """Whatever it is; the next one who asks tries anew."""
    for error in (ValueError("no"), TimeoutError("no"), KeyboardInterrupt()):
        maker.begun = 0
        maker.error = error
        maker.gate.clear()
        with ThreadPoolExecutor(4) as pool:
            results = ask(pool, maker, 4)
            maker.gate.set()
            assert results() == [error] * 4
        assert maker.begun == 1
    maker.error = None
    assert maker.find() == (2, 0)


def test_nobody_waits_for_longer_than_they_want(maker: Maker) -> None:
    """What takes too long is not begun a second time, and told to who asks when it is there."""
    maker.gate.clear()
    for _ in range(3):
        with pytest.raises(BusyError, match=r"no answer within 0\.05 s"):
            maker.find(patience=0.05)
    maker.gate.set()
    assert maker.find() == (1, 0)
    assert maker.begun == 1


def test_the_one_before_is_told_while_a_new_one_is_made(maker: Maker) -> None:
    """To those who come meanwhile, where it is not too old; who came first waits."""
    maker.find()
    maker.now, maker.begun = 20, 0
    maker.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        first = ask(pool, maker, 1, stale=30)
        assert maker.find(stale=30) == (1, 20)
        with pytest.raises(BusyError):
            maker.find(stale=10, patience=0.05)
        maker.gate.set()
        assert first() == [(1, 0)]
    assert maker.begun == 1


def test_names_have_nothing_to_do_with_each_other(maker: Maker) -> None:
    """Each has its own answer."""
    maker.find()
    assert maker.answers.find("other", lambda: "x", max_age=5, patience=5).value == "x"
    assert maker.find() == (1, 0)


def test_no_more_threads_is_told(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """And leaves nothing behind that others would wait for."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(BusyError, match="can start no more threads"):
            maker.find()
    assert maker.find() == (1, 0)
