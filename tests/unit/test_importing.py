"""Which entries become declarations, and why others do not."""

from __future__ import annotations

import pytest

from reconciler.core.imports.entries import import_entries
from reconciler.core.state import Definition, Entry, ObservedState
from tests.core_builders import make_facts, make_observed


def make_entry(jobid: int = 1, **changed: object) -> Entry:
    """Make an entry as a person makes one: five past four, as the connected role."""
    facts = make_facts()
    fields = {
        "name": "tidy",
        "schedule": "5 4 * * *",
        "command": "VACUUM",
        "database": facts.database,
        "username": facts.role,
        "active": True,
        **changed,
    }
    return Entry(jobid=jobid, **fields)  # type: ignore[arg-type] # the tests give what fits


def observe(*entries: Entry, definitions: tuple[Definition, ...] = ()) -> ObservedState:
    """Make the observed state of these entries."""
    return make_observed(*definitions, entries=entries)


def make_definition(name: str, entry: Entry | None = None) -> Definition:
    """Make a definition of another owner."""
    return Definition(
        name=name, kind="job", owner="them", document="{}", intact=True, entry=entry, protect=False, source=""
    )


def test_an_entry_is_declared_as_it_is() -> None:
    """The command stays as it was, so the mode is direct; what is as usual is left out."""
    imported = import_entries(observe(make_entry()))
    assert imported.jobs == {"tidy": {"schedule": "5 4 * * *", "sql": "VACUUM", "mode": "direct"}}
    assert imported.left == ()


def test_what_is_unusual_is_declared() -> None:
    """Another role, another database and inactivity are written down."""
    entry = make_entry(username="else", database="other", active=False)
    assert import_entries(observe(entry)).jobs["tidy"] == {
        "schedule": "5 4 * * *",
        "sql": "VACUUM",
        "mode": "direct",
        "role": "else",
        "database": "other",
        "active": False,
    }


def test_the_role_of_the_target_is_not_declared() -> None:
    """Entries of the role that the target names anyway need no role of their own."""
    imported = import_entries(observe(make_entry(username="runner")), role="runner")
    assert "role" not in imported.jobs["tidy"]


def test_commands_are_kept_from_variables() -> None:
    """What looks like a variable in a command is escaped."""
    imported = import_entries(observe(make_entry(command="SELECT '${var:x} $${var:y}'")))
    assert imported.jobs["tidy"]["sql"] == "SELECT '$${var:x} $$${var:y}'"


def test_the_order_is_that_of_the_names() -> None:
    """The same entries give the same file, whatever their jobids."""
    imported = import_entries(observe(make_entry(1, name="b"), make_entry(2, name="a")))
    assert list(imported.jobs) == ["a", "b"]


def test_what_is_declared_is_not_imported() -> None:
    """An entry that has a definition is neither imported nor reported."""
    entry = make_entry()
    imported = import_entries(observe(entry, definitions=(make_definition("tidy", entry),)))
    assert (imported.jobs, imported.left) == ({}, ())


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"name": ""}, "no name"),
        ({"name": "Tidy Up"}, "lower-case"),
        ({"name": "reconciler-mine"}, "the tool's own"),
        ({"schedule": "0 0 * * 1#2"}, "correct it first"),
        ({"schedule": "0 0 * * sat-sun"}, "as '0 0 * * "),
    ],
)
def test_what_cannot_be_declared_is_left_with_a_reason(changed: dict[str, str], words: str) -> None:
    """Nothing is guessed: what our files cannot say is reported."""
    imported = import_entries(observe(make_entry(1, **changed)))
    assert imported.jobs == {}
    assert words in imported.left[0].reason


def test_a_declared_name_is_left() -> None:
    """An entry whose name another resource has already is reported with the owner of that."""
    imported = import_entries(observe(make_entry(), definitions=(make_definition("tidy"),)))
    assert "owner them" in imported.left[0].reason


def test_one_name_of_two_roles_is_imported_once() -> None:
    """Of two entries of one name the second is reported with its role."""
    imported = import_entries(observe(make_entry(1), make_entry(2, username="else")))
    assert list(imported.jobs) == ["tidy"]
    assert "belongs to else" in imported.left[0].reason
