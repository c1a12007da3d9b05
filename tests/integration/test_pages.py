"""The dashboard, as somebody with a browser sees it: signing in, looking, pressing buttons."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest

import reconciler.api.pages
from reconciler.api.callers import KnownCallers
from reconciler.api.pages.static_files import NAMES, read_static
from reconciler.database.api_tokens import revoke_token
from reconciler.runtime.thread_connections import ThreadConnections
from tests.declared import channel, job, worker
from tests.pages import Browser, Node
from tests.runs import call, runner
from tests.served import serve

if TYPE_CHECKING:
    from tests.declared import Site
    from tests.served import Served

pytestmark = pytest.mark.one_server

HOSTILE = "<script>alert('1')</script>\u202e\"&"
PAGES = Path(reconciler.api.pages.__file__).parent


def names(page: Node) -> list[str]:
    """Return the names of the jobs that a page lists."""
    return [row.find(class_="name").text for row in page.find("tbody").find_all("tr")]


def test_nobody_looks_without_a_token(served: Served) -> None:
    """Who is not signed in is sent to where one does so, and from there back; a part sends the whole."""
    guest = Browser(served)
    assert guest.get("/", 303).headers["location"] == "/login"
    assert (
        guest.get("/jobs/a?told=paused", 303).headers["location"] == "/login?next=%2Fjobs%2Fa%3Ftold%3Dpaused"
    )
    part = guest.get("/jobs/a", 401, HX_Request="true")
    assert part.headers["hx-redirect"] == "/login?next=%2Fjobs%2Fa"
    form = guest.look("/login?next=/jobs/a").find("form")
    assert form.find("input", name="next").attributes["value"] == "/jobs/a"
    assert form.find("input", name="token").attributes["type"] == "password"
    assert guest.send("/jobs/a/run", {}).headers["location"] == "/login"
    # The API's own header opens no page.
    assert served.get("/", scopes=("read",), follow_redirects=False).status_code == 303


def test_a_token_signs_in_for_pages_alone(served: Served) -> None:
    """It lies in a cookie that no script and no other site can use; the API does not take it."""
    guest = Browser(served)
    answer = guest.send("/login", {"token": f" {served.token('read')} ", "next": "/jobs/a?x=1"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs/a?x=1")
    cookie = answer.headers["set-cookie"].lower()
    assert {part.strip() for part in cookie.split(";")[1:]} == {"httponly", "path=/", "samesite=strict"}
    guest.look("/")
    assert served.client.get("/api/v1/calls").status_code == 401
    served.client.base_url = "https://testserver"
    assert "; secure" in guest.send("/login", {"token": served.token("read")}).headers["set-cookie"].lower()


@pytest.mark.parametrize(
    "path", ["https://evil.example/", "//evil.example", "/\\evil.example", "\\\\evil", "/%0d%0ax"]
)
def test_signing_in_leads_to_no_other_site(served: Served, path: str) -> None:
    """Whatever a link to the sign-in page says."""
    answer = Browser(served).send("/login", {"token": served.token("read"), "next": unquote(path)})
    assert answer.headers["location"] == "/"
    assert Browser(served).look(f"/login?next={path}").find("input", name="next").attributes["value"] == "/"


def test_a_wrong_token_signs_nobody_in(served: Served) -> None:
    """Nor does one that may not read; the page says why."""
    guest = Browser(served)
    for token in ("", "x", served.token("read")[:-1], "x" * 100_000):
        answer = guest.send("/login", {"token": token})
        assert answer.status_code == 401
        assert "unknown, expired or revoked" in answer.text
    answer = guest.send("/login", {"token": served.token("trigger")})
    assert answer.status_code == 403
    assert "lacks the scope read" in answer.text
    assert not served.client.cookies


def test_a_session_ends_with_its_token(site: Site) -> None:
    """Expired or revoked: the next page asks for another one, says why, and forgets the cookie."""
    now, clock = [datetime(2026, 12, 1, 8, tzinfo=UTC)], [0.0]
    with serve(site, now=lambda: now[0], known_callers=KnownCallers(clock=lambda: clock[0])) as served:
        short = served.make_token("short", expires_at=now[0] + timedelta(hours=1))
        guest = Browser(served)
        guest.send("/login", {"token": short})
        guest.look("/")
        now[0] += timedelta(hours=2)
        assert guest.get("/", 303).headers["location"] == "/login?why=ended"
        assert "expired" in guest.look("/login?why=ended").find(id="why").text
        assert not served.client.cookies
        reader = Browser(served, "read")
        with site.database.server.connect() as conn:
            revoke_token(conn, "read")
        clock[0] += 6
        assert reader.get("/", 303).headers["location"] == "/login?why=ended"


def test_signing_out_forgets_the_token(served: Served) -> None:
    """A form does it, so that no other site can."""
    reader = Browser(served, "read")
    page = reader.press(reader.look("/"), "/logout")
    assert page.find(id="why").text == "You are signed out."
    assert reader.get("/", 303).headers["location"] == "/login"


def test_a_link_on_another_site_leads_to_its_page(served: Served) -> None:
    """Browsers keep the cookie back on the first step from elsewhere: the page takes a second one itself."""
    guest = Browser(served)
    answer = guest.get("/jobs/a", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")
    assert 'content="0; url=/jobs/a"' in answer.text
    guest.get("/jobs/a", 303, Sec_Fetch_Site="same-origin", Sec_Fetch_Mode="navigate")


def test_forms_of_others_are_refused(site: Site, served: Served) -> None:
    """Those of another site, and those without the session's own key; nothing is done."""
    site.apply(job("a"))
    other = Browser(served, "read", "trigger", "write")
    theirs = other.look("/jobs/a").find("input", name="csrf").attributes["value"]
    mine = Browser(served, "read", "trigger")
    key = mine.look("/jobs/a").find("input", name="csrf").attributes["value"]
    for values in ({}, {"csrf": ""}, {"csrf": theirs}, {"csrf": key[:-1]}, {"csrf": "\ud800"[:0] + "é"}):
        answer = mine.send("/jobs/a/pause", values)
        assert answer.status_code == 403
        assert "made for another session" in answer.text
    for origin in ("cross-site", "same-site"):
        assert mine.send("/jobs/a/pause", {"csrf": key}, site=origin).status_code == 403
        assert mine.send("/login", {"token": "x"}, site=origin).status_code == 403
    assert site.rows("SELECT count(*) FROM reconciler.pauses") == [(0,)]
    assert mine.send("/jobs/a/pause", {"csrf": key}).status_code == 303
    assert site.rows("SELECT count(*) FROM reconciler.pauses") == [(1,)]


