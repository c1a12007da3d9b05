"""Jobs over HTTP: what is listed and shown, what is changed and by whom, and whatever else is sent."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from reconciler.runtime.spec_files import WatchedSpecFiles
from tests.declared import NEVER, Site, channel, job, queue, worker
from tests.runs import call, runner
from tests.served import Served, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from httpx import Response

pytestmark = pytest.mark.one_server

PATH = "/api/v1/cron/jobs"
TIDY: dict[str, Any] = {"name": "tidy", "schedule": NEVER, "sql": "SELECT 1"}
CALL: dict[str, Any] = {"name": "call", "schedule": NEVER}
TRIGGER = ("trigger",)


@pytest.fixture
def served(site: Site) -> Iterator[Served]:
    """The service of an empty database, which lets jobs call one host that is not public."""
    with serve(site, allowed_hosts=frozenset({"app.internal"})) as made:
        yield made


def told(response: Response) -> tuple[int, str]:
    """Return status and text of a problem."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    document = response.json()
    assert document["status"] == response.status_code
    return response.status_code, f"{document['detail']} | {document['remedy']}"


def declared(served: Served, name: str = "tidy") -> dict[str, Any]:
    """Return what is declared of a job."""
    ((spec,),) = served.site.rows("SELECT spec FROM reconciler.definitions WHERE name = %s", name)
    found: dict[str, Any] = spec
    return found


def test_a_job_is_shown_with_all_that_is_known_of_it(site: Site, served: Served) -> None:
    """What is declared and where, its entry, how it fares, when it runs next; jobs of all owners."""
    site.apply(
        job("orders", "SELECT 1/0", schedule="30 2 1 1 *", description="Brings orders", labels={"team": "a"}),
        job("direct", mode="direct", protect=True),
    )
    call(site, "orders")
    site.run("SELECT reconciler.pause_job('orders', NULL, 'moving house')")
    response = served.get(f"{PATH}/orders")
    shown = response.json()
    entry = site.entry("orders")
    assert shown["spec"]["sql"] == "SELECT 1/0"
    assert (shown["owner"], shown["source"], shown["mode"]) == ("shop", "jobs.d/shop.yaml:3", "managed")
    assert shown["entry"] == {
        key: entry[key] for key in ("jobid", "schedule", "command", "database", "username", "active")
    }
    assert (shown["state"], shown["last_status"], shown["last_error"]) == (
        "paused",
        "failed",
        "division by zero",
    )
    assert (shown["pause_reason"], shown["paused_by"], shown["paused_until"]) == (
        "moving house",
        "postgres",
        None,
    )
    assert (shown["labels"], shown["description"]) == ({"team": "a"}, "Brings orders")
    assert len(shown["next_runs"]) == 5
    assert shown["next_runs"][0] == shown["next_run_at"]
    assert shown["next_run_at"].endswith("-01-01T02:30:00Z")
    assert shown["recent_runs"][0]["status"] == "failed"
    ((digest,),) = site.rows("SELECT digest FROM reconciler.definitions WHERE name = 'orders'")
    assert response.headers["etag"] == f'"{digest}"'
    direct = served.get(f"{PATH}/direct").json()
    assert (direct["mode"], direct["protect"]) == ("direct", True)


