"""The one comment, against a real HTTP server that behaves as the comment APIs of GitHub and GitLab do."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from reconciler.core.hidden import Hidden
from reconciler.core.pull_comment import make_marker
from reconciler.errors import ConfigError, ReconcilerError
from reconciler.runtime.forges import TRIES, Forge, PullRequest, Waiting, put_comment
from tests.http_server import QuietHandler, serve

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.conftest import Cli

pytestmark = pytest.mark.one_server

TOKEN = "ghs_not-to-be-seen"
MARKER = make_marker("production")
TEXT = f"{MARKER}\n\nfirst\n"
NOW = 1_800_000_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What a request gets instead of its answer.

    Attributes:
        status: The HTTP status; 0 closes the connection without one.
        method: Which requests.
        body: The answer's body.
        headers: The answer's.
        is_done: Whether the request is carried out all the same.
    """

    status: int
    method: str = "GET"
    body: str = "{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    is_done: bool = False


@dataclass(slots=True, kw_only=True)
class ForgeServer:
    """The API of a forge, with one pull request.

    Attributes:
        forge: Whose API.
        port: Where it listens.
        comments: What is on the pull request.
        account: Whose token it is; 0 for a workflow's token, which may not ask.
        faults: What the next requests get.
        calls: Method and path of all requests, and the credentials of each.
    """

    forge: Forge
    port: int
    comments: list[dict[str, Any]] = field(default_factory=list)
    account: int = 7
    faults: list[Fault] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)

    @property
    def api(self) -> str:
        """The address of the API."""
        return f"http://127.0.0.1:{self.port}/api"

    def add(self, body: str | None, author: int = 7, **more: Any) -> dict[str, Any]:
        """Put a comment."""
        person = {"id": author, "type": "Bot" if author == 7 else "User"}
        number = 1000 + len(self.comments)
        comment = {
            "id": number,
            "body": body,
            "user": person,
            "author": person,
            "html_url": f"https://forge.example/c/{number}",
            "system": False,
            **more,
        }
        self.comments.append(comment)
        return comment

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: Any) -> Fault:
        """Answer a request as the forge would."""
        is_github = self.forge == "github"
        if headers.get("authorization" if is_github else "private-token") != (
            f"Bearer {TOKEN}" if is_github else TOKEN
        ):
            return Fault(status=401, body='{"message": "Bad credentials"}')
        parts = urlsplit(path)
        if parts.path == "/api/user":
            if not self.account:
                return Fault(status=403, body='{"message": "Resource not accessible by integration"}')
            return Fault(status=200, body=json.dumps({"id": self.account}))
        top = "/api/repos/acme/crons/issues" if is_github else "/api/projects/acme/crons/merge_requests/5"
        listing = f"{top}/5/comments" if is_github else f"{top}/notes"
        if unquote(parts.path) == listing and "%2F" not in listing:
            if method == "GET":
                return self._list(parse_qs(parts.query))
            if method == "POST":
                return Fault(status=201, body=json.dumps(self.add(body["body"])))
        one = re.fullmatch(rf"{top}/{'comments' if is_github else 'notes'}/(\d+)", unquote(parts.path))
        if one and method == ("PATCH" if is_github else "PUT"):
            for comment in self.comments:
                if comment["id"] == int(one[1]):
                    comment["body"] = body["body"]
                    return Fault(status=200, body=json.dumps(comment))
        return Fault(status=404, body='{"message": "Not Found"}')

    def _list(self, query: Mapping[str, list[str]]) -> Fault:
        size, page = int(query["per_page"][0]), int(query["page"][0])
        start = (page - 1) * size
        headers = {}
        if start + size < len(self.comments):
            headers["Link"] = f'<http://elsewhere.example/steal?page={page + 1}>; rel="next"'
        return Fault(status=200, body=json.dumps(self.comments[start : start + size]), headers=headers)


class Handler(QuietHandler):
    """Answers as the forge would, or does the next fault."""

    def answer(self) -> None:
        """Answer, or do the next fault."""
        state: ForgeServer = self.server.state  # type: ignore[attr-defined] # the server is always ours
        state.calls.append((self.command, self.path))
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        headers = {name.lower(): value for name, value in self.headers.items()}
        fault = next((one for one in state.faults if one.method == self.command), None)
        if fault is not None:
            state.faults.remove(fault)
        if fault is None or fault.is_done:
            answer = state.answer(self.command, self.path, headers, body)
        reply = fault or answer
        if reply.status == 0:
            self.close_connection = True
            self.connection.close()
            return
        text = reply.body.encode()
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_PATCH = answer  # noqa: N815 - the parent's names