def test_who_may_only_read_sees_no_buttons(site: Site, served: Served) -> None:
    """And is told which scope is missing, where the form is sent all the same."""
    site.apply(job("a"))
    reader = Browser(served, "read")
    page = reader.look("/jobs/a")
    assert [form.attributes["action"] for form in page.find_all("form", method="post")] == [
        "/logout",
    ]
    key = page.find("input", name="csrf").attributes["value"]
    for path in ("/jobs/a/run", "/jobs/a/pause", "/jobs/a/resume", "/runs/1/cancel"):
        answer = reader.send(path, {"csrf": key})
        assert answer.status_code == 403
        assert "lacks the scope trigger" in answer.text
    assert site.rows("SELECT count(*) FROM reconciler.starts") == [(0,)]


def test_jobs_are_listed_with_how_they_fare(site: Site, served: Served) -> None:
    """State, last runs, last and next run, how many are in each state; no entries of the tool itself."""
    site.apply(job("good"), job("bad", "SELECT 1/0"), worker("w"), job("off", active=False))
    call(site, "good")
    call(site, "bad")
    page = Browser(served, "read").look("/")
    assert names(page) == ["bad", "good", "off", "w"]
    rows = {row.find(class_="name").text: row for row in page.find("tbody").find_all("tr")}
    assert "failing" in rows["bad"].text
    assert "division by zero" in rows["bad"].text
    assert (
        rows["good"]
        .find("svg", role="img")
        .attributes["aria-label"]
        .startswith("last run: 1 succeeded; the newest")
    )
    assert rows["good"].find("time").attributes["datetime"].endswith("Z")
    assert "inactive" in rows["off"].text
    assert "worker" in rows["w"].text
    assert [link.text for link in page.find("nav", class_="filters").find_all("a")] == [
        *("All 4", "failing 1", "ok 1", "inactive 1", "no entry 1"),
    ]
    assert page.find(id="head").find("a").text == "1 failing"
    assert page.find("title").text == "Jobs · test · reconciler"


