"""Jobs that were made through the service: what plans of files say of them, and how they become a file's."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import yaml

from reconciler.core.diff import diff
from reconciler.core.imports.entries import find_service_jobs
from reconciler.core.names import API_OWNER
from reconciler.core.service_jobs import find_service_notices
from reconciler.loader.job_schema import describe_job
from reconciler.loader.written_specs import make_declaration, render_sections
from tests.core_builders import (
    make_definition,
    make_desired_state,
    make_document,
    make_entry,
    make_facts,
    make_observed,
    make_scheduled,
)

ENTRY = make_entry("a", 1)
OURS = make_definition("a", owner=API_OWNER, entry=ENTRY)
OTHER = make_definition("b", owner=API_OWNER)


def test_a_plan_of_files_names_them() -> None:
    """Once for all of them, without those that the files declare too, and without the tool's own entries."""
    own = make_definition("reconciler-tick", owner=API_OWNER)
    theirs = make_definition("c", owner="kitchen")
    observed = make_observed(OURS, OTHER, own, theirs, entries=(ENTRY,))
    (both,) = find_service_notices(make_desired_state(), observed)
    assert (both.code, both.names) == ("service_jobs", ("a", "b"))
    assert both.message == (
        "2 jobs of the owner api, made through the service, are on this target; "
        "reconciler import --owner api writes them to a file"
    )
    (one,) = find_service_notices(make_desired_state(make_scheduled("a")), observed)
    assert one.message.startswith("1 job of the owner api, made through the service, is on this target")


def test_who_does_not_have_to_know_is_not_told() -> None:
    """The service itself, a part of what is declared, and a target without such jobs."""
    observed = make_observed(OURS, entries=(ENTRY,))
    assert not [*find_service_notices(replace(make_desired_state(), owner=API_OWNER), observed)]
    assert not [*find_service_notices(replace(make_desired_state(), unselected={}), observed)]
    assert not [*find_service_notices(make_desired_state(), make_observed())]


def test_files_that_declare_the_same_take_it_over() -> None:
    """The entry stays as it is, and the plan has nothing to change."""
    (change,) = diff(
        make_desired_state(make_scheduled("a", document=OURS.document)),
        make_observed(OURS, entries=(ENTRY,)),
    )
    assert (change.action, change.reason, change.obstacle) == ("adopt", "adopted", None)


def test_files_that_declare_another_job_take_it_over_by_name() -> None:
    """The difference is told, and refused until a person names the job."""
    desired = make_desired_state(make_scheduled("a", document=make_document(sql="SELECT 2")))
    observed = make_observed(OURS, entries=(ENTRY,))
    (change,) = diff(desired, observed)
    assert change.obstacle is not None
    assert change.obstacle.why == "the service made a job a, and it is another one"
    (named,) = diff(desired, observed, adopt=["a"])
    assert (named.action, named.obstacle) == ("update", None)


@pytest.mark.parametrize("kind", ["queue", "worker", "channel"])
def test_other_kinds_of_that_owner_are_another_owners(kind: Any) -> None:
    """The service makes jobs and nothing else."""
    observed = make_observed(replace(OURS, kind=kind), entries=(ENTRY,))
    (change,) = diff(make_desired_state(make_scheduled("a")), observed, adopt=["a"])
    assert change.obstacle is not None
    assert "belongs to the owner api" in change.obstacle.why


def test_they_are_found_as_declared() -> None:
    """Sorted, with the role where files would give another one; of no other owner, and of no other kind."""
    role = make_facts().role
    ours = replace(OURS, entry=replace(ENTRY, username=role))
    lent = make_definition(
        "lent", owner=API_OWNER, entry=make_entry("lent", 2, username="bob"), document=OURS.document
    )
    observed = make_observed(
        lent,
        ours,
        OTHER,
        make_definition("q", owner=API_OWNER, kind="queue"),
        make_definition("reconciler-tick", owner=API_OWNER),
        make_definition("theirs", owner="kitchen"),
    )
    found = find_service_jobs(observed)
    assert list(found) == ["a", "b", "lent"]
    assert found["a"] == json.loads(ours.document)
    assert found["lent"] == {**json.loads(OURS.document), "role": "bob"}
    assert "role" not in find_service_jobs(observed, role="bob")["lent"]
    assert find_service_jobs(observed, role="bob")["a"]["role"] == role


def test_a_declaration_holds_no_variables() -> None:
    """What looks like one is escaped, in SQL only where it would be one; when it runs comes first."""
    stored = {
        "description": "costs ${5}",
        "payload": {"list": ["${var:x}", 1, None]},
        "schedule": "0 0 * * *",
        "sql": "SELECT '${5}', '${var:x}'",
    }
    declaration = make_declaration(stored)
    assert list(declaration) == ["description", "schedule", "payload", "sql"]
    assert declaration == {
        "description": "costs $${5}",
        "payload": {"list": ["$${var:x}", 1, None]},
        "schedule": "0 0 * * *",
        "sql": "SELECT '${5}', '$${var:x}'",
    }
    text = render_sections({"jobs": {"a": declaration}, "workers": {}})
    assert yaml.safe_load(text) == {"jobs": {"a": declaration}}


def test_the_schema_of_a_job_refers_to_nothing() -> None:
    """It stands by itself, knows no variables, and nothing that means something in files alone."""
    schema = describe_job("name", "title")
    text = json.dumps(schema)
    assert "$ref" not in text
    assert "${" not in text
    assert {"name", "title", "schedule", "sql", "alert"} <= schema["properties"].keys()
    assert not {"targets", "overrides", "renamed_from"} & schema["properties"].keys()
    assert "token" not in schema["properties"]["http"]["properties"]
    schema["properties"].clear()
    assert describe_job()["properties"]
