"""What the commands share that go on until a signal: the loop, its end, and what they tell line by line."""

from __future__ import annotations

import json
import random
import signal
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import click

from reconciler.cli.parameters import read_duration
from reconciler.errors import InvalidInputError, ReconcilerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    import psycopg

    from reconciler.cli.session import Session


class Stopped(KeyboardInterrupt):
    """A signal came: whatever goes on ends here, and an open transaction is rolled back."""


class Stop:
    """A block that ends at the first SIGTERM or SIGINT: at once, or after what must not be cut short."""

    def __init__(self) -> None:
        self._is_wanted = False
        self._is_shielded = False

    def __enter__(self) -> Self:
        """Begin to hear signals."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        """End the block where a signal ended it; the process is about to end, and hears no more of them."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN if kind is Stopped else signal.SIG_DFL)
        return kind is Stopped

    def is_wanted(self) -> bool:
        """Tell whether a signal came."""
        return self._is_wanted

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Let what is done inside come to its end; a second signal cuts it short all the same."""
        self._is_shielded = True
        try:
            yield
        finally:
            self._is_shielded = False

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        is_first, self._is_wanted = not self._is_wanted, True
        if not (is_first and self._is_shielded):
            raise Stopped


class Journal:
    """Prints what a loop has to tell, a line each with its time, and the same thing once.

    Args:
        target: The target's name.
        as_json: Whether each line is a JSON document; then all of them go to standard output.
    """

    def __init__(self, target: str, *, as_json: bool) -> None:
        self._target = target
        self._as_json = as_json
        self._last: object = None
        self._standing = "nothing was found out yet"

    def tell(self, event: str, text: str, *, is_bad: bool = False, **values: Any) -> None:
        """Tell of an event.

        Args:
            event: One word for programs.
            text: For people; lines after the first stand below it.
            is_bad: Whether it goes to standard error.
            **values: More for programs.
        """
        from reconciler.cli.render_text import clean

        at = datetime.now(UTC)
        if self._as_json:
            document = {"at": at.isoformat(timespec="seconds"), "target": self._target, "event": event}
            click.echo(json.dumps({**document, **values}, ensure_ascii=False))
        else:
            # What is coloured was cleaned where it was rendered.
            first, *others = text.split("\n")
            line = clean(click.unstyle(first))
            colour = "red" if is_bad else None
            head = f"{at:%Y-%m-%d %H:%M:%SZ}  {click.style(f'{self._target}: {line}', fg=colour)}"
            click.echo("\n".join([head, *others]), err=is_bad)

    def tell_standing(
        self, key: object, event: str, text: str, *, is_bad: bool = False, **values: Any
    ) -> None:
        """Tell how things stand, unless that was the last that was told.

        Args:
            key: Equal for what is the same.
            event: As for `tell`.
            text: The same.
            is_bad: The same.
            **values: The same.
        """
        is_new = key != self._last
        self.stand(key, text)
        if is_new:
            self.tell(event, text, is_bad=is_bad, **values)

    def stand(self, key: object, text: str) -> None:
        """Note how things stand, as if it had been told.

        Args:
            key: Equal for what is the same.
            text: One line.
        """
        self._last, self._standing = key, text

    def complain(self, error: ReconcilerError, wait: timedelta) -> None:
        """Tell why a round failed; once for as long as it is the same.

        Args:
            error: Why.
            wait: Until the next round.
        """
        text = describe_error(error)
        later = f"{text} (the next try comes in {wait.total_seconds():.0f} s)"
        self.tell_standing(("failed", text), "failed", later, is_bad=True, message=text)

    def beat(self, rounds: int) -> None:
        """Tell that the loop goes on.

        Args:
            rounds: How many there were.
        """
        self.tell("alive", f"alive after {rounds:,} rounds: {self._standing}", rounds=rounds)


def describe_error(error: ReconcilerError) -> str:
    """Say in one line what an error says.

    Args:
        error: Any.

    Returns:
        The first of several problems, with their number; else the message and what to do.
    """
    if isinstance(error, InvalidInputError):
        more = len(error.problems) - 1
        text = error.problems[0] + (f" (and {more} more problems)" if more else "")
    else:
        text = f"{error.message}; {error.remedy}" if error.remedy else error.message
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())


def read_interval(_ctx: click.Context, _param: click.Parameter, value: str | None) -> timedelta | None:
    """Read the time between two rounds.

    Args:
        value: A duration; None where the option was not given.

    Returns:
        The duration.

    Raises:
        click.BadParameter: It is none, or too short.
    """
    from reconciler.runtime.rounds import SHORTEST

    if value is None:
        return None
    interval = read_duration(value)
    if interval < SHORTEST:
        raise click.BadParameter(f"{value} is too short: at least {SHORTEST.total_seconds():.0f}s")
    return interval


@contextmanager
def connect_warily(session: Session) -> Iterator[psycopg.Connection]:
    """Connect to a target so that a network that fell silent is noticed within seconds.

    Args:
        session: With the target.

    Yields:
        The connection, as `Session.connect` gives it.
    """
    from reconciler.database.connect import connect
    from reconciler.runtime.links import complete_dsn

    with connect(complete_dsn(session.find_dsn())) as conn:
        yield conn


def keep_on(turn: Callable[[], object], *, interval: timedelta, journal: Journal, stop: Stop) -> None:
    """Do rounds until a signal comes.

    Args:
        turn: One round.
        interval: Between the begins of two.
        journal: What tells of failures.
        stop: What hears signals.
    """
    from reconciler.runtime.rounds import run_rounds

    run_rounds(
        turn,
        interval=interval,
        complain=journal.complain,
        beat=journal.beat,
        monotonic=time.monotonic,
        pause=time.sleep,
        chance=random.random,
        is_stopping=stop.is_wanted,
    )
