"""Runs, revisions and alerts over the API, with whatever people send."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.declared import job, queue
from tests.runs import call, fire, hold, make_due, runner, running

if TYPE_CHECKING:
    from httpx import Response

    from tests.declared import Site
    from tests.served import Served

pytestmark = pytest.mark.one_server

RUNS = "/api/v1/runs"
SQL = "x'; DROP TABLE reconciler.jobs; --"
DIRECT = """
INSERT INTO cron.job_run_details
       (jobid, runid, job_pid, username, command, status, return_message, start_time, end_time)
SELECT jobid, %s, 77, username, command, %s, 'ERROR:  broken', now() - %s::interval, now()
  FROM cron.job WHERE jobname = 'direct'
"""
WRONG_QUERIES = [
    *("status=done", "status=", "status=failed&status=done", "limit=0", "limit=501", "name=%00", "since="),
    *("since=soon", "since=-1h", "since=0s", "since=20y", "since=%00", "since=0001-01-01T00:00:00%2B10:00"),
    *("cursor=garbage", "cursor=W10", "cursor=WzFd", "cursor=WyJhIiwxLDFd", "name=" + "n" * 201),
]
WRONG_IDS = ["x", "c", "cc1", "-1", "1.5", "1%00", "C1", "9223372036854775808", "c99999999999999999999", SQL]


def refusal(answer: Response) -> tuple[int, str]:
    """Return status and detail of a problem, which has its form."""
    document = answer.json()
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    assert (document["status"], bool(document["remedy"])) == (answer.status_code, True)
    return answer.status_code, str(document["detail"])


def collect(served: Served, path: str, **query: Any) -> list[dict[str, Any]]:
    """Return a list, page by page."""
    found: list[dict[str, Any]] = []
    while True:
        answer = served.get(path, params=query)
        assert answer.status_code == 200, answer.text
        found += answer.json()["items"]
        if answer.json()["next_cursor"] is None:
            return found
        query["cursor"] = answer.json()["next_cursor"]


def ids(served: Served, **query: Any) -> list[str]:
    """Return the runs of a list, page by page."""
    return [run["id"] for run in collect(served, RUNS, **query)]


def add_runs(site: Site, *rows: tuple[str, str, str]) -> None:
    """Write runs into the log: job, status, and how long ago each began."""
    for name, status, age in rows:
        site.run(
            "INSERT INTO reconciler.cron_execution_log"
            " (job_name, run_at, completed_at, status, role, backend_pid)"
            " VALUES (%s, now() - %s::interval, now(), %s, 'x', 1)",
            *(name, age, status),
        )


@pytest.fixture
def mixed(served: Served) -> Served:
    """A service with runs of the log and of pg_cron's own records, one after the other by time."""
    served.site.apply(job("a"), job("b"), job("direct", mode="direct"))
    log = [("a", "failed", "9 h"), ("b", "succeeded", "7 h"), ("a", "succeeded", "5 h"), ("a", "lost", "8 h")]
    add_runs(served.site, *log, ("b", "failed", "1 h"))
    for run_id, status, age in ((11, "succeeded", "6 h"), (12, "failed", "2 h"), (13, "running", "1 m")):
        served.site.run(DIRECT, *(run_id, status, age))
    return served


def test_both_kinds_of_runs_are_one_list(mixed: Served) -> None:
    """By time, whatever the length of a page; a run that was written late holds up no other one."""
    everything = ids(mixed)
    numbers = {run["id"]: run["run_at"] for run in collect(mixed, RUNS)}
    assert [one.lstrip("c") in "11 12 13" for one in everything[:3]] == [True, False, True]
    assert len(everything) == len(numbers) == 8
    late = next(run["id"] for run in collect(mixed, RUNS, status="lost"))
    for limit in range(1, 9):
        paged = ids(mixed, limit=limit)
        assert sorted(paged) == sorted(everything)
        assert [one for one in paged if one != late] == [one for one in everything if one != late]
    assert sorted(numbers.values(), reverse=True) == [numbers[one] for one in everything]
    assert ids(mixed, limit=1)[:3] == everything[:3]
    for name, count in (("a", 3), ("b", 2), ("direct", 3), ("nobody", 0), (SQL, 0)):
        found = collect(mixed, RUNS, name=name, limit=2)
        assert [run["name"] for run in found] == [name] * count
        assert [run["run_at"] for run in found] == sorted((run["run_at"] for run in found), reverse=True)