@pytest.fixture(params=["github", "gitlab"])
def server(request: pytest.FixtureRequest) -> Iterator[ForgeServer]:
    """A forge, of each kind."""
    with serve(Handler, lambda port: ForgeServer(forge=request.param, port=port), lambda _: None) as state:
        yield state


@pytest.fixture
def github() -> Iterator[ForgeServer]:
    """GitHub alone."""
    with serve(Handler, lambda port: ForgeServer(forge="github", port=port), lambda _: None) as state:
        yield state


@pytest.fixture
def slept() -> list[float]:
    """How long was waited, though nobody waits."""
    return []


def put(
    server: ForgeServer, slept: list[float], text: str = TEXT, *, create: bool = True, **changed: Any
) -> str:
    """Put the comment and return what was done."""
    fields = {"forge": server.forge, "api": server.api, "project": "acme/crons", "number": 5}
    place = PullRequest(**{**fields, "token": Hidden(TOKEN), **changed})
    waiting = Waiting(sleep=slept.append, clock=lambda: NOW, chance=lambda: 0.5)
    return put_comment(place, MARKER, text, create=create, waiting=waiting)[0]


def bodies(server: ForgeServer) -> list[str]:
    """The texts of all comments."""
    return [comment["body"] for comment in server.comments]


def test_the_comment_is_made_once_and_then_changed(server: ForgeServer, slept: list[float]) -> None:
    """A second plan changes the comment of the first; a third that says the same sends nothing."""
    assert put(server, slept) == "created"
    assert put(server, slept, f"{MARKER}\n\nsecond\n") == "updated"
    server.calls.clear()
    assert put(server, slept, f"{MARKER}\n\nsecond") == "unchanged"
    assert {method for method, _ in server.calls} == {"GET"}
    assert bodies(server) == [f"{MARKER}\n\nsecond\n"]
    assert slept == []


def test_none_is_made_where_none_is_wanted(server: ForgeServer, slept: list[float]) -> None:
    """Without a comment there is none afterwards; one that is there is changed."""
    assert put(server, slept, create=False) == "none"
    assert server.comments == []
    server.add(f"{MARKER}\nold")
    assert put(server, slept, create=False) == "updated"
    assert bodies(server) == [TEXT]


def test_the_comment_is_found_on_a_later_page(server: ForgeServer, slept: list[float]) -> None:
    """All pages are looked at, from our own addresses only: none is taken from the answer."""
    for number in range(250):
        server.add(f"talk {number}", author=8)
    server.add(f"{MARKER}\r\nold")
    assert put(server, slept) == "updated"
    assert len(server.comments) == 251
    pages = [path for method, path in server.calls if method == "GET" and "page=" in path]
    assert [re.search(r"[?&]page=(\d+)", path)[1] for path in pages] == ["1", "2", "3"]  # type: ignore[index]


def test_comments_of_others_are_left_alone(server: ForgeServer, slept: list[float]) -> None:
    """Who writes our first line, quotes it or goes on where it ends does not get our comment."""
    others = [server.add(TEXT, author=8), server.add(None), server.add(f"> {TEXT}")]
    others.append(server.add(make_marker("production", "x") + "\n"))
    others.append(server.add(make_marker("prod") + "\n"))
    before = [dict(other) for other in others]
    assert put(server, slept) == "created"
    assert others == before
    assert len(server.comments) == 6


def test_a_workflows_token_knows_its_comment_by_its_kind(github: ForgeServer, slept: list[float]) -> None:
    """It may not ask who it is; what a person wrote is not its own all the same."""
    github.account = 0
    forged = github.add(TEXT.replace("first", "forged"), author=8)
    assert put(github, slept) == "created"
    assert put(github, slept, f"{MARKER}\n\nsecond\n") == "updated"
    assert [comment["body"] for comment in github.comments] == [forged["body"], f"{MARKER}\n\nsecond\n"]
    assert slept == []


def test_a_gitlab_token_that_may_not_ask_makes_no_second(slept: list[float]) -> None:
    """Where GitLab does not say whose token it is, nothing is written."""
    with serve(Handler, lambda port: ForgeServer(forge="gitlab", port=port), lambda _: None) as server:
        server.account = 0
        server.add(TEXT)
        with pytest.raises(ReconcilerError, match="answered 403"):
            put(server, slept)
        assert len(server.comments) == 1