def test_jobs_are_searched_filtered_and_paged(site: Site) -> None:
    """In the database, and the address says which: it can be sent to others."""
    site.apply(*(job(f"a{number}", labels={"team": "x"}) for number in range(3)), job("b", active=False))
    site.apply(job("z"), owner="kitchen")
    site.run("SELECT cron.schedule('by-hand', '0 0 1 1 *', 'SELECT 1')")
    from reconciler.api.context import Limits

    with serve(site, limits=Limits(page=2)) as served:
        reader = Browser(served, "read")
        page = reader.look("/?q=TEAM%3Dx")
        assert page.find(id="found").text == "3 jobs with “TEAM=x”"
        assert names(page) == ["a0", "a1"]
        following = page.find("a", rel="next").attributes["href"]
        assert names(reader.look(following)) == ["a2"]
        assert names(reader.look("/?state=inactive")) == ["b"]
        assert names(reader.look("/?owner=kitchen")) == ["z"]
        foreign = reader.look("/?owner=-")
        assert names(foreign) == ["by-hand"]
        assert "not declared" in foreign.text
        nothing = reader.look("/?q=%3Cnothing%3E")
        assert "No job fits" in nothing.text
        assert nothing.find("input", name="q").attributes["value"] == "<nothing>"
        reader.look("/?q=%00&state=%27%3B--&owner=%EF%BF%BD")
        reader.look("/?cursor=nonsense", 422)


def test_a_page_that_tells_nothing_new_is_not_sent_again(site: Site, served: Served) -> None:
    """Who looks for news gets the part that changes; the same again is a 304 without a body."""
    site.apply(job("a"))
    reader = Browser(served, "read")
    whole = reader.get("/jobs/a")
    digest = whole.headers["etag"]
    assert digest.strip('"') in whole.text
    assert reader.get("/jobs/a", 304, HX_Request="true", If_None_Match=digest).text == ""
    call(site, "a")
    part = reader.get("/jobs/a", HX_Request="true", If_None_Match=digest)
    assert "<html" not in part.text
    assert 'id="live"' in part.text
    assert 'hx-swap-oob="morph"' in part.text


def test_a_job_says_why_it_fares_so(site: Site, served: Served) -> None:
    """Schedule in words and in instants, runs, last error, what was declared where, and who changed it."""
    site.apply(job("a", "SELECT 1/0", schedule="30 2 * * *", timeout="30s", labels={"team": "x"}))
    call(site, "a")
    page = Browser(served, "read").look("/jobs/a")
    assert "every day at 02:30 GMT" in page.text
    assert len(list(page.find("ol", class_="times").find_all("li"))) == 5
    failure = page.find(class_="bad", aria_labelledby="why-title")
    assert "division by zero" in failure.text
    assert "22012" in failure.text
    assert page.find("svg", class_="chart").attributes["aria-label"].startswith("How long a run took")
    assert 'sql: "SELECT 1/0"' in page.find("pre", class_="code").text
    assert "Revision 1" in page.text
    run = failure.find("a").attributes["href"]
    details = Browser(served, "read").look(run)
    assert "failed" in details.find("h1").text + details.find(class_="lead").text
    assert 'SQL statement "SELECT 1/0"' in details.text


def test_a_job_is_run_now(site: Site, served: Served) -> None:
    """The form asks as the command does; the page tells what came of it, and the audit who asked."""
    site.apply(job("a"))
    operator = Browser(served, "read", "trigger")
    page = operator.press(operator.look("/jobs/a"), "/jobs/a/run")
    assert "A run was asked for" in page.find(id="told").text
    runner(site)
    assert "came of your request" in operator.look("/jobs/a?told=asked-1").find(id="told").text
    assert site.rows("SELECT trigger, status FROM reconciler.cron_execution_log") == [("manual", "succeeded")]
    calls = served.get("/api/v1/calls").json()["items"]
    assert [(one["caller"], one["action"], one["subject"]) for one in calls] == [
        ("read-trigger", "job.trigger", "a")
    ]


