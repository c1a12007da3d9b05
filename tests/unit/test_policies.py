"""Policies on specs and on changes: who they are about, what they refuse, and what they say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.canonical import render_canonical
from reconciler.core.change_policies import judge_changes
from reconciler.core.change_windows import ChangeWindows, Freeze
from reconciler.core.changes import ACTIONS, Action, Change, Obstacle, Snapshot
from reconciler.core.declared_times import make_blackouts, make_trigger
from reconciler.core.policies import ChangePolicy, Governance, Match, SpecPolicy, fits_text, fits_url
from reconciler.core.spec_policies import SpecJudge, find_forbidden_roles, find_warnings
from reconciler.core.specs import (
    Blackout,
    HandlerBody,
    HttpBody,
    JobSpec,
    Kind,
    Place,
    QueueSpec,
    SqlBody,
    Succeeded,
    WorkerSpec,
)
from reconciler.core.times.hourly_runs import find_crowd
from reconciler.core.times.timings import make_timing
from tests.core_builders import PLACE

if TYPE_CHECKING:
    from reconciler.core.specs import Spec

WRITTEN = Place(path="reconciler.yaml", line=9, column=5)
FRIDAY = datetime(2026, 11, 27, 18, tzinfo=UTC)
MONDAY = datetime(2026, 11, 30, 12, tzinfo=UTC)
HTTP: dict[str, Any] = {"sql": None, "http": {"url": "https://a.example.com/x"}}


def policy(name: str = "p", **fields: Any) -> SpecPolicy:
    """Make a policy on specs."""
    return SpecPolicy(name=name, because="Experience", place=WRITTEN, **fields)


def on_changes(name: str = "p", **fields: Any) -> ChangePolicy:
    """Make a policy on deletions."""
    usual: dict[str, Any] = {"verbs": ("delete",), "window": Blackout(days=(5,))}
    return ChangePolicy(name=name, because="Experience", place=WRITTEN, **(usual | fields))


def job(name: str = "a", **declared: Any) -> JobSpec:
    """Declare a job; what is None is not declared."""
    usual = {} if declared.keys() & {"every", "daily", "after"} else {"schedule": "0 * * * *"}
    given = {"sql": "SELECT 1", **usual, **declared}
    document = {key: value for key, value in given.items() if value is not None}
    key = next(key for key in ("schedule", "every", "daily", "after") if key in document)
    if "http" in document:
        body: Any = HttpBody(url=document["http"]["url"])
    elif "handler" in document:
        body = HandlerBody(handler="h", queue="default")
    else:
        body = SqlBody(text="SELECT 1")
    return JobSpec(
        name=name,
        place=PLACE,
        document=render_canonical(document),
        trigger=Succeeded() if key == "after" else make_trigger(key, document[key]),
        body=body,
        blackout=make_blackouts(document.get("blackout", ())),
        mode=document.get("mode", "managed"),
        role=document.get("role", ""),
        database=document.get("database", ""),
        active=document.get("active", True),
    )


def queue(**declared: Any) -> QueueSpec:
    """Declare a queue."""
    return QueueSpec(name="q", place=PLACE, document=render_canonical(declared))


def worker(**declared: Any) -> WorkerSpec:
    """Declare a worker that calls each minute."""
    document = {"schedule": "* * * * *", "url": "https://a.example.com/run", **declared}
    return WorkerSpec(
        name="w",
        place=PLACE,
        document=render_canonical(document),
        schedule=document["schedule"],
        queue="default",
        role=document.get("role", ""),
    )


def faults(rule: SpecPolicy, spec: Spec, *, role: str = "") -> list[str]:
    """Judge one spec by one policy."""
    return [violation.fault for violation in SpecJudge([rule], role=role).judge([spec])]


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("a", "a", True),
        ("a", "ab", False),
        ("*", "", True),
        ("tenant-*", "tenant-7", True),
        ("tenant-*", "a-tenant-7", False),
        ("*-x-*", "a-x-b", True),
        ("*-x-*", "a-y-b", False),
        ("a*a", "a", False),
        ("*ab*ab*", "ab", False),
        ("a.c", "abc", False),
        ("[ab]", "a", False),
        ("*a" * 30 + "b", "a" * 200, False),
    ],
)
def test_a_pattern_knows_the_star_alone(pattern: str, text: str, fits: bool) -> None:
    """It stands for any characters, all else for itself, and no pattern takes long."""
    assert fits_text(pattern, text) is fits


@pytest.mark.parametrize(
    ("pattern", "url", "fits"),
    [
        ("https://*.example.com/*", "https://a.example.com/run", True),
        ("https://*.example.com/*", "HTTPS://A.Example.COM/run", True),
        ("https://*.example.com/*", "https://a.example.com", True),
        ("https://*.example.com", "https://a.example.com/run?x=1", True),
        ("https://*.example.com/*", "https://a.example.com:443/", True),
        ("https://*.example.com/*", "https://a.example.com./", True),
        ("https://*.example.com/*", "http://a.example.com/", False),
        ("https://*.example.com/*", "https://a.example.com:8443/", False),
        ("https://*.example.com:*/", "https://a.example.com:8443/", True),
        ("https://*.example.com/*", "https://evil.com/x.example.com/", False),
        ("https://*.example.com/*", "https://evil.com?x.example.com/", False),
        ("https://*.example.com/*", "https://evil.com#x.example.com/", False),
        ("https://*.example.com/*", "https://x.example.com@evil.com/", False),
        ("https://*.example.com/*", "https://evil.com/@x.example.com/", False),
        ("https://*.example.com/*", "https://evil.com\\.example.com/", None),
        ("https://*.example.com/*", "https://evil.com:80:.example.com/", None),
        ("https://*.example.com/*", "https://a@b@x.example.com/", None),
        ("https://example.com/jobs/*", "https://example.com/jobs/../admin", None),
        ("https://example.com/jobs/*", "https://example.com/jobs/%2E%2e/admin", None),
        ("https://example.com/jobs/*", "https://example.com/jobs/run?back=../x", True),
        ("https://example.com/jobs/*", "https://example.com/admin", False),
        ("https://[::1]/*", "https://[::1]/x", True),
        ("https://*/*", "ftp://a/", None),
    ],
)
def test_a_star_in_the_host_of_an_address_stays_in_the_host(
    pattern: str, url: str, fits: bool | None
) -> None:
    """Path, login and port of another host make it no allowed one; what is read differently is neither."""
    assert fits_url(pattern, url) is fits


@pytest.mark.parametrize(
    ("rule", "spec", "expected"),
    [
        (policy(labels=("team",)), job(), ["the label team is missing"]),
        (policy(labels=("team", "tier")), job(labels={"team": "x"}), ["the label tier is missing"]),
        (policy(labels=("team",)), queue(labels={"team": ""}), []),
        (policy(needs=("description",)), queue(), ["it has no description"]),
        (policy(needs=("description",)), job(description="x"), []),
        (policy(needs=("protect",)), job(), ["it has no protect: write protect: true"]),
        (policy(needs=("protect",)), job(protect=True), []),
        (policy(needs=("timeout",)), job(), ["it has no timeout"]),
        (policy(needs=("timeout",)), job(timeout="5m"), []),
        (policy(needs=("timeout",)), queue(), []),
        (policy(needs=("timeout",)), job(mode="direct"), ["leave mode: direct out, which takes none"]),
        (policy(needs=("alert",)), job(alert={"after": 3}), ["nobody is told when it fails"]),
        (policy(needs=("alert",)), job(alert={"channels": ["ops"]}), []),
        (policy(needs=("role",)), worker(), ["it has no role"]),
        (policy(needs=("role",)), worker(role="r"), []),
        (policy(modes=("direct",)), job(mode="direct"), ["mode direct is forbidden: write mode: managed"]),
        (policy(modes=("direct",)), job(), []),
        (policy(bodies=("http", "handler")), job(**HTTP), ["a body of http is forbidden"]),
        (policy(bodies=("sql",)), job(handler="h", sql=None), []),
        (policy(roles=("postgres", "rds_*")), job(role="rds_admin"), ["the role rds_admin is forbidden"]),
        (policy(roles=("postgres",)), job(), []),
        (policy(databases=("t*",)), job(database="template1"), ["the database template1 is forbidden"]),
        (policy(good_urls=("https://*.example.com/*",)), job(**HTTP), []),
        (policy(good_urls=("https://b.example.com/*",)), job(**HTTP), ["this address is forbidden"]),
        (policy(good_urls=("https://b.example.com/*",)), job(), []),
        (policy(bad_urls=("https://*.example.com",)), worker(), ["this address is forbidden"]),
        (policy(bad_urls=("http://*",)), worker(), []),
        (policy(bad_urls=("http://*",)), worker(url="https://a\\b/"), ["this address is forbidden"]),
        (policy(timeout=timedelta(hours=1)), job(timeout="1h"), []),
        (policy(timeout=timedelta(hours=1)), job(timeout="1h1s"), ["its timeout is 1h1s: write timeout: 1h"]),
        (policy(timeout=timedelta(hours=1)), job(), ["it has no timeout, and 1h is the longest"]),
        (policy(timeout=timedelta(minutes=30)), queue(), ["its timeout is 1h: write timeout: 30m"]),
        (policy(timeout=timedelta(minutes=30)), worker(), []),
        (policy(retries=5), job(on_failure={"retries": 6}), ["it has 6 retries: 5 at the most"]),
        (policy(retries=0), job(), []),
        (policy(retries=4), queue(), []),
        (policy(retries=3), queue(), ["it has 4 retries: 4 tries in all at the most"]),
        (policy(runs_per_hour=60), worker(), []),
        (policy(runs_per_hour=59), worker(), ["it runs 60 times within an hour, more than 59"]),
        (policy(runs_per_hour=60), job(every="30s"), ["it runs 120 times within an hour, more than 60"]),
        (policy(runs_per_hour=1), job(after=["b"]), []),
        (policy(runs_per_hour=1), job(schedule="* * * * *", active=False), []),
    ],
)  # fmt: skip
def test_a_policy_says_what_a_spec_lacks_or_has_too_much(
    rule: SpecPolicy, spec: Spec, expected: list[str]
) -> None:
    """One fault for each way in which it is broken, with what to write; none where all is well."""
    found = faults(rule, spec)
    assert len(found) == len(expected)
    for fault, part in zip(found, expected, strict=True):
        assert part in fault


@pytest.mark.parametrize(
    ("declared", "limit", "count"),
    [
        ({"schedule": "* * * * *"}, 60, 0),
        ({"every": "7m"}, 8, 9),
        ({"every": "7m"}, 9, 0),
        ({"every": "90m"}, 1, 0),
        ({"schedule": "0,59 * * * *"}, 1, 2),
        ({"schedule": "0,59 * * * *"}, 2, 0),  # and so have 08:59 to 09:58
        ({"schedule": "0,50 8 * * *"}, 1, 2),
        ({"schedule": "50-59 23,0 * * *"}, 10, 0),
        ({"schedule": "30-59 23 * * *"}, 29, 30),
        ({"schedule": "0-29,45-59 0,23 1 * *"}, 44, 45),
        ({"schedule": "0 0 29 2 *"}, 1, 0),
        ({"schedule": "0,1 0 29 2 *"}, 1, 2),
        ({"schedule": "* * * * *", "blackout": [{"from": "00:10", "to": "24:00"}]}, 10, 0),
        ({"schedule": "* * * * *", "blackout": [{"from": "00:10", "to": "24:00"}]}, 9, 10),
        ({"schedule": "0-5 * * * *",
          "blackout": [{"from": "00:01", "to": "01:00"}, {"from": "01:01", "to": "24:00"}]}, 1, 0),
        ({"schedule": "* * * * *", "blackout": [{"last": "2026-12-31"}]}, 59, 60),
        ({"schedule": "* * * * *", "blackout": [{"first": "2000-01-01"}]}, 1, 0),
    ],
)  # fmt: skip
def test_runs_are_counted_as_they_come(declared: dict[str, Any], limit: int, count: int) -> None:
    """The most runs in any sixty minutes count, across hours and midnights, without those left out."""
    timing = make_timing(job(**declared), "UTC")
    assert timing is not None
    found = find_crowd(timing, limit)
    assert found == count


@pytest.mark.parametrize(
    ("match", "is_meant"),
    [
        (Match(), True),
        (Match(kinds=("job", "queue")), True),
        (Match(kinds=("worker",)), False),
        (Match(names=("x", "tenant-*")), True),
        (Match(names=("tenant",)), False),
        (Match(labels=(("team", "delivery"),)), True),
        (Match(labels=(("team", "del*"), ("tier", "*"))), False),
        (Match(kinds=("job",), names=("tenant-*",), labels=(("team", "billing"),)), False),
    ],
)
def test_a_policy_is_about_what_all_of_its_match_fits(match: Match, is_meant: bool) -> None:
    """Kind, name and labels hold together; what is left out fits all."""
    spec = job("tenant-7", labels={"team": "delivery"})
    assert bool(faults(policy(match=match, needs=("description",)), spec)) is is_meant


def test_a_message_says_who_what_why_and_where() -> None:
    """The resource, the fault with its remedy, the policy with its place and reason; and the key at fault."""
    spec = job("tidy", role="postgres")
    violation = SpecJudge([policy("plain", roles=("postgres",))], role="").judge([spec])[0]
    assert violation.message == (
        "job tidy: the role postgres is forbidden: write role with another; "
        "policy plain (reconciler.yaml:9:5): Experience"
    )
    assert violation.path == ("role",)


def test_the_role_of_the_target_counts_for_what_names_none() -> None:
    """A job without a role has that of the target, and once it is known that of who applies."""
    rule = policy(roles=("postgres",))
    assert len(faults(rule, job(), role="postgres")) == 1
    assert faults(rule, job(role="runner"), role="postgres") == []
    found = find_forbidden_roles([job("a"), job("b", role="x"), queue()], [rule], role="postgres")
    assert [violation.spec.name for violation in found] == ["a"]
    assert find_forbidden_roles([job("a")], [rule], role="runner") == ()
    assert find_forbidden_roles([job("a")], [replace(rule, level="warn")], role="postgres") == ()


def test_a_warning_is_a_notice_for_each_policy() -> None:
    """What only warns is said once, with the names of all that it is about."""
    rules = [policy("b", labels=("team",), level="warn"), policy("a", labels=("team",))]
    notices = find_warnings([job("y"), job("x")], rules, role="")
    assert [(notice.code, notice.names) for notice in notices] == [("policy", ("x", "y"))]
    assert notices[0].message == (
        "policy b (reconciler.yaml:9:5): Experience; the label team is missing: write it below labels"
    )


def change(action: Action = "delete", name: str = "a", kind: Kind = "job", **fields: Any) -> Change:
    """Make a change."""
    document = Snapshot(document=render_canonical(fields.pop("before", {})), entry=None)
    after = Snapshot(document=render_canonical(fields.pop("after", {})), entry=None)
    return Change(
        action=action,
        kind=kind,
        name=name,
        reason="removed",
        before=None if action == "create" else document,
        after=None if action == "delete" else after,
        **fields,
    )


def refusals(rule: ChangePolicy, one: Change, *, now: datetime = FRIDAY, emergency: str = "") -> str:
    """Judge a change by one policy; "" where it is not refused."""
    verdict = judge_changes([one], Governance(changes=(rule,)), now=now, emergency=emergency)
    obstacle = verdict.changes[0].obstacle
    return "" if obstacle is None else f"{obstacle.kind}: {obstacle.why} -- {obstacle.remedy}"


@pytest.mark.parametrize(
    ("rule", "one", "now", "refused"),
    [
        (on_changes(), change(), FRIDAY, True),
        (on_changes(), change(), MONDAY, False),
        (on_changes(), change("update"), FRIDAY, False),
        (on_changes(verbs=("create", "update")), change("create"), FRIDAY, True),
        (on_changes(verbs=("create", "update")), change("adopt"), FRIDAY, False),
        (on_changes(match=Match(kinds=("channel",))), change(), FRIDAY, False),
        (on_changes(match=Match(kinds=("channel",)), window=None), change(kind="channel"), MONDAY, True),
        (on_changes(match=Match(names=("billing-*",))), change(name="billing-x"), FRIDAY, True),
        (on_changes(verbs=("update",), match=Match(names=("billing-*",))),
         change("update", "free", renamed_from="billing-x"), FRIDAY, True),
        (on_changes(verbs=("update",), match=Match(labels=(("tier", "1"),))),
         change("update", before={"labels": {"tier": "1"}}), FRIDAY, True),
        (on_changes(verbs=("update",), match=Match(labels=(("tier", "1"),))),
         change("update", after={"labels": {"tier": "1"}}), FRIDAY, True),
        (on_changes(verbs=("update",), match=Match(labels=(("tier", "1"),))),
         change("update", after={"labels": {"tier": "2"}}), FRIDAY, False),
        (on_changes(window=Blackout(days=(5,), start=960, end=480), timezone="Europe/Oslo"),
         change(), FRIDAY.replace(hour=14, minute=59), False),
        (on_changes(window=Blackout(days=(5,), start=960, end=480), timezone="Europe/Oslo"),
         change(), FRIDAY.replace(hour=15), True),
        (on_changes(window=Blackout(days=(5,), start=960, end=480), timezone="Europe/Oslo"),
         change(), FRIDAY.replace(day=28, hour=6, minute=59), True),
        (on_changes(level="warn"), change(), FRIDAY, False),
        (on_changes(), change(name="reconciler-runner"), FRIDAY, False),
    ],
)  # fmt: skip
def test_a_policy_refuses_changes_at_its_times(
    rule: ChangePolicy, one: Change, now: datetime, refused: bool
) -> None:
    """By action, kind, either name and either labels, on the clocks of its own zone."""
    assert refusals(rule, one, now=now).startswith("refused: ") is refused


def test_a_refusal_says_who_why_and_until_when() -> None:
    """The change, the policy with its place and reason, the time, and when to apply instead."""
    rule = on_changes("calm", window=Blackout(days=(5,), start=960, end=480), timezone="Europe/Oslo")
    assert refusals(rule, change(name="tidy")) == (
        "refused: delete of job tidy is forbidden: policy calm (reconciler.yaml:9:5): Experience (from 16:00 "
        "to 08:00 the next day on Fridays Europe/Oslo, and it is Fri 2026-11-27 19:00+01:00) -- apply at "
        "Sat 2026-11-28 08:00+01:00 or later, or apply in an emergency with --emergency REASON, which the "
        "revision keeps"
    )
    assert refusals(on_changes("law", window=None), change(name="tidy")) == (
        "refused: delete of job tidy is forbidden: policy law (reconciler.yaml:9:5): Experience -- leave "
        "tidy as it is, or change law first, in a reviewed step of its own"
    )


def test_an_obstacle_that_is_there_stays() -> None:
    """What cannot be made anyway is not judged."""
    obstacle = Obstacle(kind="rights", why="w", remedy="r")
    verdict = judge_changes(
        [change(obstacle=obstacle)], Governance(changes=(on_changes(window=None),)), now=FRIDAY
    )
    assert verdict.changes[0].obstacle == obstacle


def test_an_emergency_overrides_times_and_not_what_is_never_allowed() -> None:
    """It says what it overrides, and nothing where there was nothing."""
    freeze = ChangeWindows(freezes=(Freeze(window=Blackout(), because="Audit"),))
    governance = Governance(changes=(on_changes("calm"), on_changes("law", window=None)), windows=freeze)
    calm = Governance(changes=governance.changes[:1], windows=freeze)
    verdict = judge_changes([change()], calm, now=FRIDAY, emergency="fire")
    assert (verdict.closed, verdict.changes[0].obstacle) == (None, None)
    assert [notice.code for notice in verdict.notices] == ["emergency"]
    assert "(fire)" in verdict.notices[0].message
    assert "(Audit)" in verdict.notices[0].message
    assert "policy calm" in verdict.notices[0].message
    obstacle = judge_changes([change()], governance, now=FRIDAY, emergency="fire").changes[0].obstacle
    assert obstacle is not None
    assert "policy law" in obstacle.why
    assert "policy calm" not in obstacle.why
    assert judge_changes([change()], Governance(), now=FRIDAY, emergency="fire").notices == ()
    assert judge_changes([change()], calm, now=FRIDAY).closed is not None


_matches = st.builds(
    Match,
    kinds=st.sampled_from([(), ("job",), ("queue",)]),
    names=st.sampled_from([(), ("a*",), ("*b",)]),
    labels=st.sampled_from([(), (("team", "x"),)]),
)
_levels = st.sampled_from(["refuse", "warn"])
_on_specs = st.builds(
    policy,
    level=_levels,
    match=_matches,
    labels=st.sampled_from([(), ("team",)]),
    modes=st.sampled_from([(), ("direct",)]),
    runs_per_hour=st.sampled_from([None, 1, 60]),
)
_on_changes = st.builds(
    on_changes,
    level=_levels,
    match=_matches,
    verbs=st.sampled_from([("delete",), ("create", "update"), ("update", "delete")]),
    window=st.sampled_from([None, Blackout(), Blackout(days=(5,)), Blackout(days=(1,))]),
)


def _named(rules: list[Any]) -> list[Any]:
    return [replace(rule, name=f"p{number}") for number, rule in enumerate(rules)]


@settings(max_examples=60, deadline=None)
@given(st.lists(_on_specs, max_size=5).map(_named), st.lists(_on_changes, max_size=5).map(_named), st.data())
def test_the_order_of_policies_decides_nothing(
    on_specs: list[SpecPolicy], about: list[ChangePolicy], data: st.DataObject
) -> None:
    """Any order of the same policies gives the same verdicts, to the letter."""
    specs: list[Spec] = [job("ab"), job("b", mode="direct", labels={"team": "x"}), queue(), worker()]
    changes = [change(action, name, kind) for action in ACTIONS for name in "ab" for kind in ("job", "queue")]
    emergency = data.draw(st.sampled_from(["", "fire"]))

    def judge(some: list[SpecPolicy], others: list[ChangePolicy]) -> tuple[Any, ...]:
        violations = SpecJudge(some, role="").judge(specs)
        return (
            [(one.spec.name, one.policy.name, one.path, one.fault) for one in violations],
            find_warnings(specs, some, role=""),
            judge_changes(changes, Governance(changes=tuple(others)), now=FRIDAY, emergency=emergency),
        )

    expected = judge(on_specs, about)
    assert judge(data.draw(st.permutations(on_specs)), data.draw(st.permutations(about))) == expected