def test_runs_that_come_meanwhile_change_no_page_behind(mixed: Served) -> None:
    """Whichever of the two lists they come to."""
    for name in (None, "direct", "a"):
        query = {"limit": 1} if name is None else {"limit": 1, "name": name}
        before = ids(mixed, **query)
        first = mixed.get(RUNS, params=query).json()
        add_runs(mixed.site, ("a", "succeeded", "1 s"), ("b", "succeeded", "10 h"))
        number = mixed.site.rows("SELECT max(runid) + 1 FROM cron.job_run_details")[0][0]
        mixed.site.run(DIRECT, *(number, "succeeded", "1 s"))
        assert ids(mixed, **query, cursor=first["next_cursor"]) == before[1:]


def test_runs_are_chosen(mixed: Served) -> None:
    """By one status or several, by age, and by an instant; all together hold in each page."""
    failed = [run["status"] for run in collect(mixed, RUNS, status=["failed", "lost"], limit=2)]
    assert sorted(failed) == ["failed", "failed", "failed", "lost"]
    assert ids(mixed, status="running") == ["c13"]
    recent = ids(mixed, since="150m", limit=1)
    assert recent[0] == "c13"
    assert recent[2] == "c12"
    at = mixed.get(f"{RUNS}/c12").json()["run_at"]
    assert ids(mixed, since=at, limit=2) == recent == ids(mixed, since=at.replace("Z", "+00:00"))
    assert ids(mixed, since="3h", status="failed", name="direct") == ["c12"]
    assert ids(mixed, since="2099-01-01T00:00:00Z") == []


def test_a_run_is_told_with_everything(served: Served) -> None:
    """Its error, its tries and what is still to come; instants end in Z, durations are seconds."""
    retries: Any = {"on_failure": {"retries": 2, "backoff": {"initial": "1h"}}}
    served.site.apply(job("a", "SELECT 1/0", **retries), job("direct", mode="direct"))
    fire(served.site)
    [listed] = collect(served, RUNS)
    shown = served.get(f"{RUNS}/{listed['id']}").json()
    assert {name: shown[name] for name in listed} == listed
    assert (shown["error_message"], shown["error_sqlstate"]) == ("division by zero", "22012")
    assert (shown["duration_seconds"] >= 0, shown["run_at"][-1]) == (True, "Z")
    assert [one["id"] for one in shown["attempts"]] == [shown["id"]]
    [waiting] = shown["waiting"]
    assert (waiting["trigger"], waiting["attempt"], waiting["due_at"][-1]) == ("retry", 2, "Z")
    make_due(served.site)
    runner(served.site)
    second = served.get(f"{RUNS}/{int(shown['id']) + 1}").json()
    assert (second["trigger"], second["chain_id"], len(second["attempts"])) == ("retry", shown["id"], 2)
    served.site.run(DIRECT, *(5, "failed", "1 h"))
    direct = served.get(f"{RUNS}/c5").json()
    assert (direct["id"], direct["name"], direct["error_message"]) == ("c5", "direct", "ERROR:  broken")
    assert ([one["id"] for one in direct["attempts"]], direct["waiting"]) == (["c5"], [])


def test_runs_are_cancelled(served: Served) -> None:
    """One that runs is told; one that is over, one that is not there and one of pg_cron's are refused."""
    served.site.apply(job("a", hold()), job("direct", mode="direct"))
    with running(served.site) as run:
        path = f"{RUNS}/{run.run}/cancel"
        assert refusal(served.post(path, scopes=("read", "write", "run")))[0] == 403
        answer = served.post(path, scopes=("trigger",))
        assert (answer.status_code, answer.json()) == (202, {"id": str(run.run), "status": "cancelling"})
        run.end()
    over = refusal(served.post(path, scopes=("trigger",)))
    assert over == (409, f"run {run.run} is cancelled, and stays so")
    served.site.run(DIRECT, *(5, "running", "1 m"))
    assert refusal(served.post(f"{RUNS}/c5/cancel", scopes=("trigger",)))[0] == 409
    assert refusal(served.post(f"{RUNS}/999/cancel", scopes=("trigger",)))[0] == 404
    calls = served.get("/api/v1/calls").json()["items"]
    assert [one["status"] for one in calls if one["action"] == "run.cancel"] == [404, 409, 409, 202]


def test_a_run_whose_process_is_gone_is_told_to_be_lost(served: Served) -> None:
    """Asking to cancel it finds that out, and writes it down."""
    served.site.apply(job("a"))
    served.site.run(
        "INSERT INTO reconciler.cron_execution_log (job_name, status, role, backend_pid)"
        " VALUES ('a', 'running', current_user, 1)"
    )
    [run] = ids(served)
    answer = served.post(f"{RUNS}/{run}/cancel", scopes=("trigger",))
    assert (answer.status_code, answer.json()["status"]) == (200, "lost")
    assert served.get(f"{RUNS}/{run}").json()["status"] == "lost"