def test_what_nobody_declared_is_shown_and_exported(site: Site, served: Served) -> None:
    """It has no ETag; its export keeps its command, and what cannot be declared is refused."""
    site.run("SELECT cron.schedule('by-hand', '0 0 29 2 *', 'SELECT ''${var:x}''')")
    site.run(
        "SELECT cron.schedule('0 0 29 2 *', 'SELECT 1'), cron.schedule('By Hand', '0 0 29 2 *', 'SELECT 1')"
    )
    response = served.get(f"{PATH}/by-hand")
    assert (response.json()["kind"], response.json()["owner"], response.json()["spec"]) == (
        "entry",
        None,
        None,
    )
    assert response.json()["entry"]["command"] == "SELECT '${var:x}'"
    assert "etag" not in response.headers
    assert yaml.safe_load(served.get(f"{PATH}/by-hand/spec").text) == {
        "jobs": {"by-hand": {"schedule": "0 0 29 2 *", "sql": "SELECT '$${var:x}'", "mode": "direct"}}
    }
    unnamed = next(one for one in served.get(PATH).json()["items"] if one["name"] == "")
    assert told(served.get(f"{PATH}/{unnamed['jobid']}/spec"))[1].startswith(
        f"the entry with the jobid {unnamed['jobid']} cannot be declared: it has no name"
    )
    assert told(served.get(f"{PATH}/By%20Hand/spec"))[0] == 409
    for response in (
        served.put(f"{PATH}/by-hand", json={"schedule": NEVER, "sql": "SELECT 2"}),
        served.delete(f"{PATH}/by-hand"),
        served.post(f"{PATH}/by-hand/trigger", scopes=TRIGGER),
        served.post(f"{PATH}/by-hand/pause", scopes=TRIGGER),
    ):
        status, text = told(response)
        assert status == 409
        assert "nobody declared" in text
        assert "reconciler import" in text
    assert told(served.post(PATH, json={**TIDY, "name": "by-hand"}))[0] == 409
    assert site.entry("by-hand")["command"] == "SELECT '${var:x}'"


def test_the_list_is_searched_and_paged(site: Site, served: Served) -> None:
    """By the server; each page says where the next one begins, and what is left out is counted."""
    site.apply(*(job(f"j{number}") for number in range(5)), worker("push", labels={"team": "mail"}))
    site.apply(job("failing", "SELECT 1/0"), owner="kitchen")
    call(site, "failing")
    names: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = served.get(PATH, params={"limit": 3, **cursor}).json()
        names += [one["name"] for one in page["items"]]
        assert page["total"] == 7
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert names == ["failing", "j0", "j1", "j2", "j3", "j4", "push"]
    assert page["counts"] == {"failing": 1, "ok": 5, "no_entry": 1}
    assert page["hides_entries"] is False
    for query, expected in (
        ({"state": "failing"}, ["failing"]),
        ({"owner": "kitchen"}, ["failing"]),
        ({"kind": "worker"}, ["push"]),
        ({"q": "TEAM=mail"}, ["push"]),
        ({"q": "' OR true --"}, []),
        ({"q": "%"}, []),
        ({"owner": ""}, []),
    ):
        assert [one["name"] for one in served.get(PATH, params=query).json()["items"]] == expected
    assert served.get(f"{PATH}?own=true&q=tick").status_code == 200


