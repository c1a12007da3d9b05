"""A plan in time, on real servers: next runs, one that would come twice, one that goes on, other clocks."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click
import jsonschema
import pytest

from reconciler.cli import render_text
from reconciler.core import plan_documents
from reconciler.core.pull_comment import Subject, render_comment
from reconciler.core.times.run_rates import count_per_day
from reconciler.core.times.timings import make_entry_timing
from reconciler.errors import RefusedError
from reconciler.resources import read_resource
from tests.declared import Site, job, once, worker
from tests.runs import hold, running, statuses, tick, wait_for_pg_cron
from tests.servers import wait_until

if TYPE_CHECKING:
    from reconciler.database.apply import Planned
    from tests.servers import Database


@pytest.fixture
def site(database: Database) -> Site:
    """An empty database."""
    return Site(database)


def show_json(planned: Planned) -> dict[str, Any]:
    """Return the times of each change by name, of JSON that fits its schema."""
    plan = json.loads(plan_documents.render_plan(planned.plan, planned.fingerprints()))
    schema = json.loads(read_resource("schemas", "plan.schema.json"))
    jsonschema.validate(plan, schema, cls=jsonschema.Draft202012Validator)
    return {change["name"]: change["times"] for change in plan["changes"]}


def show_text(planned: Planned) -> str:
    """Return the text of a plan without its colours."""
    return click.unstyle(render_text.render_plan(planned.plan))


def show_markdown(planned: Planned) -> str:
    """Render a plan as Markdown."""
    value = plan_documents.make_value(planned.plan, planned.fingerprints())
    return render_comment(value, Subject(target=planned.plan.target))


def at_minute(moment: datetime) -> str:
    """Return the schedule of a job that comes each day at a moment."""
    return f"{moment.minute} {moment.hour} * * *"


def test_a_new_job_is_shown_with_its_next_runs(site: Site) -> None:
    """By the server's clock and in the job's zone, in all three formats, before there is anything of ours."""
    planned = site.plan(job("a", schedule="30 2 * * *", timezone="Europe/Oslo"), worker("w"))
    assert planned.observed.now is not None
    assert abs(datetime.now(UTC) - planned.observed.now) < timedelta(minutes=1)
    times = show_json(planned)["a"]
    runs = [datetime.fromisoformat(run) for run in times["after"]["next_runs"]]
    assert len(runs) == 3
    assert all(planned.observed.now < run < planned.observed.now + timedelta(days=4) for run in runs)
    assert (times["before"], times["after"]["words"]) == (None, "every day at 02:30 Europe/Oslo")
    text = show_text(planned)
    assert "      runs      every day at 02:30 Europe/Oslo\n      next      20" in text
    assert "02:30 CE" in text
    markdown = show_markdown(planned)
    assert "Runs every day at" in markdown
    assert "Next `20" in markdown


def test_a_run_that_would_come_twice_is_shown(site: Site) -> None:
    """A daily job that was due a moment ago is put off to a moment from now."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    earlier, later = now - timedelta(minutes=5), now + timedelta(minutes=5)
    site.apply(job("a", schedule=at_minute(earlier)))
    planned = site.plan(job("a", schedule=at_minute(later)))
    twice = f"was due at {earlier:%Y-%m-%d %H:%MZ}, and would run again at {later:%Y-%m-%d %H:%MZ}"
    assert f"      ! {twice}\n" in show_text(planned)
    assert f"**Would run again** at `{later:%Y-%m-%dT%H:%M:00Z}`" in show_markdown(planned)
    times = show_json(planned)["a"]
    assert times["last_run"] == earlier.isoformat().replace("+00:00", "Z")
    assert times["doubled"] == [later.isoformat().replace("+00:00", "Z")]
    assert [len(times[side]["next_runs"]) for side in ("before", "after")] == [3, 3]


