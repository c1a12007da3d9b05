from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.core.canonical import render_canonical
from reconciler.core.config import Config, Target
from reconciler.core.declared_times import make_blackouts, read_instant, read_timing
from reconciler.core.specs import Blackout, JobSpec
from reconciler.core.times.local_rules import parse_rule
from reconciler.core.times.timings import find_shift, make_entry_timing, make_timing
from reconciler.loader.specs import load_specs

if TYPE_CHECKING:
    from pathlib import Path

    from reconciler.core.times.timings import Timing

_ENTRY = "7 3 * * *"


def _read(
    entry: str = "", zone: str = "GMT", kind: Any = "job", name: str = "a", **fields: Any
) -> Timing | None:
    return read_timing(render_canonical(fields), entry, name=name, kind=kind, server_zone=zone)


_SPEC = """
jobs:
  plain: {schedule: "*/5 * * * *", sql: SELECT 1}
  zoned: {schedule: "0 8 * * 1-5", timezone: Europe/Oslo, ambiguous: both, nonexistent: skip, sql: SELECT 1}
  seconds: {every: 30s, sql: SELECT 1, blackout: [{from: "22:00", to: "06:00", on: [fri, sat]}]}
  even: {every: 15m, sql: SELECT 1}
  odd: {every: 90m, sql: SELECT 1, spread: 20m}
  window: {every: 2w, sql: SELECT 1, start_at: 2026-12-01T08:00:00.25Z, end_at: "2027-12-01T08:00:00+01:00"}
  daily: {daily: "02:30", timezone: Europe/Oslo, sql: SELECT 1, spread: 1h}
  weekly: {weekly: {on: [mon, sun], at: "23:59"}, sql: SELECT 1}
  monthly: {monthly: {day: 31, at: "00:00"}, sql: SELECT 1}
  last: {monthly: {day: last, at: "07:05"}, sql: SELECT 1}
  second: {monthly: {day: second tue, at: "07:05"}, timezone: Asia/Kolkata, sql: SELECT 1,
           blackout: [{first: 2026-12-24, last: 2026-12-26}, {first: 2027-07-01}]}
  once: {once: 2026-12-01T08:00, timezone: Europe/Oslo, handler: mail.send}
  later: {after: [daily], sql: SELECT 1}
"""


def test_a_document_says_what_its_spec_says(tmp_path: Path) -> None:
    """What the loader makes of a file and what is read of its stored document come at the same times."""
    (tmp_path / "jobs.yaml").write_text(_SPEC)
    target = Target(name="t")
    config = Config(
        path=str(tmp_path / "reconciler.yaml"),
        owner="shop",
        jobs=("jobs.yaml",),
        targets={"t": target},
        default_target="t",
        secrets={},
    )
    specs = load_specs(config, target)
    assert len(specs) == 13
    for zone in ("GMT", "America/New_York"):
        for spec in specs:
            assert isinstance(spec, JobSpec)
            found = read_timing(spec.document, "", name=spec.name, kind="job", server_zone=zone)
            assert found == make_timing(spec, zone), spec.name
            assert (found is None) == (spec.name == "later")


@pytest.mark.parametrize(
    ("fields", "zone"),
    [
        ({"schedule": "0 * * * *"}, "Europe/Oslo"),
        ({"daily": "08:00"}, "GMT"),
        ({"weekly": {"on": ["mon"], "at": "08:00"}}, "Etc/UTC"),
        ({"monthly": {"day": 3, "at": "08:00"}}, "UTC"),
        ({"every": "15m"}, "Europe/Oslo"),
        ({"every": "30s"}, "GMT"),
        ({"daily": "08:00", "timezone": "Europe/Oslo", "mode": "direct"}, "GMT"),
        ({"payload": {"timezone": "Europe/Oslo"}, "schedule": "0 * * * *"}, "GMT"),
        ({"sql": "SELECT 1"}, "GMT"),
    ],
)
def test_without_a_guard_the_entry_decides(fields: dict[str, Any], zone: str) -> None:
    """Whatever is declared, pg_cron fires by what stands in cron.job, and the job runs each time."""
    assert _read(_ENTRY, zone, **fields) == make_entry_timing(_ENTRY, zone)