def test_a_job_is_made_with_the_owner_api(site: Site, served: Served) -> None:
    """It is applied at once, with a revision that tells who made it; the answer is what a GET gives."""
    created = served.post(PATH, json={**TIDY, "timeout": "1m", "payload": {}, "labels": {"team": "a"}})
    assert told(created) if created.status_code == 400 else created.status_code == 400
    created = served.post(PATH, json={**TIDY, "timeout": "1m", "labels": {"team": "a"}})
    assert created.status_code == 201
    assert created.json() == served.get(created.headers["location"]).json()
    assert created.headers["etag"] == served.get(f"{PATH}/tidy").headers["etag"]
    assert site.rows("SELECT owner, source FROM reconciler.definitions WHERE name = 'tidy'") == [
        ("api", "api/write:1")
    ]
    assert site.rows("SELECT owner, actor FROM reconciler.revisions ORDER BY id DESC LIMIT 1") == [
        ("api", "api/write")
    ]
    assert site.rows(
        "SELECT jobname::text FROM cron.job WHERE starts_with(jobname::text, 'reconciler-') ORDER BY 1"
    ) == [
        ("reconciler-runner",),
        ("reconciler-tick",),
    ]
    assert told(served.post(PATH, json=TIDY)) == (
        409,
        "there is a job tidy already | change it with PUT /api/v1/cron/jobs/tidy",
    )


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        ({}, ["name: the job needs one"]),
        ({"name": 5}, ["name: the job needs one"]),
        ({"name": "tidy"}, ["job tidy has no trigger", "job tidy"]),
        ({**TIDY, "name": "A b"}, ["'A b' is no name"]),
        ({**TIDY, "name": "${var:x}"}, ["is no name"]),
        ({**TIDY, "name": "reconciler-x"}, ["names that begin with reconciler- are the tool's own"]),
        ({**TIDY, "name": "x'; DROP TABLE reconciler.definitions; --"}, ["is no name"]),
        ({**TIDY, "schedule": "0 0 * *"}, ["the schedule '0 0 * *'"]),
        ({**TIDY, "schedule": "${var:x}"}, ["the schedule '${var:x}'"]),
        ({**TIDY, "timeout": "${var:x}"}, ["timeout"]),
        ({**TIDY, "daily": "02:30"}, ["two triggers"]),
        ({**TIDY, "handler": "a.b"}, ["job tidy"]),
        ({**TIDY, "sql": "VACUUM"}, ["it needs mode: direct"]),
        ({**TIDY, "time_out": "1s", "timezone": 5}, ["unknown key 'time_out' in job tidy", "timezone"]),
        ({**TIDY, "after": ["orders"]}, ["unknown job 'orders'"]),
        ({**TIDY, "alert": {"channels": ["ops"]}}, ["unknown channel 'ops'"]),
        ({**TIDY, "targets": ["a"], "overrides": {}, "renamed_from": "x"},
         ["targets: it", "overrides: it", "renamed_from: it"]),
        ({**TIDY, "sql": "SELECT '\0'"}, ["sql: it holds a character"]),
        ({**TIDY, "payload": {"a": [1.5, {"\0": 1}]}}, ["a key of payload.a.1: it holds a character"]),
        ({**CALL, "http": {"url": "http://10.0.0.1/", "token": {"secret": "x"}}, "timeout": "x"},
         ["http.url: the host 10.0.0.1 leads to an address that is not", "http.token: what", "timeout"]),
        ({**CALL, "http": {"url": "https://nowhere.invalid/"}}, ["nowhere.invalid does not resolve"]),
        ({**CALL, "http": {"url": "http://localhost:5432/"}}, ["localhost is this machine"]),
        ({**CALL, "http": {"url": "http://2130706433/"}}, ["an unusual spelling"]),
        ({**CALL, "http": {"url": "https://a:b@example.com/"}}, ["a user or a password"]),
        ({**CALL, "http": {"url": 5}}, ["url"]),
    ],
)  # fmt: skip
def test_all_that_is_wrong_is_told_at_once(served: Served, body: dict[str, Any], messages: list[str]) -> None:
    """With the words that files get, as 400; nothing is changed."""
    before = served.site.rows("SELECT count(*) FROM reconciler.definitions")
    status, text = told(served.post(PATH, json=body))
    assert status == 400
    for message in messages:
        assert message in text
    assert served.site.rows("SELECT count(*) FROM reconciler.definitions") == before


def test_broken_bodies_are_refused(served: Served) -> None:
    """Whatever is sent in place of a job is an error of whoever sent it."""
    for content in (
        b"",
        b"{",
        b"[]",
        b'"tidy"',
        b"null",
        b"\xff\xfe",
        b'{"name": "tidy", "schedule": "\\ud800", "sql": "SELECT 1"}',
        b'{"name": "\\ud800", "schedule": "' + NEVER.encode() + b'", "sql": "SELECT 1"}',
        b'{"name": "tidy", "schedule": "' + NEVER.encode() + b'", "sql": "SELECT 1", "payload": {"a": NaN}}',
        b'{"name": "a", "payload": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"name": "a", "payload": ' + b'{"a":' * 200 + b"1" + b"}" * 200 + b"}",
        b'{"name": "a", "payload": ' + b"9" * 5000 + b"}",
    ):
        response = served.post(PATH, content=content, headers={"Content-Type": "application/json"})
        assert told(response)[0] == 400, (content[:60], response.text)
    assert told(served.post(PATH, json=TIDY, scopes=("read", "trigger", "run")))[0] == 403
    assert told(served.post(PATH, json=TIDY, scopes=()))[0] == 401