def test_a_job_is_paused_and_resumed(site: Site, served: Served) -> None:
    """For how long and why is told to all who look; resuming takes it back."""
    site.apply(job("a"))
    operator = Browser(served, "read", "trigger")
    page = operator.press(
        operator.look("/jobs/a"), "/jobs/a/pause", duration="2h", reason="the <b>mail</b>\nis down"
    )
    assert "its runs are skipped" in page.find(id="told").text
    assert "the <b>mail</b> is down" in page.find("p", class_="warn").text
    assert site.rows("SELECT until > now() + '119 minutes', reason FROM reconciler.pauses") == [
        (True, "the <b>mail</b> is down")
    ]
    page = operator.press(page, "/jobs/a/resume")
    assert page.find(id="told").text.startswith("Resumed")
    assert site.rows("SELECT count(*) FROM reconciler.pauses") == [(0,)]
    key = page.find("input", name="csrf").attributes["value"]
    assert operator.send("/jobs/a/resume", {"csrf": key}).headers["location"] == "/jobs/a?told=unpaused"
    wrong = operator.send("/jobs/a/pause", {"csrf": key, "duration": "long"})
    assert wrong.status_code == 422
    assert "no duration" in wrong.text


def test_a_run_is_cancelled(site: Site, served: Served) -> None:
    """One that is over says so."""
    site.apply(job("a"))
    call(site, "a")
    ((run_id,),) = site.rows("SELECT id FROM reconciler.cron_execution_log")
    operator = Browser(served, "read", "trigger")
    page = operator.look(f"/runs/{run_id}")
    assert not list(page.find_all("form", action=f"/runs/{run_id}/cancel"))
    key = page.find("input", name="csrf").attributes["value"]
    answer = operator.send(f"/runs/{run_id}/cancel", {"csrf": key})
    assert answer.headers["location"] == f"/runs/{run_id}?told=over"
    assert operator.look(answer.headers["location"]).find(id="told").text == "It was over already."
    site.run("UPDATE reconciler.cron_execution_log SET status = 'running', completed_at = NULL")
    page = operator.press(operator.look(f"/runs/{run_id}"), f"/runs/{run_id}/cancel")
    assert "lost" in page.find(class_="lead").text
    assert "marked as lost" in page.find(id="told").text
    assert operator.send("/runs/12345/cancel", {"csrf": key}).status_code == 404


def test_a_job_that_pg_cron_runs_as_it_is_has_no_buttons(site: Site, served: Served) -> None:
    """Neither has one that does not exist a page; the refusal says what to do."""
    site.apply(job("a", mode="direct"))
    operator = Browser(served, "read", "trigger")
    page = operator.look("/jobs/a")
    assert [form.attributes["action"] for form in page.find_all("form", method="post")] == ["/logout"]
    key = page.find("input", name="csrf").attributes["value"]
    refused = operator.send("/jobs/a/run", {"csrf": key})
    assert refused.status_code == 409
    assert "handed to pg_cron as it is" in refused.text
    assert operator.send("/jobs/nope/run", {"csrf": key}).status_code == 404


def test_hostile_texts_are_only_texts(site: Site, served: Served) -> None:
    """Names of entries, errors, descriptions, reasons: nothing of them is read as HTML, and nothing hides."""
    site.apply(
        job(
            "a",
            "DO $$ BEGIN RAISE EXCEPTION '%', chr(60) || 'script>alert(1)</script>'; END $$",
            description=HOSTILE,
        ),
        channel("c"),
    )
    site.run("SELECT cron.schedule('<img src=x onerror=alert(1)>', '0 0 1 1 *', 'SELECT 1')")
    site.run("SELECT reconciler.pause_job('a', NULL, %s)", HOSTILE)
    call(site, "a")
    reader = Browser(served, "read")
    for path in ("/", "/jobs/a", "/runs/1"):
        page = reader.look(path)
        sources = [script.attributes.get("src", "") for script in page.find_all("script")]
        assert sources
        assert all(source.startswith("/static/") for source in sources)
        assert not [
            image for image in page.find_all("img") if not image.attributes["src"].startswith("/static/")
        ]
        assert "\u202e" not in page.text
    assert "<img src=x onerror=alert(1)>" in names(reader.look("/"))
    assert "<script>alert('1')</script><U+202E>" in reader.look("/jobs/a").text


@pytest.mark.parametrize(
    "path",
    [
        "/nope",
        "/jobs/nope",
        "/jobs/%00",
        "/jobs/%ED%A0%80",
        "/jobs/a/b",
        "/runs/0",
        "/runs/x",
        "/runs/99999999999999999999",
    ],
)
def test_what_there_is_not_is_a_page_that_says_so(site: Site, served: Served, path: str) -> None:
    """With its status, and a way back."""
    site.apply(job("a"))
    page = Browser(served, "read").look(path, 404)
    assert page.find("h1").text == "Not Found"
    assert page.find("a", class_="button").attributes["href"] == "/"


