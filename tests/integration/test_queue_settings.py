"""Settings of queues, from the YAML to the row that claims go by: and back again when somebody edits them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest

from reconciler.core.specs import QueueSpec
from reconciler.loader.config import load_config, resolve_target
from reconciler.loader.specs import load_specs
from tests.declared import LATER, Site, once, queue

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.one_server


CONFIG = "owner: shop\ntargets: {test: {}, staging: {}}\ndefault_target: test\n"
SETTINGS: LiteralString = """
SELECT lease::text, timeout::text, keep_failed::text, held_by FROM reconciler.queues WHERE name = %s
"""
USUAL = ("00:00:30", "01:00:00", "30 days", ["retry"])


def load(folder: Path, text: str, target: str = "test") -> list[QueueSpec]:
    """Load the queues of a spec file."""
    (folder / "reconciler.yaml").write_text(CONFIG)
    (folder / "jobs.d").mkdir(exist_ok=True)
    (folder / "jobs.d" / "queues.yaml").write_text(text)
    config = load_config(folder / "reconciler.yaml")
    specs = load_specs(config, resolve_target(config, target, environment={}))
    return [spec for spec in specs if isinstance(spec, QueueSpec)]


@pytest.mark.parametrize(
    ("declared", "row"),
    [
        ("{}", USUAL),
        ("{lease: 90s}", ("00:01:30", *USUAL[1:])),
        ("{timeout: 2d}", (USUAL[0], "2 days", *USUAL[2:])),
        ("{keep_failed: 4w}", (*USUAL[:2], "28 days", USUAL[3])),
        ("{mode: blocking, held_by: [retry, failed, future]}", (*USUAL[:3], ["failed", "future", "retry"])),
        ("{held_by: []}", (*USUAL[:3], [])),
    ],
)
def test_what_a_file_says_is_what_claims_go_by(
    site: Site, tmp_path: Path, declared: str, row: tuple[Any, ...]
) -> None:
    """Each setting reaches the row of its queue; what is left out has its documented value."""
    specs = load(tmp_path, f"queues: {{a: {declared}}}")
    site.apply(*specs)
    assert site.rows(SETTINGS, "a") == [row]
    assert site.changes(*specs) == []
    found: LiteralString = (
        "SELECT lease::text, timeout::text, keep_failed::text, held_by FROM reconciler.find_queue('a')"
    )
    assert site.rows(found) == [row]


def test_a_queue_that_nobody_declared_has_the_same_values(site: Site) -> None:
    """Declaring a queue without settings changes nothing but that it is declared."""
    site.apply(queue("a"))
    columns: LiteralString = "SELECT to_jsonb(q) - 'name' FROM reconciler.find_queue(%s) AS q"
    assert site.rows(columns, "a") == site.rows(columns, "b")


def test_a_target_can_differ(site: Site, tmp_path: Path) -> None:
    """Overrides hold for the new settings too."""
    text = "queues: {a: {lease: 1m, overrides: {staging: {lease: 5m, held_by: [future]}}}}"
    site.apply(*load(tmp_path, text, "staging"))
    assert site.rows(SETTINGS, "a") == [("00:05:00", *USUAL[1:3], ["future"])]


def test_a_change_of_a_setting_is_one_field_of_the_plan(site: Site) -> None:
    """A reviewer sees which setting changes, from what to what; the row follows."""
    site.apply(queue("a", lease="1m", held_by=["retry"]))
    [change] = site.plan(queue("a", lease="2m", held_by=["failed", "retry"])).plan.changes
    assert [field.path for field in change.fields] == ["spec.held_by", "spec.lease"]
    site.apply(queue("a", lease="2m", held_by=["failed", "retry"]))
    assert site.rows(SETTINGS, "a") == [("00:02:00", *USUAL[1:3], ["failed", "retry"])]


@pytest.mark.parametrize(
    "edit",
    [
        "lease = '5 minutes'",
        "timeout = '5 minutes'",
        "keep_failed = '5 minutes'",
        "held_by = '{}'",
        "held_by = '{retry,failed}'",
        "held_by = '{retry,failed,future}'",
    ],
)
def test_a_row_that_somebody_edited_is_drift(site: Site, edit: str) -> None:
    """Each setting that was changed by hand is found and put back, also where it only became more."""
    site.apply(queue("a"))
    site.database.connect().execute(f"UPDATE reconciler.queues SET {edit}".encode())
    assert site.changes(queue("a")) == [("update", "a", "drifted")]
    site.apply(queue("a"))
    assert site.rows(SETTINGS, "a") == [USUAL]
    assert site.changes(queue("a")) == []


def test_more_in_a_payload_is_drift_too(site: Site) -> None:
    """A waiting one-time job whose payload somebody added to gets back the declared one."""
    site.apply(once("a", LATER, payload={"deep": [1]}))
    site.run("""UPDATE reconciler.jobs SET payload = '{"deep": [1, 2], "more": true}'""")
    assert site.changes(once("a", LATER, payload={"deep": [1]})) == [("update", "a", "drifted")]
    site.apply(once("a", LATER, payload={"deep": [1]}))
    assert site.rows("SELECT payload FROM reconciler.jobs") == [({"deep": [1]},)]


def test_the_row_takes_no_nonsense(site: Site) -> None:
    """What the loader refuses the table refuses too, for whoever edits it by hand."""
    site.apply(queue("a"))
    for edit in ("lease = '500 milliseconds'", "timeout = '0'", "held_by = '{everything}'"):
        with pytest.raises(psycopg.errors.CheckViolation):
            site.database.connect().execute(f"UPDATE reconciler.queues SET {edit}".encode())