def test_ids_that_do_not_exist(served: Served) -> None:
    """404 with the nearest right name, or 422 for what can be none; never an error of ours."""
    served.site.apply(job("nightly-report"))
    assert told(served.get(f"{PATH}/nightly-raport")) == (
        404,
        "there is no job nightly-raport | did you mean nightly-report?",
    )
    for name in (
        "nothing",
        "99999",
        "9" * 30,
        "-1",
        "1e5",
        "%27%3B%20DROP%20TABLE%20x%3B--",
        "%F0%9F%90%98",
        "%ed%a0%80",
    ):
        for response in (
            served.get(f"{PATH}/{name}"),
            served.get(f"{PATH}/{name}/spec"),
            served.put(f"{PATH}/{name}", json={"schedule": NEVER, "sql": "SELECT 1"}),
            served.delete(f"{PATH}/{name}"),
            served.post(f"{PATH}/{name}/trigger", scopes=TRIGGER),
            served.post(f"{PATH}/{name}/pause", scopes=TRIGGER),
            served.post(f"{PATH}/{name}/resume", scopes=TRIGGER),
        ):
            assert told(response)[0] == 404, name
    for name in ("%00", "a%00b", "a" * 300):
        assert told(served.get(f"{PATH}/{name}"))[0] == 422
    for query in (
        "limit=0", "limit=501", "limit=99999999999999999999", "limit=x", "cursor=x", "cursor=WyJhIixudWxsXQ",
        "q=%00", "state=odd", "kind=queue", f"q={'a' * 300}", "own=perhaps",
    ):  # fmt: skip
        assert told(served.get(f"{PATH}?{query}"))[0] == 422, query


def test_a_job_is_changed_by_who_knows_what_it_is(site: Site, served: Served) -> None:
    """PUT declares it anew, whole; with an If-Match that is not right any more nothing is done."""
    first = served.post(PATH, json={**TIDY, "timeout": "1m"}).headers["etag"]
    jobid = site.entry("tidy")["jobid"]
    body = {"schedule": "1 0 29 2 *", "sql": "SELECT 2"}
    assert told(served.put(f"{PATH}/tidy", json=body, headers={"If-Match": '"other"'}))[0] == 412
    assert told(served.put(f"{PATH}/tidy", json=body, headers={"If-Match": ""}))[0] == 422
    changed = served.put(f"{PATH}/{jobid}", json=body, headers={"If-Match": f'"other", {first}'})
    assert (changed.status_code, declared(served)) == (200, body)
    assert (site.entry("tidy")["jobid"], site.entry("tidy")["schedule"]) == (jobid, "1 0 29 2 *")
    refused = served.put(f"{PATH}/tidy", json=body, headers={"If-Match": first})
    assert (told(refused)[0], refused.headers["etag"]) == (412, changed.headers["etag"])
    assert told(served.delete(f"{PATH}/tidy", headers={"If-Match": first}))[0] == 412
    assert (
        served.put(f"{PATH}/tidy", json={**body, "name": "tidy"}, headers={"If-Match": "*"}).status_code
        == 200
    )
    assert told(served.put(f"{PATH}/tidy", json={**body, "name": "other"}))[0] == 400
    assert told(served.put(f"{PATH}/tidy", json={"sql": "SELECT 1"}))[0] == 400
    assert declared(served) == body
    assert served.delete(f"{PATH}/tidy", headers={"If-Match": changed.headers["etag"]}).status_code == 204


