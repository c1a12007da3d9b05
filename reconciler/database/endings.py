"""How a run of people's own code ends, as the log keeps it; knows exceptions and no connection."""

from __future__ import annotations

import asyncio
import traceback
from dataclasses import dataclass, replace
from typing import Final, Literal

import psycopg
from psycopg import errors

Outcome = Literal["succeeded", "failed", "cancelled"]

_LONGEST_MESSAGE: Final = 10_000
_LONGEST_CONTEXT: Final = 8_000
_FRAMES: Final = 8
_CANCELLING: Final = (KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, errors.QueryCanceled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a run ends.

    Attributes:
        outcome: succeeded, failed or cancelled.
        message: Why; None for a success.
        sqlstate: Of an error of the server.
        detail: What the server added to it.
        context: Where it happened.
    """

    outcome: Outcome = "succeeded"
    message: str | None = None
    sqlstate: str | None = None
    detail: str | None = None
    context: str | None = None


def make_ending(error: BaseException, outcome: Outcome | None = None) -> Ending:
    """Describe how a run ends that an error ended.

    Args:
        error: What came out of the code.
        outcome: Where the caller knows it better; else an interrupt, and a statement that the server
            cancelled, are cancelled, and all else is failed.

    Returns:
        The ending. An error of the server speaks for itself; any other is told with its class, and with the
        end of its traceback as the context.
    """
    if outcome is None:
        outcome = "cancelled" if isinstance(error, _CANCELLING) else "failed"
    if isinstance(error, psycopg.Error) and error.sqlstate and error.diag.message_primary:
        return Ending(
            outcome=outcome,
            message=error.diag.message_primary,
            sqlstate=error.sqlstate,
            detail=error.diag.message_detail,
            context=error.diag.context,
        )
    name = type(error).__name__
    try:
        text = str(error).strip()
        context = "".join(traceback.format_exception(error, limit=-_FRAMES))
    except Exception:  # noqa: BLE001 - an error that cannot be shown must not hide that there was one
        text = context = ""
    return Ending(
        outcome=outcome,
        message=(f"{name}: {text}" if text else name)[:_LONGEST_MESSAGE],
        context=context[-_LONGEST_CONTEXT:] or None,
    )


def make_plain(ending: Ending) -> Ending:
    """Spell an ending so that every encoding can write it.

    Args:
        ending: With any characters.

    Returns:
        The same in ASCII, with escapes; without NUL, which PostgreSQL cannot keep.
    """
    return replace(
        ending,
        message=_spell(ending.message),
        detail=_spell(ending.detail),
        context=_spell(ending.context),
    )


def _spell(text: str | None) -> str | None:
    if text is None:
        return None
    return text.replace("\0", "\\0").encode("ascii", "backslashreplace").decode("ascii")