def test_programs_get_no_pages(served: Served) -> None:
    """What is wrong below /api is told to programs, whatever pages there are."""
    answer = served.client.get("/api/nope")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert served.client.get("/api/v1/openapi.json").json()["paths"].keys().isdisjoint({"/", "/login"})


def test_pages_run_nothing_but_their_own_scripts(site: Site, served: Served) -> None:
    """No script, style or handler stands in a page, and the policy forbids them: nothing slipped in runs."""
    site.apply(job("a", "SELECT 1/0"))
    call(site, "a")
    operator = Browser(served, "read", "trigger")
    for path, status in (("/", 200), ("/jobs/a", 200), ("/runs/1", 200), ("/nope", 404), ("/login", 200)):
        answer = operator.get(path, status)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        for node in operator.look(path, status).find_all():
            assert node.tag != "style"
            assert node.tag != "script" or (node.attributes["src"] and not node.text)
            assert "style" not in node.attributes
            assert not [name for name in node.attributes if name.startswith(("on", "hx-on"))]
            assert not node.attributes.get("href", "").startswith("javascript:")


def test_files_are_kept_by_browsers_until_they_change(served: Served) -> None:
    """Their names hold what they are; they come packed, and other paths lead nowhere."""
    guest = Browser(served)
    for name in NAMES:
        digest = read_static(name).digest
        answer = guest.get(f"/static/{name}?v={digest}", Accept_Encoding="gzip")
        assert answer.content == read_static(name).body
        assert "immutable" in answer.headers["cache-control"]
        assert guest.get(f"/static/{name}?v=old").headers["cache-control"] == "no-cache"
        assert guest.get(f"/static/{name}", 304, If_None_Match=f'"{digest}"').content == b""
    for path in (
        "/static/vendor/README.md",
        "/static/..%2f__init__.py",
        "/static/",
        "/static/../sessions.py",
    ):
        guest.get(path, 404)
    packed = sum(len(read_static(name).packed) for name in NAMES)
    assert packed < 40_000


def test_vendored_scripts_are_as_their_authors_published_them() -> None:
    """Their digests stand beside them, with their licences."""
    from hashlib import sha256

    listed = (PAGES / "static" / "vendor" / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\S+\.js)` \| .*`(\S+\.LICENSE)` \| `(\w{64})` \|$", listed, re.MULTILINE)
    assert {name for name, _, _ in rows} == {path.name for path in (PAGES / "static" / "vendor").glob("*.js")}
    for name, licence, digest in rows:
        assert sha256((PAGES / "static" / "vendor" / name).read_bytes()).hexdigest() == digest
        assert (PAGES / "static" / "vendor" / licence).is_file()


def test_a_database_that_is_away_is_a_page_too(site: Site) -> None:
    """With 503 and when to come again; what looks for news keeps what it shows."""
    with serve(site) as served:
        reader = Browser(served, "read")
        reader.look("/")
        served.service.connections.close()
        away = ThreadConnections("host=127.0.0.1 port=1 dbname=x", patience=0.1)
        object.__setattr__(served.service, "connections", away)
        page = reader.look("/jobs/a", 503)
        assert page.find("h1").text == "Service Unavailable"
        part = reader.get("/jobs/a", 503, HX_Request="true")
        assert part.text == ""
        assert part.headers["retry-after"]


def test_pages_lie_where_the_application_is_mounted(site: Site, served: Served) -> None:
    """Links, forms, files and the cookie are below that path."""
    from starlette.applications import Starlette
    from starlette.routing import Mount
    from starlette.testclient import TestClient

    site.apply(job("a"))
    outer = TestClient(Starlette(routes=[Mount("/cron", served.app)]), follow_redirects=False)
    assert outer.get("/cron/jobs/a").headers["location"] == "/cron/login?next=%2Fjobs%2Fa"
    answer = outer.post("/cron/login", data={"token": served.token("read", "trigger"), "next": "/jobs/a"})
    assert answer.headers["location"] == "/cron/jobs/a"
    assert "Path=/cron;" in answer.headers["set-cookie"]
    page = outer.get("/cron/jobs/a").text
    addresses = re.findall(r'(?:href|src|action|hx-get)="([^"#]*)"', page)
    assert addresses
    assert [one for one in addresses if not one.startswith("/cron/")] == []
    assert outer.get(addresses[0]).status_code == 200