def test_drift_is_put_right_by_a_put(site: Site, served: Served) -> None:
    """As by an apply: what somebody changed by hand is as declared afterwards."""
    served.post(PATH, json=TIDY)
    site.run("SELECT cron.unschedule('tidy')")
    assert served.get(f"{PATH}/tidy").json()["state"] == "missing"
    assert served.put(f"{PATH}/tidy", json=TIDY).status_code == 200
    assert site.entry("tidy")["schedule"] == NEVER


def test_what_files_declare_is_not_changed(site: Site, served: Served) -> None:
    """409 with the owner and the line; nobody's permissions make it otherwise, and it can still be run."""
    site.apply(job("orders"), worker("push"), worker("in-sql"))
    site.run("UPDATE reconciler.definitions SET owner = 'sql' WHERE name = 'in-sql'")
    before = site.everything()
    for response in (
        served.post(PATH, json={**TIDY, "name": "orders"}),
        served.put(f"{PATH}/orders", json={"schedule": "nonsense"}),
        served.delete(f"{PATH}/orders"),
    ):
        status, text = told(response)
        assert (status, text.partition(" | ")[0]) == (
            409,
            "job orders is declared in jobs.d/shop.yaml:3 by the owner shop",
        )
    assert told(served.delete(f"{PATH}/push"))[1].startswith("worker push is declared in jobs.d/shop.yaml:3")
    assert told(served.delete(f"{PATH}/in-sql"))[1].startswith("worker in-sql was made in SQL")
    assert told(served.post(PATH, json={**TIDY, "name": "push"}))[0] == 409
    after = site.everything()
    assert {table: rows for table, rows in after.items() if "api_" not in table} == {
        table: rows for table, rows in before.items() if "api_" not in table
    }
    assert served.post(f"{PATH}/orders/trigger", scopes=TRIGGER).status_code == 202


def test_what_cannot_be_deleted_is_refused(site: Site, served: Served) -> None:
    """A protected job, and one that others wait for."""
    served.post(PATH, json={**TIDY, "protect": True})
    served.post(PATH, json={**TIDY, "name": "first"})
    served.post(PATH, json={"name": "then", "after": ["first"], "sql": "SELECT 1"})
    assert "protected" in told(served.delete(f"{PATH}/tidy"))[1]
    assert told(served.delete(f"{PATH}/first"))[1].startswith("then would wait for first for ever")
    assert served.delete(f"{PATH}/then").status_code == 204
    assert served.delete(f"{PATH}/first").status_code == 204
    assert told(served.delete(f"{PATH}/first"))[0] == 404
    assert site.rows(
        "SELECT name FROM reconciler.definitions WHERE owner = 'api' AND name !~ '^reconciler-'"
    ) == [("tidy",)]