def test_a_run_that_would_be_left_out_is_shown(site: Site) -> None:
    """A daily job that is due in a moment is put forward to a moment ago."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    earlier, later = now - timedelta(minutes=5), now + timedelta(minutes=5)
    site.apply(job("a", schedule=at_minute(later)))
    planned = site.plan(job("a", schedule=at_minute(earlier)))
    assert f"      ! the run at {later:%Y-%m-%d %H:%MZ} would be left out" in show_text(planned)
    assert show_json(planned)["a"]["skipped"] == [later.isoformat().replace("+00:00", "Z")]


def test_an_edit_of_the_body_shows_no_times(site: Site) -> None:
    """When it runs does not change."""
    site.apply(job("a"))
    assert show_json(site.plan(job("a", "SELECT 2"))) == {"a": None}


def test_a_run_that_goes_on_is_shown_and_goes_on(site: Site) -> None:
    """Whatever is edited meanwhile; apply lets it end as it began, and takes no harm from it."""
    site.apply(job("a", hold(1)))
    with running(site, "a") as run:
        planned = site.plan(job("a", "SELECT 2", schedule="5 0 29 2 *"))
        fate = "apply does not stop it: it goes on with what it began with"
        assert f"      ! running now: run {run.run}, since 20" in show_text(planned)
        assert fate in show_text(planned)
        times = show_json(planned)["a"]
        assert ([going["run"] for going in times["running"]], times["fate"]) == ([run.run], fate)
        site.apply(job("a", "SELECT 2", schedule="5 0 29 2 *"))
        assert statuses(site) == ["running"]
        assert run.end() is None
    assert statuses(site) == ["succeeded"]
    assert show_json(site.plan(job("a", "SELECT 3", schedule="5 0 29 2 *"))) == {"a": None}


def test_a_run_that_goes_on_is_shown_though_the_job_is_renamed(site: Site) -> None:
    """It is logged under the old name."""
    site.apply(job("a", hold(1)))
    with running(site, "a") as run:
        planned = site.plan(job("b", hold(1), renamed_from="a"))
        assert [going["run"] for going in show_json(planned)["b"]["running"]] == [run.run]


def test_a_run_whose_entry_goes_ends_as_the_plan_says(any_mode_database: Database) -> None:
    """Over connections it goes on to its end, in a background worker it is ended and lost."""
    site = Site(any_mode_database)
    server = any_mode_database.server
    if server.pg_cron < (1, 5, 0):
        pytest.skip("its shortest interval is a minute")
    site.apply(job("a", "SELECT pg_sleep(5)", schedule="1 second"))
    # The last one: a busy machine may look late, when the next one follows.
    wait_for_pg_cron(site, lambda: statuses(site)[-1:] == ["running"], what="the entry has fired")
    planned = site.plan(prune="auto")
    is_lost = "the log calls it lost" in show_text(planned)
    assert is_lost == server.background_workers
    assert is_lost or "its statement goes on to the end" in show_text(planned)
    site.apply(prune="auto", allow_deletes=1)

    def has_ended() -> bool:
        tick(site)
        return statuses(site)[-1:] != ["running"]

    wait_until(has_ended, seconds=20, what="the run has ended")
    *earlier, last = statuses(site)
    assert (set(earlier) - {"succeeded"}, last) == (set(), "lost" if is_lost else "succeeded")


@pytest.mark.parametrize("schedule", ["* * * * *", "0 * * * *"])
def test_what_another_clock_made_of_a_schedule_is_drift(site: Site, schedule: str) -> None:
    """What was applied by other time zone data is drift, though nobody edited; the next apply mends it."""
    daily = job("a", schedule="0 8 * * *", timezone="Europe/Oslo")
    site.apply(daily)
    wanted = site.entry("a")["schedule"]
    site.run("UPDATE cron.job SET schedule = %s WHERE jobname = 'a'", schedule)
    site.run("UPDATE reconciler.definitions SET schedule = %s WHERE name = 'a'", schedule)
    assert site.changes(daily) == [("update", "a", "drifted")]
    planned = site.plan(daily)
    times = show_json(planned)["a"]
    assert (times["same_times"], times["after"]["words"]) == (True, "every day at 08:00 Europe/Oslo")
    fires = count_per_day(make_entry_timing(schedule, "GMT"), now=datetime.now(UTC))
    assert times["before"]["woken_per_day"] == pytest.approx(fires)
    assert "every day at 08:00 Europe/Oslo (the same times as before)" in show_text(planned)
    site.apply(daily)
    assert (site.changes(daily), site.entry("a")["schedule"]) == ([], wanted)


def test_a_one_time_job_of_the_past_is_not_applied(site: Site) -> None:
    """It would run at once; nothing else of the plan is applied either."""
    past = once("o", datetime.now(UTC) - timedelta(seconds=1))
    planned = site.plan(past, job("a"))
    assert [change.name for change in planned.plan.refused] == ["o"]
    with pytest.raises(RefusedError, match=r"job o is to run once at .*, which is past"):
        site.apply(past, job("a"))
    assert site.rows("SELECT to_regnamespace('reconciler')") == [(None,)]


def test_the_servers_clocks_are_compared(site: Site) -> None:
    """It tells of the zones that are declared and of its own; other clocks than ours would be noticed."""
    planned = site.plan(job("a", schedule="0 8 * * *", timezone="Europe/Oslo"))
    assert set(planned.observed.clocks) == {"Europe/Oslo", "GMT"}
    offsets = {ahead for _, ahead in planned.observed.clocks["Europe/Oslo"]}
    assert offsets == {3600, 7200}
    assert "zone_data" not in {notice.code for notice in planned.plan.notices}
