"""Policies and windows on a real target: refused changes change nothing, and an emergency is written down."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from reconciler.core.change_windows import ChangeWindows, Freeze
from reconciler.core.hidden import Hidden
from reconciler.core.policies import ChangePolicy, Governance, Match, SpecPolicy
from reconciler.core.specs import Blackout, Place
from reconciler.database.apply import apply_target, plan_target
from reconciler.database.connect import connect
from reconciler.database.secrets import StoredSecret
from reconciler.errors import RefusedError
from tests.declared import Site, job, request

if TYPE_CHECKING:
    from reconciler.core.plan import Plan
    from reconciler.core.specs import Spec
    from reconciler.database.apply import Applied
    from reconciler.database.statements import Request
    from tests.conftest import Cli

pytestmark = pytest.mark.one_server


PLACE = Place(path="reconciler.yaml", line=4, column=5)
BOTH = (job("tidy"), job("count"))
ONE = (job("tidy"),)


def ask(governance: Governance, *specs: Spec, emergency: str = "") -> Request:
    """Make a request for a target with rules, which deletes what is not declared."""
    wanted = request(*specs, prune="auto")
    return replace(wanted, target=replace(wanted.target, governance=governance), emergency=emergency)


def apply(site: Site, wanted: Request) -> Applied:
    """Apply."""
    with connect(site.dsn) as conn:
        return apply_target(conn, wanted)


def plan(site: Site, wanted: Request) -> Plan:
    """Plan."""
    with connect(site.dsn) as conn:
        return plan_target(conn, wanted).plan


def forbid(window: Blackout | None, *, names: tuple[str, ...] = ()) -> Governance:
    """Forbid to delete."""
    policy = ChangePolicy(
        name="calm",
        because="Nobody is there to mend it",
        place=PLACE,
        match=Match(names=names),
        verbs=("delete",),
        window=window,
    )
    return Governance(changes=(policy,))


def days_around(now: datetime) -> tuple[int, ...]:
    """Name the day of an instant and its neighbours, so that a midnight in between changes nothing."""
    return tuple(sorted((now + timedelta(days=days)).isoweekday() % 7 for days in (-1, 0, 1)))


def frozen() -> Governance:
    """Freeze the present."""
    today = datetime.now(UTC).date()
    window = Blackout(first=today - timedelta(days=1), last=today + timedelta(days=1))
    return Governance(windows=ChangeWindows(freezes=(Freeze(window=window, because="Christmas"),)))


def test_a_delete_on_a_forbidden_day_is_refused(site: Site) -> None:
    """It says who forbids it, where and why, and leaves all as it was; on another day it is done."""
    site.apply(*BOTH)
    before = site.everything()
    days = days_around(datetime.now(UTC))
    wanted = ask(forbid(Blackout(days=days)), *ONE)
    with pytest.raises(RefusedError) as refused:
        apply(site, wanted)
    assert (
        "nothing was changed: delete of job count is forbidden: policy calm (reconciler.yaml:4:5): "
        "Nobody is there to mend it (on " in str(refused.value)
    )
    assert "or apply in an emergency with --emergency REASON" in refused.value.remedy
    assert site.everything() == before
    assert [change.name for change in plan(site, wanted).refused] == ["count"]
    others = tuple(day for day in range(7) if day not in days)
    apply(site, ask(forbid(Blackout(days=others)), *ONE))
    assert site.rows("SELECT jobname::text FROM cron.job ORDER BY 1") == [("tidy",)]


def test_other_changes_are_not_hindered(site: Site) -> None:
    """What may not be deleted can be changed, and the rule holds for what it names alone."""
    site.apply(*BOTH)
    apply(site, ask(forbid(None, names=("tidy",)), job("tidy", "SELECT 2")))
    assert site.rows("SELECT name FROM reconciler.definitions WHERE kind = 'job'") == [("tidy",)]
    with pytest.raises(RefusedError, match="delete of job tidy is forbidden"):
        apply(site, ask(forbid(None, names=("tidy",)), job("other")))


def test_a_frozen_target_refuses_an_apply(site: Site) -> None:
    """It says when it opens and changes nothing, no migration either; where nothing is to do all is well."""
    with pytest.raises(RefusedError, match="apply is frozen"):
        apply(site, ask(frozen()))
    assert site.rows("SELECT to_regnamespace('reconciler')::text") == [(None,)]
    site.apply(*BOTH)
    before = site.everything()
    with pytest.raises(RefusedError) as refused:
        apply(site, ask(frozen(), *ONE))
    assert "(Christmas) UTC" in refused.value.message
    assert "it opens at " in refused.value.remedy
    assert [notice.code for notice in plan(site, ask(frozen(), *ONE)).notices] == ["closed"]
    assert apply(site, ask(frozen(), *BOTH)).revision is None
    assert site.everything() == before


def test_a_new_secret_waits_for_the_window_too(site: Site) -> None:
    """The same value is none; a new one alone is not brought to a frozen target."""
    specs = (job("call", http={"url": "https://a.test", "token": {"secret": "shop"}}),)
    secrets = {"shop": StoredSecret(value=Hidden("one"))}
    apply(site, replace(ask(Governance(), *specs), secrets=secrets))
    wanted = replace(ask(frozen(), *specs), secrets=secrets)
    assert apply(site, wanted).secrets == ()
    with pytest.raises(RefusedError, match=r"new values of secrets \(shop\)"):
        apply(site, replace(wanted, secrets={"shop": StoredSecret(value=Hidden("two"))}))
    assert site.rows("SELECT value FROM reconciler.secrets") == [("one",)]


def test_an_emergency_passes_and_is_written_down(site: Site) -> None:
    """It overrides windows and forbidden times, the revision keeps the reason; always forbidden stays so."""
    site.apply(*BOTH)
    calm = forbid(Blackout(), names=("count",))
    law = forbid(None, names=("tidy",))
    rules = Governance(changes=calm.changes + law.changes, windows=frozen().windows)
    reason = "count locks the shop's tables"
    applied = apply(site, ask(rules, *ONE, emergency=reason))
    notice = next(notice for notice in applied.plan.notices if notice.code == "emergency")
    assert notice.message.startswith(f"in an emergency ({reason}) this does not count: it is ")
    assert "policy calm" in notice.message
    assert notice.names == ("count",)
    assert site.rows("SELECT summary ->> 'emergency' FROM reconciler.revisions ORDER BY id") == [
        (None,),
        (reason,),
    ]
    with pytest.raises(RefusedError, match="delete of job tidy is forbidden"):
        apply(site, ask(rules, job("other"), emergency=reason))


def test_the_role_that_applies_is_judged_too(site: Site) -> None:
    """What names no role runs as the role that applies, which is known once that is connected."""
    policy = SpecPolicy(name="plain", because="It may do anything", place=PLACE, roles=("postgres",))
    wanted = ask(Governance(specs=(policy,)), job("tidy"), job("own", role="runner", mode="direct"))
    with pytest.raises(RefusedError, match="job tidy: the role postgres, which it has since it names none"):
        apply(site, wanted)
    warning = replace(policy, level="warn")
    notices = plan(
        site, replace(wanted, target=replace(wanted.target, governance=Governance(specs=(warning,))))
    ).notices
    assert [notice.names for notice in notices if notice.code == "policy"] == [("tidy",)]


def test_the_command_line_exits_with_4_unless_there_is_an_emergency(site: Site, cli: Cli) -> None:
    """A frozen target refuses apply and not plan; --emergency needs a reason, and passes."""
    (cli.directory / "reconciler.yaml").write_text(
        f'owner: shop\ntargets:\n  test: {{dsn: "{site.dsn}", runtime: false,\n'
        "    windows: {apply: {freeze: [{first: 2026-01-01, because: Audit}]}}}\n"
    )
    (cli.directory / "jobs.d").mkdir()
    (cli.directory / "jobs.d" / "shop.yaml").write_text("jobs: {tidy: {daily: '03:00', sql: SELECT 1}}\n")
    planned = cli("plan", "--exit-code")
    assert planned.exit_code == 3
    assert "Note [closed]" in planned.stdout
    refused = cli("apply", "--yes")
    assert refused.exit_code == 4
    assert "apply is frozen from 2026-01-01 on (Audit) UTC" in refused.stderr
    assert "it does not open again" in refused.stderr
    assert site.rows("SELECT to_regnamespace('reconciler')::text") == [(None,)]
    for reason in ("", "\x1b[2J"):
        assert cli("apply", "--yes", "--emergency", reason).exit_code == 2
    applied = cli("apply", "--yes", "--emergency", "the audit asked for it")
    assert (applied.exit_code, applied.stderr) == (0, "")
    assert "in an emergency (the audit asked for it)" in applied.stdout