def test_a_job_is_run_paused_and_resumed(site: Site, served: Served) -> None:
    """By a token for that; asking twice before it began is asking once."""
    site.apply(job("orders"), job("direct", mode="direct"))
    one = served.post(f"{PATH}/orders/trigger", scopes=TRIGGER)
    two = served.post(f"{PATH}/orders/trigger", scopes=TRIGGER)
    assert (one.status_code, one.json()) == (202, two.json())
    runner(site)
    assert site.rows("SELECT start_id, trigger FROM reconciler.cron_execution_log") == [
        (one.json()["start_id"], "manual")
    ]
    until = (datetime.now(UTC) + timedelta(days=2)).replace(microsecond=0)
    paused = served.post(
        f"{PATH}/orders/pause", scopes=TRIGGER, json={"until": until.isoformat(), "reason": "moving"}
    )
    assert paused.json() == {
        "name": "orders",
        "paused": True,
        "until": until.isoformat().replace("+00:00", "Z"),
    }
    for_long = served.post(f"{PATH}/orders/pause", scopes=TRIGGER, json={"for": "2h"}).json()
    assert datetime.fromisoformat(for_long["until"]) < until
    assert served.post(f"{PATH}/orders/pause", scopes=TRIGGER).json()["until"] is None
    assert served.get(f"{PATH}/orders").json()["state"] == "paused"
    assert served.post(f"{PATH}/orders/resume", scopes=TRIGGER).json() == {
        "name": "orders", "paused": False, "was_paused": True,
    }  # fmt: skip
    assert served.post(f"{PATH}/orders/resume", scopes=TRIGGER).json()["was_paused"] is False
    for body in (
        {"for": "2h", "until": until.isoformat()}, {"for": "soon"}, {"for": "99999999w"}, {"for": "0s"},
        {"until": "2001-01-01T00:00:00Z"}, {"until": "tomorrow"}, {"reason": "\0"}, {"odd": 1}, {"reason": 5},
    ):  # fmt: skip
        assert told(served.post(f"{PATH}/orders/pause", scopes=TRIGGER, json=body))[0] == 422, body
    for action in ("trigger", "pause", "resume"):
        assert "mode: direct" in told(served.post(f"{PATH}/direct/{action}", scopes=TRIGGER))[1]
        assert told(served.post(f"{PATH}/orders/{action}", scopes=("read", "write")))[0] == 403


def test_what_is_retired_is_not_run(site: Site, served: Served) -> None:
    """It stands still until it is deleted."""
    site.apply(job("old"))
    site.run("UPDATE reconciler.definitions SET retired_at = now(), retired_until = '2099-01-01'")
    assert "retired" in told(served.post(f"{PATH}/old/trigger", scopes=TRIGGER))[1]
    assert served.get(f"{PATH}/old").json()["next_runs"] == []


def test_hosts_of_the_operator_may_be_called(served: Served) -> None:
    """A name that was allowed is not looked up, whatever it leads to; others are."""
    body = {**CALL, "http": {"url": "http://app.internal/x", "expect": "2xx"}}
    assert served.post(PATH, json=body).status_code == 201
    assert declared(served, "call") == {"schedule": NEVER, "http": body["http"]}
    other = {**CALL, "http": {"url": "http://other.internal/x"}}
    assert "does not resolve" in told(served.put(f"{PATH}/call", json=other))[1]


def test_what_the_server_alone_can_judge_is_told(served: Served) -> None:
    """A role that is not there, another database: 400, and nothing is changed."""
    for fields, message in (
        ({"role": "nobody"}, "role: the server has no role nobody"),
        ({"database": "elsewhere"}, "a managed job runs in the target's own database"),
    ):
        status, text = told(served.post(PATH, json={**TIDY, **fields}))
        assert (status, message in text) == (400, True), text
    assert served.get(PATH).json()["items"] == []


def test_an_entry_that_is_sent_as_it_stands_is_taken_over(site: Site, served: Served) -> None:
    """It keeps its jobid; another job under its name is refused, and nothing is written over."""
    site.run("SELECT cron.schedule('by-hand', '0 0 29 2 *', 'SELECT 1')")
    entry = site.entry("by-hand")
    status, text = told(served.post(PATH, json={**TIDY, "name": "by-hand"}))
    assert (status, "that nobody declared | to take it over, send it as GET" in text) == (409, True), text
    assert site.entry("by-hand") == entry
    as_it_stands = yaml.safe_load(served.get(f"{PATH}/by-hand/spec").text)["jobs"]["by-hand"]
    assert served.post(PATH, json={"name": "by-hand", **as_it_stands}).status_code == 201
    assert site.entry("by-hand") == entry