def test_system_notes_of_gitlab_are_no_comments(slept: list[float]) -> None:
    """GitLab lists what it wrote itself among the comments."""
    with serve(Handler, lambda port: ForgeServer(forge="gitlab", port=port), lambda _: None) as server:
        server.add(TEXT, system=True)
        assert put(server, slept) == "created"


@pytest.mark.parametrize("fault", [Fault(status=502), Fault(status=0), Fault(status=200, body="<html>")])
def test_a_forge_that_is_down_is_asked_again(server: ForgeServer, slept: list[float], fault: Fault) -> None:
    """Errors of the server, lost connections and pages of proxies pass; the waits grow."""
    server.faults = [fault] * 3
    assert put(server, slept) == "created"
    assert slept == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("status", [502, 0])
def test_a_comment_whose_answer_was_lost_is_not_made_twice(
    server: ForgeServer, slept: list[float], status: int
) -> None:
    """After an unclear answer it is looked for before it is made again."""
    server.faults = [Fault(status=status, method="POST", is_done=True)]
    assert put(server, slept) == "unchanged"
    assert bodies(server) == [TEXT]
    server.comments.clear()
    server.faults = [Fault(status=status, method="POST")]
    assert put(server, slept) == "created"
    assert bodies(server) == [TEXT]


def test_a_forge_that_stays_down_is_given_up(server: ForgeServer, slept: list[float]) -> None:
    """After five tries the error says what was answered; no comment is there twice."""
    server.faults = [Fault(status=503, body='{"message": "unicorn"}')] * 20
    with pytest.raises(ReconcilerError, match="answered 503: unicorn"):
        put(server, slept)
    assert (len(server.calls), len(slept)) == (TRIES, TRIES - 1)
    server.faults = [Fault(status=503, method="POST")] * 20
    with pytest.raises(ReconcilerError, match="answered 503"):
        put(server, slept)
    assert len([call for call in server.calls if call[0] == "POST"]) == TRIES
    assert server.comments == []


@pytest.mark.parametrize(
    ("fault", "wait"),
    [
        (Fault(status=429, headers={"Retry-After": "17"}), 17.0),
        (Fault(status=429), 60.0),
        (Fault(status=403, headers={"Retry-After": "3"}), 3.0),
        (
            Fault(
                status=403,
                headers={"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{NOW + 40:.0f}"},
            ),
            41.0,
        ),
        (
            Fault(
                status=403,
                body='{"message": "You have exceeded a secondary rate limit"}',
                headers={"X-RateLimit-Remaining": "4000", "X-RateLimit-Reset": f"{NOW + 3000:.0f}"},
            ),
            60.0,
        ),
        (Fault(status=429, headers={"RateLimit-Remaining": "0", "RateLimit-Reset": f"{NOW + 9:.0f}"}), 10.0),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_forge_that_is_busy_gets_the_time_it_wants(
    server: ForgeServer, slept: list[float], fault: Fault, wait: float, method: str
) -> None:
    """Limits of both forges, in both of their ways to say them."""
    server.faults = [Fault(status=fault.status, method=method, body=fault.body, headers=fault.headers)]
    assert put(server, slept) == "created"
    assert slept == [wait]
    assert len(server.comments) == 1


def test_a_long_wait_is_told_and_not_waited(server: ForgeServer, slept: list[float]) -> None:
    """A runner is not held for an hour."""
    server.faults = [Fault(status=429, headers={"Retry-After": "3600"})]
    with pytest.raises(ReconcilerError, match="run it again in 3600 seconds"):
        put(server, slept)
    assert slept == []


def test_missing_rights_say_which(server: ForgeServer, slept: list[float]) -> None:
    """A 403 that is no limit is not tried again; the remedy names what the token needs."""
    server.faults = [Fault(status=403, method="POST", body='{"message": "Resource not accessible"}')]
    with pytest.raises(ReconcilerError) as caught:
        put(server, slept)
    need = "pull-requests: write" if server.forge == "github" else "scope api"
    assert "answered 403: Resource not accessible" in str(caught.value)
    assert need in caught.value.remedy
    assert slept == []


def test_a_wrong_token_is_never_shown(server: ForgeServer, slept: list[float]) -> None:
    """Not in the message, not in what holds it, and not where the forge repeats it."""
    secret = "wrong-and-secret"
    with pytest.raises(ReconcilerError, match="answered 401: Bad credentials") as caught:
        put(server, slept, token=Hidden(secret))
    assert "TOKEN is not valid" in caught.value.remedy
    server.faults = [Fault(status=404, body=json.dumps({"message": f"no {TOKEN}\x1b[2J"}))]
    with pytest.raises(ReconcilerError) as caught:
        put(server, slept)
    shown = str(caught.value)
    assert "answered 404: no ***" in shown
    assert (TOKEN in shown, "\x1b" in shown) == (False, False)
    place = PullRequest(forge="github", api=server.api, project="a/b", number=1, token=Hidden(secret))
    assert secret not in repr(place)


def test_no_redirect_is_followed(server: ForgeServer, slept: list[float]) -> None:
    """The token goes to the API's own host alone, also where a project has moved."""
    with serve(Handler, lambda port: ForgeServer(forge="github", port=port), lambda _: None) as other:
        server.faults = [Fault(status=301, headers={"Location": f"{other.api}/user"})]
        with pytest.raises(ReconcilerError, match="answered 301") as caught:
            put(server, slept)
        assert "has moved" in caught.value.remedy
        assert other.calls == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"api": "http://forge.example/api"}, "not https"),
        ({"api": "file:///etc/passwd"}, "not https"),
        ({"project": "acme"}, "no repository of GitHub"),
        ({"project": "acme/crons/../../user"}, "no repository of GitHub"),
        ({"token": Hidden("a b")}, "blank or a line break"),
        ({"token": Hidden("a\n")}, "blank or a line break"),
    ],
)
def test_a_place_that_is_none_is_refused(
    github: ForgeServer, slept: list[float], changed: Any, said: str
) -> None:
    """Before anything is sent."""
    with pytest.raises(ConfigError, match=said):
        put(github, slept, **changed)
    assert github.calls == []