def test_whatever_is_sent_is_answered(served: Served) -> None:
    """Wrong queries are 422, ids that no run has 404 or 422; nothing is a fault of the service."""
    served.site.apply(job("a"))
    call(served.site, "a")
    assert {query: refusal(served.get(f"{RUNS}?{query}"))[0] for query in WRONG_QUERIES} == dict.fromkeys(
        WRONG_QUERIES, 422
    )
    for one in WRONG_IDS:
        assert refusal(served.get(f"{RUNS}/{one}"))[0] in {404, 422}, one
        assert refusal(served.post(f"{RUNS}/{one}/cancel", scopes=("trigger",)))[0] in {404, 422}, one
    assert refusal(served.get(f"{RUNS}/c1"))[0] == 404
    assert refusal(served.get(RUNS, scopes=("trigger", "write")))[0] == 403


def test_who_may_not_read_the_records_of_pg_cron_sees_the_log(served: Served) -> None:
    """A target without pg_cron has the log too."""
    served.site.apply(job("a"))
    call(served.site, "a")
    served.site.run("DROP EXTENSION pg_cron CASCADE")
    assert len(ids(served)) == 1
    assert refusal(served.get(f"{RUNS}/c1"))[0] == 404


def test_revisions_tell_what_was_changed_field_by_field(served: Served) -> None:
    """The newest first, in pages; each with its changes as its plan showed them."""
    site = served.site
    path = "/api/v1/revisions"
    first = len(collect(served, path))
    site.apply(job("a", schedule="0 1 * * *"), queue("q"))
    site.apply(job("a", schedule="0 2 * * *", timeout="5m"), queue("q"))
    site.apply(job("b"), owner="others")
    heads = collect(served, path, limit=1)[: 3 + first]
    assert [(head["owner"], head["names"]) for head in heads[:3]] == [
        ("others", ["b"]),
        ("shop", ["a"]),
        ("shop", ["q", "a"]),
    ]
    assert [head["names"] for head in collect(served, path, owner="others")] == [["b"]]
    assert heads[1]["counts"] == {
        **dict.fromkeys(("create", "adopt", "retire", "delete", "release"), 0),
        "update": 1,
    }
    assert (heads[1]["actor"], heads[1]["commit"], heads[1]["applied_at"][-1]) == ("anna", "c0ffee", "Z")
    shown = served.get(f"{path}/{heads[1]['revision']}").json()
    assert {name: shown[name] for name in heads[1]} == heads[1]
    [change] = shown["changes"]
    assert (change["action"], change["kind"], change["name"], change["reason"]) == (
        *("update", "job", "a"),
        "edited",
    )
    changed = {one["path"]: (one["before"], one["after"]) for one in change["fields"]}
    assert changed["entry.schedule"] == ("0 1 * * *", "0 2 * * *")
    assert changed["spec.timeout"] == (None, "5m")
    assert change["after"]["entry"]["schedule"] == "0 2 * * *"
    for number in ("0", "x", "9223372036854775808", "999", "9223372036854775807"):
        assert refusal(served.get(f"{path}/{number}"))[0] in {404, 422}
    for query in ("limit=501", "owner=%00", "cursor=garbage"):
        assert refusal(served.get(f"{path}?{query}"))[0] == 422


def test_alerts_tell_what_became_of_their_messages(served: Served) -> None:
    """Those that are open, or all; the newest first, in pages."""
    site = served.site
    path = "/api/v1/alerts"
    alert: Any = {"alert": {"channels": ["ops"], "on": ["failed"]}}
    site.apply(job("a", "SELECT 1/0", **alert), job("b", "SELECT 1/0", **alert))
    for name in ("a", "b"):
        fire(site, name)
    site.run("UPDATE reconciler.alerts SET resolved_at = now() WHERE job_name = 'a'")
    site.run("UPDATE reconciler.alert_deliveries SET status = 'sent', sent_at = now(), attempts = 1")
    [shown] = collect(served, path)
    [run, *_] = collect(served, RUNS, name="b")
    assert (shown["job_name"], shown["kind"], shown["run_id"]) == ("b", "failed", run["id"])
    assert (shown["resolved_at"], shown["opened_at"][-1]) == (None, "Z")
    [delivery] = shown["deliveries"]
    assert (delivery["channel"], delivery["status"], delivery["sent_at"][-1]) == ("ops", "sent", "Z")
    everything = collect(served, path, state="all", limit=1)
    assert [one["job_name"] for one in everything] == ["b", "a"]
    assert everything == collect(served, path, state="all")
    for query in ("state=closed", "limit=0", "cursor=garbage", "cursor=W251bGwsbnVsbF0"):
        assert refusal(served.get(f"{path}?{query}"))[0] == 422
