"""Build specs, facts, entries and states for tests of the pure core; every argument has a default."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from reconciler.core.canonical import render_canonical
from reconciler.core.facts import Facts, Rights
from reconciler.core.specs import (
    Body,
    ChannelSpec,
    JobSpec,
    Kind,
    Mode,
    Place,
    QueueSpec,
    Schedule,
    SqlBody,
    Trigger,
    WorkerSpec,
    needs_runtime,
)
from reconciler.core.state import (
    Definition,
    DesiredResource,
    DesiredState,
    Entry,
    Notice,
    ObservedState,
    RowDrift,
)

OWNER = "shop"
ROLE = "deploy"
PLACE = Place(path="jobs.d/a.yaml", line=3, column=5)
ALL_RIGHTS = Rights(
    superuser=False,
    sees_all=True,
    use_cron=True,
    schedule=True,
    schedule_in_database=True,
    alter_job=True,
    update_entries=True,
    create_schema=True,
    write_definitions=True,
)
SUPERUSER = replace(ALL_RIGHTS, superuser=True)
SETTINGS = {"use_background_workers": "off", "timezone": "GMT", "launch_active_jobs": "on", "log_run": "on"}
"""What a server of pg_cron 1.6 shows to a role that may see it."""


def make_facts(rights: Rights = ALL_RIGHTS, **changed: Any) -> Facts:
    """Make the facts of a sound server with pg_cron 1.6."""
    facts = Facts(
        server_version=150020,
        database="app",
        role=ROLE,
        in_recovery=False,
        extension="1.6",
        extension_default="1.6",
        extensions=frozenset(),
        settings=SETTINGS,
        launcher_running=True,
        launcher_age=3600.0,
        preloaded=True,
        rights=rights,
    )
    return replace(facts, **changed)


def make_entry(name: str = "a", jobid: int | None = None, **changed: Any) -> Entry:
    """Make the entry of a managed job that runs as the role that applies."""
    entry = Entry(
        name=name,
        schedule="0 * * * *",
        command=f"CALL reconciler.run_job('{name}')",
        database="app",
        username=ROLE,
        active=True,
        jobid=jobid,
    )
    return replace(entry, **changed)


def make_document(**fields: Any) -> str:
    """Make a canonical document; by default that of a small job."""
    return render_canonical(fields or {"schedule": "0 * * * *", "sql": "SELECT 1"})


def make_resource(name: str = "a", *, entry: Entry | None = None, **changed: Any) -> DesiredResource:
    """Make a desired job without an entry."""
    resource = DesiredResource(kind="job", name=name, document=make_document(), place=PLACE, entry=entry)
    return replace(resource, **changed)


def make_scheduled(name: str = "a", *, document: str = "", **changed: Any) -> DesiredResource:
    """Make a desired job with its entry; what is changed is changed in the entry."""
    resource = make_resource(name, entry=make_entry(name, **{"username": "", **changed}))
    return replace(resource, document=document) if document else resource


def make_definition(name: str = "a", *, entry: Entry | None = None, **changed: Any) -> Definition:
    """Make an intact definition of our own."""
    definition = Definition(
        name=name,
        kind="job",
        owner=OWNER,
        document=make_document(),
        intact=True,
        entry=entry,
        protect=False,
        source=f"{PLACE.path}:{PLACE.line}",
    )
    return replace(definition, **changed)


def make_desired_state(*resources: DesiredResource, notices: tuple[Notice, ...] = ()) -> DesiredState:
    """Make a desired state of our owner, in the order given."""
    return DesiredState(
        owner=OWNER, resources={resource.name: resource for resource in resources}, notices=notices
    )


def make_observed(
    *definitions: Definition,
    entries: tuple[Entry, ...] = (),
    rows: tuple[RowDrift, ...] = (),
    settled: frozenset[str] = frozenset(),
    facts: Facts | None = None,
) -> ObservedState:
    """Make an observed state; entries are given with their jobids."""
    return ObservedState(
        facts=facts or make_facts(),
        definitions={definition.name: definition for definition in definitions},
        entries={entry.jobid: entry for entry in entries if entry.jobid is not None},
        drifted_rows={row.name: row for row in rows},
        settled=settled,
    )


def make_job(
    name: str = "a",
    *,
    trigger: Trigger | None = None,
    body: Body | None = None,
    mode: Mode = "managed",
    document: dict[str, Any] | None = None,
    **changed: Any,
) -> JobSpec:
    """Make a job spec: hourly SQL."""
    declared = document or json.loads(make_document())
    spec = JobSpec(
        name=name,
        place=PLACE,
        document=render_canonical(declared),
        needs_runtime=needs_runtime(declared),
        trigger=trigger or Schedule(text="0 * * * *"),
        body=body or SqlBody(text="SELECT 1"),
        mode=mode,
    )
    return replace(spec, **changed)


def make_other(kind: Kind, name: str) -> QueueSpec | ChannelSpec | WorkerSpec:
    """Make a queue, a channel or a worker."""
    if kind == "queue":
        return QueueSpec(name=name, place=PLACE, document="{}")
    if kind == "channel":
        return ChannelSpec(name=name, place=PLACE, document="{}")
    return WorkerSpec(name=name, place=PLACE, document="{}", schedule="* * * * *", queue="default")