def test_an_answer_that_is_no_list_is_an_error(server: ForgeServer, slept: list[float]) -> None:
    """Something else answers at this address."""
    server.faults = [Fault(status=200, body="{}")]
    with pytest.raises(ReconcilerError, match="without a list of comments"):
        put(server, slept)


def make_plan(**changed: Any) -> str:
    """Make the JSON of a plan that deletes one job."""
    change: dict[str, Any] = {
        "action": "delete",
        "kind": "job",
        "name": "old",
        "reason": "removed",
        "source": "jobs.d/a.yaml:3",
        "renamed_from": None,
        "before": {"spec": {"sql": "SELECT 1"}, "entry": None},
        "after": None,
        "fields": [],
        "obstacle": None,
    }
    counts = {"create": 0, "update": 0, "adopt": 0, "delete": 1, "resources": 3, "kept": 0}
    plan = {
        "format_version": "1.0",
        "reconciler_version": "0.1.0",
        "target": "production",
        "owner": "shop",
        "empty": False,
        "fingerprints": {"desired": "0" * 64, "observed": "1" * 64},
        "summary": counts,
        "migrations": [],
        "changes": [change],
        "kept": [],
        "notices": [],
        "findings": [],
    }
    return json.dumps({**plan, **changed})


def environment(server: ForgeServer) -> dict[str, str]:
    """What a job of the forge finds in its environment."""
    if server.forge == "github":
        return {
            "GITHUB_ACTIONS": "true",
            "GITHUB_API_URL": server.api,
            "GITHUB_REPOSITORY": "acme/crons",
            "GITHUB_REF": "refs/pull/5/merge",
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_RUN_ID": "99",
            "GITHUB_TOKEN": TOKEN,
        }
    return {
        "GITLAB_CI": "true",
        "CI_API_V4_URL": server.api,
        "CI_PROJECT_ID": "acme/crons",
        "CI_MERGE_REQUEST_IID": "5",
        "CI_PIPELINE_URL": "https://gitlab.example/acme/crons/-/pipelines/99",
        "GITLAB_TOKEN": TOKEN,
    }


def test_the_command_comments_from_inside_a_job(cli: Cli, server: ForgeServer) -> None:
    """It finds everything in the job's environment; then it says that nothing is left to change."""
    env = environment(server)
    first = cli("comment", "--plan", "-", "--commit", "abc1234", env=env, stdin=make_plan())
    assert (first.exit_code, first.stderr) == (0, "")
    assert first.stdout == "Commented: https://forge.example/c/1000\n"
    text = bodies(server)[0]
    assert text.startswith(MARKER + "\n")
    assert "> **Deletes 1:** `old`" in text
    run = "github.com/acme/crons/actions/runs/99" if server.forge == "github" else "pipelines/99"
    assert f"{run})</sub>" in text
    (cli.directory / "plan.json").write_text(make_plan(empty=True, changes=[], later={"x": 1}))
    second = cli("comment", "--plan", "plan.json", env=env)
    assert second.stdout == "Comment updated: https://forge.example/c/1000\n"
    assert "**Nothing to change:** 3 resources" in bodies(server)[0]
    failed = cli("comment", "--failed", "--target", "production", env=env)
    assert failed.stdout == "Comment updated: https://forge.example/c/1000\n"
    assert "planning failed" in bodies(server)[0]
    assert len(server.comments) == 1


