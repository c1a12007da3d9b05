"""What an alert says to the person whom it wakes: what, where, when, why, and how to look.

Knows neither the channel nor the database that it comes from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from datetime import datetime

Tone = Literal["failure", "warning", "success", "info"]

TONES: dict[str, Tone] = {
    "failed": "failure",
    "missed": "failure",
    "lost": "failure",
    "slow": "warning",
    "drift": "warning",
    "recovered": "success",
    "test": "info",
}
"""How bad each kind of alert is."""

_VERBS = {
    "failed": "failed",
    "missed": "missed a run",
    "lost": "was lost while it ran",
    "slow": "is slow",
    "drift": "was changed behind the files' back",
    "recovered": "recovered",
}
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_LINES = 5
_WIDTH = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Something that somebody has to hear of.

    Attributes:
        kind: failed, missed, slow, lost, recovered, drift or test.
        job_name: Of the job; of the channel for a test.
        message: One sentence, then perhaps more lines.
        occurrences: How often it was seen since it was opened.
        opened_at: When it was first seen.
        last_seen_at: When it was last seen.
        resolved_at: When it was over; None while it is open.
    """

    kind: str
    job_name: str
    message: str
    occurrences: int
    opened_at: datetime
    last_seen_at: datetime
    resolved_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """The run that an alert is about.

    Attributes:
        run_id: Its number in the log.
        run_at: When it began.
        completed_at: When it ended; None while it runs.
        status: Of the run.
        trigger: What it was started for.
        attempt: Which attempt it was, from 1.
        error_sqlstate: The code of its error.
        error_message: What it failed with.
        error_detail: More about it.
    """

    run_id: int
    run_at: datetime
    completed_at: datetime | None
    status: str
    trigger: str
    attempt: int
    error_sqlstate: str | None
    error_message: str | None
    error_detail: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A text for a channel.

    Attributes:
        title: One line.
        body: Plain text.
        tone: How bad it is.
    """

    title: str
    body: str
    tone: Tone


def make_message(
    alert: Alert, run: RunFacts | None, *, target: str, database: str, reminder: int = 0
) -> Message:
    """Make the text of an alert.

    Args:
        alert: What to tell.
        run: The run that it is about; None where there is none, or where the log forgot it.
        target: The target's name in the configuration.
        database: The database's name.
        reminder: 0 for the first message, then 1 and so on.

    Returns:
        The text, plain and short enough for a chat.
    """
    where = f"{target}, database {database}"
    if alert.kind == "test":
        return Message(
            title=f"[{target}] Test of {alert.job_name}",
            body=_join(_shorten(alert.message), _table([("target", where)])),
            tone="info",
        )
    name, option = alert.job_name, f"--target {target}"
    over = ""
    prefix = f"Reminder {reminder}: " if reminder else ""
    if alert.resolved_at is not None and alert.kind != "recovered":
        over = f"It was over at {_instant(alert.resolved_at)}, before this message could be sent."
        prefix = "Over: "
    steps = [("look", f"reconciler {'drift' if alert.kind == 'drift' else f'runs {name}'} {option}")]
    if alert.kind not in ("recovered", "drift"):
        steps.append(("run again", f"reconciler run {name} {option}"))
    return Message(
        title=f"[{target}] {prefix}{name} {_VERBS.get(alert.kind, alert.kind)}",
        body=_join(
            _shorten(alert.message),
            over,
            _table(_facts(alert, run, where)),
            _error(alert, run),
            _table(steps),
        ),
        tone=TONES.get(alert.kind, "failure"),
    )


def _facts(alert: Alert, run: RunFacts | None, where: str) -> list[tuple[str, str]]:
    rows = [("job", alert.job_name), ("target", where), ("since", _instant(alert.opened_at))]
    if alert.occurrences > 1:
        rows.append(("seen", f"{alert.occurrences} times, last {_instant(alert.last_seen_at)}"))
    if run is not None:
        rows.append(("run", f"{run.run_id}, {_describe_run(run)}"))
        rows.append(("began", _instant(run.run_at)))
        if run.error_sqlstate:
            rows.append(("sqlstate", run.error_sqlstate))
    return rows


def _describe_run(run: RunFacts) -> str:
    parts = [run.status.replace("_", " "), f"trigger {run.trigger.replace('_', ' ')}"]
    if run.completed_at is not None:
        parts[0] += f" after {_duration(run.completed_at - run.run_at)}"
    if run.attempt > 1:
        parts.append(f"attempt {run.attempt}")
    return ", ".join(parts)


def _error(alert: Alert, run: RunFacts | None) -> str:
    """Show what the message does not say already."""
    texts = [run.error_message, run.error_detail] if run is not None else []
    return "\n".join(_shorten(text) for text in texts if text and text not in alert.message)


def _join(*blocks: str) -> str:
    return "\n\n".join(block for block in blocks if block)


def _table(rows: list[tuple[str, str]]) -> str:
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label.ljust(width)}  {text}" for label, text in rows)


def _shorten(text: str) -> str:
    """Keep the first lines of a text, without characters that steer a terminal."""
    lines = [_CONTROL.sub("?", line).rstrip() for line in text.strip().splitlines()]
    shown = [line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…" for line in lines[:_LINES]]
    return "\n".join([*shown, "…"] if len(lines) > _LINES else shown)


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _duration(took: timedelta) -> str:
    seconds = took.total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s"
    return str(timedelta(seconds=round(seconds)))
