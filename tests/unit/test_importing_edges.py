"""Workers that were made in SQL become declarations, tokens and all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reconciler.core.canonical import render_canonical
from reconciler.core.imports.entries import import_entries
from reconciler.core.names import SQL_OWNER
from tests.core_builders import make_definition, make_entry, make_facts, make_observed

if TYPE_CHECKING:
    from reconciler.core.state import Definition, Entry

URL = "https://app.test/run?x=${x}"
STORED = {"url": URL, "schedule": "* * * * *", "token": {"secret": "worker.send"}}
ROLE = make_facts().role


def worker(name: str = "send", stored: dict[str, Any] = STORED, **changed: Any) -> tuple[Definition, Entry]:
    """Make a worker as SQL does: its definition, and its entry with what people changed of that."""
    applied = make_entry(name, 1, schedule="* * * * *", username=ROLE)
    entry = make_entry(name, 1, **{"schedule": "* * * * *", "username": ROLE, **changed})
    document = render_canonical(stored)
    definition = make_definition(name, kind="worker", owner=SQL_OWNER, document=document, entry=applied)
    return definition, entry


def test_a_worker_is_declared_as_it_is() -> None:
    """Its token stays where it is, under the name that it has there; its address holds no variable."""
    definition, entry = worker()
    imported = import_entries(make_observed(definition, entries=(entry,)))
    assert imported.workers == {"send": {**STORED, "url": "https://app.test/run?x=$${x}"}}
    assert imported.secrets == ("worker.send",)
    assert (imported.jobs, imported.left) == ({}, ())


def test_what_is_unusual_of_a_worker_is_declared() -> None:
    """Another role, another schedule and inactivity, as cron.job has them now; without a token no secret."""
    definition, entry = worker(
        stored={"url": "https://app.test/", "schedule": "* * * * *"},
        schedule="*/5 * * * *",
        username="else",
        active=False,
    )
    imported = import_entries(make_observed(definition, entries=(entry,)))
    assert imported.workers == {
        "send": {"schedule": "*/5 * * * *", "url": "https://app.test/", "role": "else", "active": False}
    }
    assert imported.secrets == ()


def test_a_worker_that_was_unscheduled_is_left() -> None:
    """Its row is forgotten in SQL, where it was made."""
    definition, _ = worker()
    (left,) = import_entries(make_observed(definition)).left
    assert left.reason == "it was unscheduled; SELECT reconciler.drop_queue_worker('send') forgets it"


def test_a_worker_whose_schedule_is_unsound_is_left() -> None:
    """With what is wrong with it."""
    definition, entry = worker(schedule="0 0 * * 1#2")
    imported = import_entries(make_observed(definition, entries=(entry,)))
    assert imported.workers == {}
    assert imported.left[0].reason.startswith("its schedule '0 0 * * 1#2': ")


def test_a_worker_that_never_had_an_entry_is_passed_over() -> None:
    """There is nothing that runs."""
    definition = make_definition("send", kind="worker", owner=SQL_OWNER, document=render_canonical(STORED))
    imported = import_entries(make_observed(definition))
    assert (imported.jobs, imported.workers, imported.left) == ({}, {}, ())