def test_the_command_makes_no_comment_about_nothing(cli: Cli, github: ForgeServer) -> None:
    """Unless it is told to; the options name another place than the job's."""
    env, empty = environment(github), make_plan(empty=True, changes=[])
    quiet = cli("comment", "--plan", "-", env=env, stdin=empty)
    assert quiet.stdout == "Nothing to change, and no comment that says otherwise.\n"
    assert cli("comment", "--failed", "-t", "production", env=env).exit_code == 0
    assert github.comments == []
    del env["GITHUB_ACTIONS"], env["GITHUB_REF"], env["GITHUB_REPOSITORY"]
    named = ("--forge", "github", "--repo", "acme/crons", "--number", "5")
    assert cli("comment", "--plan", "-", *named, "--always", env=env, stdin=empty).exit_code == 0
    assert len(github.comments) == 1


def test_a_dry_run_sends_nothing_and_needs_no_token(cli: Cli) -> None:
    """It prints the comment, as a job's summary shows it."""
    result = cli("comment", "--plan", "-", "--dry-run", "--scope", "eu", stdin=make_plan())
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(make_marker("production", "eu") + "\n")


@pytest.mark.parametrize(
    ("args", "env", "stdin", "code", "said"),
    [
        ((), {}, "", 2, "give either --plan FILE or --failed"),
        (("--plan", "-", "--failed"), {}, "", 2, "give either --plan FILE or --failed"),
        (("--failed",), {}, "", 2, "--failed needs --target NAME"),
        (("--plan", "none.json"), {}, "", 1, "none.json: cannot be read: No such file"),
        (("--plan", "-"), {}, "nothing", 1, "standard input: is no JSON: write it with plan --format json"),
        (("--plan", "-"), {}, "[" * 100_000, 1, "standard input: is no JSON"),
        (("--plan", "-"), {}, "[]", 1, "is no plan that this release reads (at the top)"),
        (("--plan", "-"), {}, make_plan(changes=[{"x": 1}]), 1, "reads (at changes/0)"),
        (("--plan", "-"), {}, make_plan(format_version="2.0"), 1, "reads (at format_version)"),
        (("--plan", "-"), {}, make_plan(), 1, "this is no job of GitHub or GitLab"),
        (("--plan", "-"), {"GITHUB_ACTIONS": "true"}, make_plan(), 1, "give --repo"),
        (("--plan", "-", "--repo", "a/b"), {"GITLAB_CI": "true"}, make_plan(), 1, "give --number"),
        (
            ("--plan", "-", "--repo", "a/b", "--number", "5"),
            {"GITLAB_CI": "true"},
            make_plan(),
            1,
            "GITLAB_TOKEN is not set",
        ),
    ],
)
def test_what_is_missing_is_said(
    cli: Cli, args: tuple[str, ...], env: dict[str, str], stdin: str, code: int, said: str
) -> None:
    """Each wrong call says what to do, without a traceback."""
    clean = dict.fromkeys(("GITHUB_ACTIONS", "GITHUB_TOKEN", "GITHUB_REPOSITORY", "GITLAB_CI"), "")
    result = cli("comment", *args, env={**clean, **env}, stdin=stdin)
    assert (result.exit_code, said in result.stderr, result.stdout) == (code, True, ""), result.stderr
    assert "Traceback" not in result.stderr


def test_halves_of_characters_are_written_out(cli: Cli) -> None:
    """JSON can hold half a character; no forge takes it."""
    plan = make_plan(owner="x").replace('"x"', '"\\ud800"')
    result = cli("comment", "--plan", "-", "--dry-run", stdin=plan)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "owner `<U+D800>`" in result.stdout


def test_a_plan_without_end_is_no_plan(cli: Cli) -> None:
    """Values nested some hundred times are no traceback."""
    plan = make_plan(owner="x").replace('"x"', "[" * 600 + "]" * 600)
    result = cli("comment", "--plan", "-", "--dry-run", stdin=plan)
    assert "Traceback" not in result.stderr
    assert (result.exit_code, "standard input: is no plan" in result.stderr) == (1, True)