def test_another_apply_is_waited_for_a_moment(
    site: Site, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it is 409, with when to come again."""
    monkeypatch.setattr("reconciler.api.own_jobs._PATIENCE", 0.0)
    served.post(PATH, json=TIDY)
    with site.database.connect().transaction() as tx:
        tx.connection.execute("SELECT pg_advisory_xact_lock(7411530208936421)")
        for response in (served.put(f"{PATH}/tidy", json=TIDY), served.delete(f"{PATH}/tidy")):
            assert told(response) == (409, "another apply works on this target | call again in a moment")
            assert response.headers["retry-after"] == "5"


def test_a_copy_of_a_database_is_left_alone(site: Site, served: Served) -> None:
    """Until somebody claims it: no job is made, changed, deleted or run."""
    served.post(PATH, json=TIDY)
    site.run("UPDATE reconciler.identity SET database_oid = 1, system_identifier = 1")
    for response in (
        served.post(PATH, json={**TIDY, "name": "other"}),
        served.put(f"{PATH}/tidy", json={**TIDY, "sql": "SELECT 2"}),
        served.delete(f"{PATH}/tidy"),
    ):
        status, text = told(response)
        assert (status, "copy" in text) == (409, True), text
    assert declared(served) == {"schedule": NEVER, "sql": "SELECT 1"}


def test_the_policies_of_the_target_hold(site: Site, tmp_path: Path) -> None:
    """What files may not declare, the service may not either; files that cannot be read permit nothing."""
    (tmp_path / "jobs.d").mkdir()
    own = {"schedule": NEVER, "sql": "SELECT 1", "labels": {"team": "a"}}
    (tmp_path / "jobs.d" / "shop.yaml").write_text(json.dumps({"jobs": {"orders": own}}))
    config = tmp_path / "reconciler.yaml"
    config.write_text(
        json.dumps(
            {
                "owner": "shop",
                "jobs": ["jobs.d"],
                "targets": {"test": {"dsn": site.dsn}},
                "policies": [{"name": "teams", "because": "so", "require": {"labels": ["team"]}}],
            }
        )
    )
    files = WatchedSpecFiles(config, environment={})
    with serve(site, files=files) as served:
        status, text = told(served.post(PATH, json=TIDY))
        assert (status, "teams" in text) == (400, True), text
        labelled = {**TIDY, "labels": {"team": "a"}}
        assert served.post(PATH, json=labelled).status_code == 201
        (tmp_path / "jobs.d" / "broken.yaml").write_text("jobs: [")
        refused = served.post(PATH, json={**labelled, "name": "other"})
        assert (told(refused)[0], refused.headers["retry-after"]) == (503, "60")
        assert served.get(f"{PATH}/tidy").status_code == 200


def test_an_export_declares_the_same_job(site: Site, served: Served) -> None:
    """Whatever its texts hold: read as a file, it gives the same document."""
    site.apply(queue("mail"), channel("ops"))
    body = {
        "name": "odd",
        "daily": "02:30",
        "timezone": "Europe/Oslo",
        "handler": "mail.welcome",
        "queue": "mail",
        "description": "It costs ${5}: 'yes' #no\nand on",
        "payload": {"text": "${var:x}", "yes": "no", "n": 1.0, "list": [None, True, "0x1", "1e3", ""]},
        "alert": {"channels": ["ops"], "on": ["failed"]},
        "labels": {"on": "off"},
    }
    assert served.post(PATH, json=body).status_code == 201
    response = served.get(f"{PATH}/odd/spec")
    assert response.headers["content-type"].startswith("application/yaml")
    read = yaml.safe_load(response.text)["jobs"]["odd"]
    assert read["description"] == body["description"].replace("${", "$${")  # type: ignore[attr-defined]
    assert read["payload"] == {**body["payload"], "text": "$${var:x}"}  # type: ignore[dict-item]
    assert read["labels"] == {"on": "off"}


def test_writes_are_done_once_for_each_key(site: Site, served: Served) -> None:
    """And written down: who did what, and what was answered."""
    headers = {"Idempotency-Key": "one"}
    first = served.post(PATH, json=TIDY, headers=headers)
    again = served.post(PATH, json=TIDY, headers=headers)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    assert site.rows("SELECT count(*) FROM reconciler.revisions WHERE owner = 'api'") == [(1,)]