@pytest.mark.parametrize(
    ("fields", "zone"),
    [
        ({"schedule": "0 8 * * *", "timezone": "Europe/Oslo"}, "GMT"),
        ({"schedule": "0 8 * * *", "ambiguous": "both"}, "GMT"),
        ({"schedule": "0 8 * * *", "spread": "10m"}, "GMT"),
        ({"daily": "08:00"}, "Europe/Oslo"),
        ({"daily": "08:00", "nonexistent": "skip"}, "GMT"),
        ({"monthly": {"day": "last", "at": "08:00"}}, "GMT"),
        ({"every": "7m"}, "GMT"),
        ({"every": "5m", "start_at": "2026-12-01T08:00:00Z"}, "GMT"),
    ],
)
def test_a_guarded_job_keeps_its_own_times(fields: dict[str, Any], zone: str) -> None:
    """Whenever an entry that somebody altered fires, the guard lets the job run at its own times alone."""
    found = _read(_ENTRY, zone, **fields)
    assert found == _read("", zone, **fields)
    assert found is not None
    assert found.text != _ENTRY


@pytest.mark.parametrize("trigger", [{"schedule": "0 * * * *"}, {"every": "5m"}, {"every": "30s"}])
def test_a_window_limits_what_the_entry_says(trigger: dict[str, str]) -> None:
    """What an entry says by itself goes by the entry, inside of the window and outside of the blackouts."""
    found = _read(_ENTRY, **trigger, end_at="2026-12-01T08:00:00Z", blackout=[{"on": ["sun"]}])
    assert found is not None
    assert found.rule == parse_rule(_ENTRY)
    assert (found.end_at, found.blackout) == (datetime(2026, 12, 1, 8, tzinfo=UTC), (Blackout(days=(0,)),))


def test_a_worker_goes_by_its_entry() -> None:
    """Its document says the same where there is none."""
    assert _read(_ENTRY, kind="worker", schedule="1 * * * *") == make_entry_timing(_ENTRY, "GMT")
    assert _read(kind="worker", schedule="1 * * * *", timezone="Mars") == make_entry_timing(
        "1 * * * *", "GMT"
    )


def test_the_name_decides_how_far_a_spread_goes() -> None:
    """Two jobs with one document are put off differently."""
    fields = {"daily": "08:00", "spread": "24h"}
    shifts = {}
    for name in ("a", "b"):
        timing = _read(name=name, **fields)
        assert timing is not None
        shifts[name] = timing.shift
    assert shifts == {name: find_shift(name, timedelta(hours=24)) for name in ("a", "b")}
    assert shifts["a"] != shifts["b"]


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        ("{}", "job"),
        ("", "job"),
        ("[]", "job"),
        ("7", "job"),
        ("{", "job"),
        ('{"after":["b"]}', "job"),
        ('{"schedule":"1 2 3"}', "job"),
        ('{"schedule":["* * * * *"]}', "job"),
        ('{"daily":"8 o\'clock"}', "job"),
        ('{"daily":"08:00","blackout":[{"on":["someday"]}]}', "job"),
        ('{"weekly":{"on":["mon"]}}', "job"),
        ('{"monthly":{"day":"ultimo","at":"08:00"}}', "job"),
        ('{"every":"often"}', "job"),
        ('{"once":"2026-12-01T08:00:00"}', "job"),
        ('{"daily":"08:00","end_at":"soon"}', "job"),
        ('{"url":"https://a.test"}', "worker"),
        ('{"schedule":"* * * * *"}', "queue"),
        ('{"schedule":"* * * * *"}', "channel"),
    ],
)
def test_what_cannot_be_read_has_no_times(document: str, kind: Any) -> None:
    """Another release, or a hand, may have written it: nothing is raised."""
    assert read_timing(document, "", name="a", kind=kind, server_zone="GMT") is None


def test_an_entry_that_cannot_be_read_has_no_times() -> None:
    """Nor is it taken for what the document says."""
    assert _read("61 * * * *", schedule="1 * * * *") is None


def test_windows_are_whole_days_of_every_day_unless_they_say_otherwise() -> None:
    """Each key of a canonical window has its field."""
    window = {
        "from": "22:00",
        "to": "24:00",
        "on": ["sun", "sat"],
        "first": "2026-12-24",
        "last": "2027-01-02",
    }
    assert make_blackouts([{}, window]) == (
        Blackout(),
        Blackout(first=date(2026, 12, 24), last=date(2027, 1, 2), days=(0, 6), start=1320, end=1440),
    )


def test_an_instant_needs_an_offset() -> None:
    """A canonical one always has it; anything else is refused."""
    assert read_instant("2026-12-01T08:00:00.250000Z") == datetime(2026, 12, 1, 8, 0, 0, 250_000, tzinfo=UTC)
    with pytest.raises(ValueError, match="has no offset"):
        read_instant("2026-12-01T08:00:00")
