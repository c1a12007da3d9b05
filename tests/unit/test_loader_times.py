"""When jobs run, as spec files say it: one form for each meaning, and which keys go together."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reconciler.core.config import Config, Target
from reconciler.core.specs import Blackout, Every, JobSpec, Monthly, NthWeekday, Once, Place
from reconciler.loader.builder import SpecBuilder
from reconciler.loader.declarations import Declaration, merge
from reconciler.loader.instants import find_instant
from reconciler.loader.job_times import find_idle_zone, find_zone_fault
from reconciler.loader.schema_check import Definition, find_schema_faults
from reconciler.loader.schema_words import TRIGGERS
from reconciler.loader.sources import Source

_TARGET = Target(name="t")
_CONFIG = Config(path="", owner="o", jobs=(), targets={"t": _TARGET}, default_target="t", secrets={})
_ZONES = [
    "UTC", "Europe/Oslo", "America/New_York", "Asia/Kathmandu", "Pacific/Apia", "America/Havana",
    "Australia/Lord_Howe", "Asia/Beirut", "America/Sao_Paulo",
]  # fmt: skip


def _try(
    value: dict[str, Any], *, defaults: dict[str, Any] | None = None, override: dict[str, Any] | None = None
) -> tuple[JobSpec | None, list[str]]:
    """Build a job, with what is wrong with it."""
    own = {"sql": "SELECT 1"} | value | ({"overrides": {"t": override}} if override else {})
    faults = find_schema_faults(Definition(schema="jobs"), {"defaults": defaults or {}, "jobs": {"a": own}})
    if faults:
        return None, [fault.message for fault in faults]
    declaration = Declaration(
        kind="job", name="a", place=Place(path="", line=1, column=1), source=Source(path=""), section="jobs",
        own=own, target="t",
    )  # fmt: skip
    merge(declaration, defaults or {})
    builder = SpecBuilder(_CONFIG, _TARGET)
    spec = builder.build(declaration)
    assert isinstance(spec, JobSpec | None)
    return spec, [problem.message for problem in builder.problems]


def _build(
    value: dict[str, Any], *, defaults: dict[str, Any] | None = None, override: dict[str, Any] | None = None
) -> JobSpec:
    spec, problems = _try(value, defaults=defaults, override=override)
    assert spec is not None, problems
    return spec


def _keys(spec: JobSpec) -> dict[str, Any]:
    """What a document says but for the body."""
    return {key: value for key, value in json.loads(spec.document).items() if key != "sql"}


@pytest.mark.parametrize(
    ("zone", "local", "instant"),
    [
        ("UTC", "2026-12-01T08:00", "2026-12-01T08:00:00Z"),
        ("Europe/Oslo", "2026-12-01 08:00:30.5", "2026-12-01T07:00:30.500000Z"),
        ("Europe/Oslo", "2026-12-01T08:00+05:45", "2026-12-01T02:15:00Z"),
        ("Europe/Oslo", "2026-07-01", "2026-06-30T22:00:00Z"),
        # skipped: the first moment after
        ("Europe/Oslo", "2026-03-29T02:00", "2026-03-29T01:00:00Z"),
        ("Europe/Oslo", "2026-03-29T02:59:59.9", "2026-03-29T01:00:00Z"),
        ("Europe/Oslo", "2026-03-29T03:00", "2026-03-29T01:00:00Z"),
        ("Australia/Lord_Howe", "2026-10-04T02:15", "2026-10-03T15:30:00Z"),
        ("America/Havana", "2026-03-08", "2026-03-08T05:00:00Z"),
        ("Pacific/Apia", "2011-12-30", "2011-12-30T10:00:00Z"),
        # twice: the first
        ("Europe/Oslo", "2026-10-25T02:30", "2026-10-25T00:30:00Z"),
        ("America/Havana", "2026-11-01", "2026-11-01T04:00:00Z"),
    ],
)
def test_a_local_time_becomes_an_instant(zone: str, local: str, instant: str) -> None:
    """The document says UTC, and the zone that was declared."""
    job = {"daily": "01:00", "timezone": zone}
    for key in ("start_at", "end_at"):
        spec = _build(job | {key: local})
        assert _keys(spec) == job | {key: instant}
        assert getattr(spec, key) == datetime.fromisoformat(instant)
    if "T" in local and "+" not in local:
        once = _build({"once": local, "timezone": zone})
        assert _keys(once) == {"once": instant, "timezone": zone}
        assert once.trigger == Once(at=datetime.fromisoformat(instant))


@pytest.mark.parametrize("offset", ["Z", "z", "+00:00", "-00:00"])
def test_an_instant_may_leave_its_seconds_out(offset: str) -> None:
    """Its document has them."""
    assert _keys(_build({"once": f"2026-12-01T08:00{offset}"})) == {"once": "2026-12-01T08:00:00Z"}


_AROUND = [
    datetime(2026, 3, 29, 2, 30), datetime(2026, 10, 25, 2, 30), datetime(2026, 3, 8, 1, 0),  # noqa: DTZ001 - local times
    datetime(2026, 11, 1, 0, 30), datetime(2011, 12, 30, 12, 0), datetime(2026, 10, 4, 2, 15),  # noqa: DTZ001
    datetime(2018, 11, 4, 0, 30), datetime(2026, 4, 5, 1, 45),  # noqa: DTZ001
]  # fmt: skip


@given(
    st.sampled_from(_ZONES),
    st.builds(
        lambda at, seconds: at + timedelta(seconds=seconds),
        st.sampled_from(_AROUND),
        st.integers(-2 * 86_400, 2 * 86_400) | st.floats(-7200, 7200),
    ),
)
def test_an_instant_is_the_first_that_shows_no_earlier_time(zone: str, wall: datetime) -> None:
    """Where the clocks skip a time, it is the second in which they do that."""
    place = ZoneInfo(zone)
    found = find_instant(wall, place)
    shown = found.astimezone(place).replace(tzinfo=None)
    assert shown >= wall
    if shown > wall:
        assert found.microsecond == 0
        assert (found - timedelta(seconds=1)).astimezone(place).replace(tzinfo=None) < wall
    else:
        earlier = (found - timedelta(minutes=minutes) for minutes in range(30, 181, 30))
        assert all(one.astimezone(place).replace(tzinfo=None) != wall for one in earlier)


@pytest.mark.parametrize(
    ("written", "canonical", "day"),
    [
        (15.0, 15, 15),
        ("LAST", "last", "last"),
        ("second tue", "second tue", NthWeekday(weekday=2, nth=2)),
        ("Second  Monday", "second mon", NthWeekday(weekday=1, nth=2)),
        ("last friday", "last fri", NthWeekday(weekday=5, nth=-1)),
        ("fifth SUN", "fifth sun", NthWeekday(weekday=0, nth=5)),
    ],
)
def test_the_day_of_a_month_has_one_form(written: Any, canonical: Any, day: Any) -> None:
    """Three small letters, a single blank."""
    spec = _build({"monthly": {"day": written, "at": "6:00"}})
    assert _keys(spec) == {"monthly": {"day": canonical, "at": "06:00"}}
    assert spec.trigger == Monthly(day=day, hour=6, minute=0)


@pytest.mark.parametrize("day", [29, 30, 31])
def test_a_month_without_its_day_is_no_fault(day: int) -> None:
    """It is left out."""
    assert _build({"monthly": {"day": day, "at": "06:00"}}).trigger == Monthly(day=day, hour=6, minute=0)


@pytest.mark.parametrize(
    ("every", "canonical"),
    [
        ("1s", "1s"), ("59s", "59s"), ("60s", "1m"), ("7m", "7m"), ("90m", "1h30m"), ("5h", "5h"),
        ("36h", "1d12h"), ("366d", "52w2d"), ("1000ms", "1s"), ("1440m", "1d"),
    ],
)  # fmt: skip
def test_an_interval_need_not_divide_anything(every: str, canonical: str) -> None:
    """Whole minutes up to a leap year, or seconds below a minute."""
    spec = _build({"every": every})
    assert _keys(spec) == {"every": canonical}
    assert isinstance(spec.trigger, Every)


def test_seconds_are_judged_for_the_targets_version() -> None:
    """pg_cron 1.4 has no intervals of seconds, and all others."""
    value = {"sql": "SELECT 1"}
    for every, count in (("30s", 1), ("7m", 0)):
        declaration = Declaration(
            kind="job", name="a", place=Place(path="", line=1, column=1), source=Source(path=""),
            section="jobs", own={}, target="t", value=value | {"every": every},
        )  # fmt: skip
        builder = SpecBuilder(_CONFIG, replace(_TARGET, pg_cron=(1, 4, 2)))
        builder.build(declaration)
        assert len(builder.problems) == count
        assert all("needs pg_cron 1.5" in problem.message for problem in builder.problems)


@pytest.mark.parametrize(
    ("written", "canonical", "typed"),
    [
        ([{"from": "8:00", "to": "9:30"}], [{"from": "08:00", "to": "09:30"}],
         [Blackout(start=480, end=570)]),
        ([{"from": "22:00", "to": "5:00"}], [{"from": "22:00", "to": "05:00"}],
         [Blackout(start=1320, end=300)]),
        ([{"from": "22:00", "to": "00:00"}], [{"from": "22:00", "to": "24:00"}],
         [Blackout(start=1320, end=1440)]),
        ([{"from": "00:00", "to": "24:00", "on": ["sat", "mon", "sat"]}], [{"on": ["mon", "sat"]}],
         [Blackout(days=(1, 6))]),
        ([{"on": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": "01:00", "to": "02:00"}],
         [{"from": "01:00", "to": "02:00"}], [Blackout(start=60, end=120)]),
        ([{"first": "2026-12-24", "last": "2026-12-24"}], [{"first": "2026-12-24", "last": "2026-12-24"}],
         [Blackout(first=date(2026, 12, 24), last=date(2026, 12, 24))]),
        ([{"last": "2026-12-24", "on": ["thu"]}], [{"last": "2026-12-24", "on": ["thu"]}],
         [Blackout(last=date(2026, 12, 24), days=(4,))]),
        # sorted, each once
        ([{"on": ["sun"]}, {"from": "1:00", "to": "2:00"}, {"on": ["sun", "sun"]}],
         [{"from": "01:00", "to": "02:00"}, {"on": ["sun"]}],
         [Blackout(start=60, end=120), Blackout(days=(0,))]),
        # a minute is left, or there is an end
        ([{"from": "06:00", "to": "05:59"}], [{"from": "06:00", "to": "05:59"}],
         [Blackout(start=360, end=359)]),
        ([{"first": "2026-12-24"}], [{"first": "2026-12-24"}], [Blackout(first=date(2026, 12, 24))]),
    ],
)  # fmt: skip
def test_windows_have_one_form(
    written: list[dict[str, Any]], canonical: list[dict[str, Any]], typed: list[Blackout]
) -> None:
    """Two digits, days in the order of the week, no duplicates; what holds always is left out."""
    spec = _build({"daily": "01:00", "blackout": written})
    assert _keys(spec)["blackout"] == canonical
    assert list(spec.blackout) == typed


def test_no_window_is_nothing_declared() -> None:
    """An empty list is there to take away that of the defaults."""
    defaults = {"blackout": [{"on": ["sat"]}]}
    assert _keys(_build({"daily": "01:00", "blackout": []}, defaults=defaults)) == {"daily": "01:00"}
    assert _keys(_build({"daily": "01:00"}, defaults=defaults)) == {"daily": "01:00"} | defaults


@pytest.mark.parametrize(
    "windows",
    [
        [{"from": "00:00", "to": "24:00"}],
        [{"on": ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]}],
        [{"on": ["mon", "tue", "wed", "thu", "fri"]}, {"on": ["sat", "sun"]}],
        [{"from": "06:00", "to": "18:00"}, {"from": "18:00", "to": "06:00"}],
        [{"from": "12:00", "to": "11:00"}, {"from": "10:30", "to": "12:30", "on": ["sun", "sat"]},
         {"from": "10:30", "to": "12:30", "on": ["mon", "tue", "wed", "thu", "fri"]}],
    ],
)  # fmt: skip
def test_windows_that_leave_no_moment_are_refused(windows: list[dict[str, Any]]) -> None:
    """Together, also across midnight and across the end of the week."""
    _, (problem,) = _try({"daily": "01:00", "blackout": windows})
    assert "leaves no moment of the week" in problem
    dated = [*windows[:-1], windows[-1] | {"first": "2026-01-01"}]
    assert len(_build({"daily": "01:00", "blackout": dated}).blackout) == len(windows)


@pytest.mark.parametrize(
    ("spread", "canonical"), [("2m", "2m"), ("90m", "1h30m"), ("24h", "1d"), ("120s", "2m")]
)
def test_a_spread_has_one_form(spread: str, canonical: str) -> None:
    """Whole minutes, up to a day, also more than the interval."""
    spec = _build({"every": "5m", "spread": spread})
    assert _keys(spec) == {"every": "5m", "spread": canonical}
    assert spec.spread == timedelta(minutes={"2m": 2, "1h30m": 90, "1d": 1440}[canonical])


_ALL = {
    "timezone": "Europe/Oslo",
    "start_at": "2026-01-01",
    "end_at": "2027-01-01",
    "blackout": [{"on": ["sat"]}],
    "spread": "15m",
}


@pytest.mark.parametrize(
    ("job", "left"),
    [
        ({"daily": "01:00"}, set(_ALL)),
        ({"every": "5m"}, set(_ALL)),
        ({"every": "30s"}, set(_ALL) - {"spread"}),
        ({"schedule": "30 seconds"}, set(_ALL) - {"spread"}),
        ({"schedule": "@reboot"}, set(_ALL) - {"spread"}),
        ({"after": ["b"]}, set(_ALL) - {"spread"}),
        ({"once": "2026-12-01T08:00"}, {"timezone"}),
        ({"once": "2026-12-01T08:00Z"}, set()),
        ({"daily": "01:00", "mode": "direct"}, {"timezone", "spread"}),
        ({"every": "5m", "mode": "direct"}, {"spread"}),
        ({"every": "5m", "blackout": []}, set(_ALL) - {"blackout"}),
    ],
)
def test_what_the_defaults_say_holds_where_it_can(job: dict[str, Any], left: set[str]) -> None:
    """A job that cannot have a key of the defaults does not get it."""
    assert set(_keys(_build(job, defaults=_ALL))) - {"mode", *job} == left - set(job)
    spec, problems = _try(job | _ALL)
    if "blackout" not in job:
        refused = set(_ALL) - left
        # A zone that local times refer to is no problem beside them.
        assert {problem.split()[2] for problem in problems} == refused - {"timezone"}
        assert (spec is None) == bool(refused)


@pytest.mark.parametrize(
    ("job", "override", "keys"),
    [
        ({"daily": "01:00", "ambiguous": "both", "nonexistent": "skip", "timezone": "Europe/Oslo"},
         {"every": "5m"}, {"every"}),
        ({"daily": "01:00", "spread": "15m", "start_at": "2026-01-01T00:00Z"},
         {"once": "2026-12-01T08:00Z"}, {"once"}),
        ({"daily": "01:00", "blackout": [{"on": ["sat"]}]}, {"mode": "direct"}, {"daily", "mode"}),
        ({"every": "5m", "blackout": [{"on": ["sat"]}], "timezone": "Europe/Oslo"},
         {"blackout": []}, {"every"}),
        ({"every": "5m", "start_at": "2026-01-01", "timezone": "Europe/Oslo"},
         {"start_at": "2026-01-01T00:00Z"}, {"every", "start_at"}),
        ({"daily": "01:00", "start_at": "2026-06-01T00:00Z"}, {"end_at": "2026-01-01T00:00Z"},
         {"daily", "end_at"}),
        ({"daily": "01:00", "end_at": "2026-01-01T00:00Z"}, {"start_at": "2026-06-01T00:00Z"},
         {"daily", "start_at"}),
    ],
)  # fmt: skip
def test_the_nearer_layer_wins(job: dict[str, Any], override: dict[str, Any], keys: set[str]) -> None:
    """What contradicts an override is left out; in one layer it is a problem."""
    spec = _build(job, override=override)
    assert set(_keys(spec)) == keys
    assert (spec.start_at is None, spec.end_at is None) == ("start_at" not in keys, "end_at" not in keys)
    if set(override) <= {"end_at", "start_at", "mode"} and len(override | job) > len(job):
        assert _try(job | override)[0] is None


def test_an_override_that_contradicts_is_a_problem() -> None:
    """It is the nearest layer already."""
    job = {"every": "5m"}
    for key, value in (("timezone", "Europe/Oslo"), ("ambiguous", "first")):
        assert f"{key} does not go with every" in _try(job, override={key: value})[1][0]


@pytest.mark.parametrize("trigger", [{"every": "5m"}, {"schedule": "30 seconds"}, {"after": ["b"]}])
def test_a_blackout_needs_a_zone_whatever_the_trigger(trigger: dict[str, Any]) -> None:
    """Its windows are local times."""
    job = trigger | {"timezone": "Europe/Oslo", "blackout": [{"on": ["sat"]}]}
    assert _keys(_build(job)) == job


@pytest.mark.parametrize(
    "job",
    [
        {"every": "${", "spread": "15m"},
        {"daily": "${"},
        {"once": "${"},
        {"monthly": {"day": "${", "at": "01:00"}},
        {"daily": "01:00", "start_at": "${"},
        {"daily": "01:00", "end_at": "2026-12-01T25:00Z"},
        {"daily": "01:00", "end_at": "9999-12-31T23:00-11:00"},
        {"daily": "01:00", "timezone": "Asia/Kathmandu", "start_at": "0001-01-01"},
        {"daily": "01:00", "spread": "${"},
        {"daily": "01:00", "blackout": [{"from": "${", "to": "01:00"}]},
        {"daily": "01:00", "blackout": [{"from": "01:00", "to": "${"}]},
        {"daily": "01:00", "blackout": [{"first": "${"}]},
    ],
)
def test_what_is_left_of_a_variable_is_read_strictly(job: dict[str, Any]) -> None:
    """The schema lets `${` pass for editors, and cannot know which dates exist."""
    spec, problems = _try(job)
    assert spec is None
    assert len(problems) == 1
    assert "is no " in problems[0]


def test_a_local_time_of_the_defaults_is_in_the_zone_of_each_job() -> None:
    """It is another instant in each."""
    defaults = {"start_at": "2026-12-01"}
    for zone, hours in (("Europe/Oslo", -1), ("America/New_York", 5)):
        spec = _build({"daily": "01:00", "timezone": zone}, defaults=defaults)
        assert spec.start_at == datetime(2026, 12, 1, tzinfo=UTC) + timedelta(hours=hours)


def test_an_unknown_zone_hides_no_other_problem() -> None:
    """And local times are no problem of their own then."""
    _, problems = _try({"once": "2026-12-01T08:00", "timezone": "Mars", "sql": "VACUUM"})
    assert len(problems) == 2
    assert "no time zone 'Mars'" in problems[0]


@pytest.mark.parametrize(
    ("zone", "better"),
    [
        ("CET", "Europe/Paris"), ("MET", "Europe/Paris"), ("EET", "Europe/Athens"), ("WET", "Europe/Lisbon"),
        ("EST", "America/New_York"), ("MST", "America/Denver"), ("HST", "Pacific/Honolulu"),
    ],
)  # fmt: skip
def test_an_abbreviation_without_summer_time_is_no_zone(zone: str, better: str) -> None:
    """It would mean another time in the database than in this program."""
    assert "which has no summer time" in find_zone_fault(zone)
    assert repr(better) in find_zone_fault(zone)
    assert find_zone_fault(better) == ""


@pytest.mark.parametrize(
    "zone", ["localtime", "Factory", "posix/UTC", "right/UTC", "", "/etc/hosts", "cet", "X\0"]
)
def test_a_zone_is_the_same_on_each_machine(zone: str) -> None:
    """Others are unknown, and none that is refused is suggested."""
    fault = find_zone_fault(zone)
    assert "there is no time zone" in fault
    assert "'CET'" not in fault


_TIMES = st.builds(lambda hour, minute: f"{hour:02}:{minute:02}", st.integers(0, 23), st.integers(0, 59))
_DAY_LISTS = st.lists(st.sampled_from(["sun", "mon", "tue", "wed", "thu", "fri", "sat"]), min_size=1)
_DATES = st.dates(date(2025, 1, 1), date(2028, 12, 31))
_LOCALS = st.builds(
    lambda day, blank, clock, rest: f"{day}{blank}{clock}{rest}",
    _DATES, st.sampled_from("Tt "), _TIMES, st.sampled_from(["", ":07", ":07.25"]),
)  # fmt: skip
_INSTANTS = st.builds(
    lambda local, offset: local + offset, _LOCALS, st.sampled_from(["Z", "+05:45", "-11:00"])
)
_ORDINALS = st.sampled_from(["first", "Second", "third", "FOURTH", "fifth", "last"])
_NAMES = st.sampled_from(["sun", "Monday", "TUE", "wednesday", "thu", "friday", "Sat"])
_RULES: dict[str, st.SearchStrategy[Any]] = {
    "schedule": st.sampled_from(["*/5 * * * *", "0 8 * * 1", "@daily", "30 seconds", "@reboot"]),
    "every": st.builds("{}m".format, st.integers(1, 366 * 1440))
    | st.builds("{}s".format, st.integers(1, 60)),
    "daily": _TIMES,
    "weekly": st.fixed_dictionaries({"on": _DAY_LISTS, "at": _TIMES}),
    "monthly": st.fixed_dictionaries(
        {
            "day": st.integers(1, 31) | st.just("Last") | st.builds("{} {}".format, _ORDINALS, _NAMES),
            "at": _TIMES,
        }
    ),
    "once": _LOCALS | _INSTANTS,
    "after": st.just(["c", "b"]),
}
_WINDOWS = st.fixed_dictionaries(
    {}, optional={"on": _DAY_LISTS, "first": _DATES.map(str), "last": _DATES.map(str)}
).flatmap(
    lambda window: st.just(window)
    | st.builds(lambda start, end: window | {"from": start, "to": end}, _TIMES, _TIMES | st.just("24:00"))
)  # fmt: skip
_MOMENTS = _LOCALS | _INSTANTS | _DATES.map(str)


@st.composite
def _jobs(draw: st.DrawFn) -> dict[str, Any]:
    """A job with any trigger and keys; what does not go together stands in the defaults, and gives way."""
    trigger = draw(st.sampled_from(sorted(_RULES)))
    keys = st.fixed_dictionaries(
        {"timezone": st.sampled_from(_ZONES)},
        optional={
            "start_at": _MOMENTS,
            "end_at": _MOMENTS,
            "blackout": st.lists(_WINDOWS.filter(bool), max_size=3),
            "spread": st.builds("{}m".format, st.integers(2, 1440)),
        },
    )
    job = {trigger: draw(_RULES[trigger])}
    if trigger in {"daily", "weekly", "monthly"}:
        job |= draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "ambiguous": st.sampled_from(["first", "last", "both"]),
                    "nonexistent": st.sampled_from(["next", "skip"]),
                },
            )
        )
    return {"defaults": draw(keys), "own": job}


@settings(max_examples=250, deadline=None)
@given(_jobs())
def test_a_document_says_the_same_again(job: dict[str, Any]) -> None:
    """Building a spec of its document changes nothing: not the document, not the spec."""
    spec, _ = _try(job["own"], defaults=job["defaults"])
    assume(spec is not None)
    assert spec is not None
    document = json.loads(spec.document)
    trigger = next((key for key in TRIGGERS if key in document), "after")
    if find_idle_zone(trigger, document):
        # It was needed to read local times, which are instants by now.
        del document["timezone"]
        spec = replace(
            spec, timezone="", document=json.dumps(document, separators=(",", ":"), sort_keys=True)
        )
    assert _build(document) == spec
