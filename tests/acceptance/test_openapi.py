"""The whole service against its own OpenAPI document, by schemathesis, on a real database."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import pytest
import schemathesis
from schemathesis import engine
from schemathesis.engine import events
from schemathesis.python.asgi import shutdown_lifespans

from reconciler.api.audit import _KEY_PATTERN
from reconciler.api.context import Limits
from reconciler.runtime.run_endpoint import RunEndpoint
from reconciler.runtime.spec_files import WatchedSpecFiles
from tests.calling import Work
from tests.declared import job, queue
from tests.queued import claim_one, enqueue, fail, fill
from tests.runs import call, hold, running
from tests.served import Served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from schemathesis.engine.recorder import ScenarioRecorder
    from starlette.types import ASGIApp, Receive, Scope, Send

    from tests.declared import Site

pytestmark = [pytest.mark.one_server, pytest.mark.slow]

EXAMPLES: Final = int(os.environ.get("RECONCILER_EXAMPLES", "0"))
"""How many of each operation are made up, anew in each run; 0 for few, and the same in each run."""
DOCUMENT: Final = "/api/v1/openapi.json"
OPEN: Final = {"GET /health", "GET /ready", "GET /api/v1/health", "GET /api/v1/ready"}
"""What needs no token."""
CONFIG: Final = 'owner: shop\ntargets:\n  test: {{dsn: "{dsn}"}}\n'
JOBS: Final = 'jobs:\n  orders: {schedule: "0 1 * * *", sql: SELECT 1}\n'
GOOD: Final = ["2xx", "401", "403", "404", "409"]
"""What a request may be answered that is as the document says: names and ids are made up."""
EXCEPTIONS: Final[dict[str, list[str]]] = {
    # What a job means is read by the loader and the server: no schema knows which text is a schedule, a zone
    # or a duration.
    "POST /api/v1/cron/jobs": ["400"],
    "PUT /api/v1/cron/jobs/{id}": ["400"],
    "POST /api/v1/scheduler/jobs": ["400"],
    # A payload is any JSON, however deep, but for what PostgreSQL cannot keep: NUL, and half a surrogate.
    "POST /api/jobs": ["400"],
    # A pause ends in the future, has an end or a length, and each unit of that once.
    "POST /api/v1/cron/jobs/{id}/pause": ["422"],
}
"""What else the check positive_data_acceptance has to allow."""
SAME: Final = () if EXAMPLES else ("POST /api/v1/cron/jobs", "PUT /api/v1/cron/jobs/{id}")
"""Of whose bodies not each keyword is tried in the usual run: those of the scheduler have the same schema."""


class Filler:
    """Puts what is right in the place of what is well formed, as only who called before can know it.

    A cursor becomes one of that list, an idempotency key one that was not used yet, and If-Match `*`. What is
    not well formed stays as it is.
    """

    def __init__(self, app: ASGIApp, served: Served) -> None:
        self._app = app
        self._served = served
        self._cursors: dict[str, bytes] = {}
        self._number = count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            scope["headers"] = [(name, self._fill_header(name, value)) for name, value in scope["headers"]]
            parts = scope["query_string"].split(b"&")
            scope["query_string"] = b"&".join(self._fill_query(scope["path"], part) for part in parts)
        await self._app(scope, receive, send)

    def learn(self, path: str) -> None:
        """Ask a list for a cursor."""
        cursor = self._served.get(path, params={"limit": 1}).json()["next_cursor"]
        assert cursor, f"{path} has one page"
        self._cursors[path] = f"cursor={cursor}".encode()

    def _fill_header(self, name: bytes, value: bytes) -> bytes:
        if name == b"if-match" and re.fullmatch(rb"[\x20-\x7e]+", value):
            return b"*"
        if name == b"idempotency-key" and re.fullmatch(_KEY_PATTERN, value.decode("latin-1")):
            return b"key-%d" % next(self._number)
        return value

    def _fill_query(self, path: str, part: bytes) -> bytes:
        return self._cursors.get(path, part) if re.fullmatch(rb"cursor=.{,1000}", part) else part


@dataclass
class Findings:
    """What a run found.

    Attributes:
        failures: Of each operation and check the first failure.
        answers: How often each operation was answered what.
        others: Answers that are neither successes nor problem details.
    """

    failures: dict[str, str] = field(default_factory=dict)
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    others: set[tuple[str, int, str]] = field(default_factory=set)

    def note(self, event: events.EngineEvent) -> None:
        """Note what happened."""
        if isinstance(event, events.NonFatalError | events.FatalError):
            self.failures[f"schemathesis: {type(event).__name__}"] = str(event)
        if isinstance(event, events.ScenarioFinished):
            self._note_answers(event.recorder)
            self._note_failures(event.recorder)

    def _note_answers(self, recorder: ScenarioRecorder) -> None:
        for number, interaction in recorder.interactions.items():
            response = interaction.response
            assert response is not None, f"no answer: {interaction}"
            label = recorder.cases[number].value.operation.label
            self.answers[label, response.status_code] += 1
            kind = response.headers.get("content-type", [""])[0]
            if response.status_code >= 400 and kind != "application/problem+json":
                self.others.add((label, response.status_code, kind))

    def _note_failures(self, recorder: ScenarioRecorder) -> None:
        for number, checks in recorder.checks.items():
            label = recorder.cases[number].value.operation.label
            for info in (check.failure_info for check in checks if check.failure_info is not None):
                answer = recorder.interactions[number].response
                body = b"" if answer is None else answer.content[:1000]
                self.failures.setdefault(
                    f"{label}: {info.failure.title}", f"{info.failure.message}\n{info.code_sample}\n{body!r}"
                )


class Fuzzed:
    """The service with something of everything in it."""

    def __init__(self, served: Served) -> None:
        self.filler = Filler(served.app, served)
        self._token = served.token("read", "write", "trigger", "run")

    def run(self, *, examples: int, has_token: bool = True, phases: dict[str, Any] | None = None) -> Findings:
        """Try what the document tells of.

        Args:
            examples: How many are made up of each operation, and ways from one to the next.
            has_token: Whether requests bring a token with all scopes.
            phases: What is not as usual there.
        """
        usual = {"expected-statuses": GOOD}
        config = schemathesis.Config.from_dict(
            {
                **({} if EXAMPLES else {"seed": 7}),
                **({"headers": {"Authorization": f"Bearer {self._token}"}} if has_token else {}),
                "continue-on-failure": True,
                "output": {"sanitization": {"enabled": False}},  # so that what failed can be sent again
                "generation": {
                    "max-examples": examples,
                    "deterministic": not EXAMPLES,
                    "no-shrink": True,
                    "database": "none",
                },
                "checks": {"positive_data_acceptance": usual},
                "operations": [
                    {
                        "include-name": name,
                        "checks": {"positive_data_acceptance": {"expected-statuses": [*GOOD, *statuses]}},
                    }
                    for name, statuses in EXCEPTIONS.items()
                ]
                + [{"include-name": name, "phases": {"coverage": {"enabled": False}}} for name in SAME],
                "phases": phases
                or {
                    "coverage": {"generate-duplicate-query-parameters": True},
                    "stateful": {"generation": {"max-examples": examples}},
                },
            }
        )
        schema = schemathesis.openapi.from_asgi(DOCUMENT, self.filler, config=config)
        findings = Findings()
        for path, operations in schema.raw_schema["paths"].items():
            for method, operation in operations.items():
                findings.answers[f"{method.upper()} {path}", 0] = 0
                if any(parameter["name"] == "cursor" for parameter in operation.get("parameters", ())):
                    self.filler.learn(path)
        for event in engine.from_schema(schema).execute():
            findings.note(event)
        return findings


@pytest.fixture
def fuzzed(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fuzzed]:
    """The service of a database in which there is something of everything."""
    # No test asks the name servers of the world.
    monkeypatch.setattr("reconciler.api.own_jobs.look_up", lambda *_, **__: ("198.51.100.7",))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reconciler.yaml").write_text(CONFIG.format(dsn=site.dsn))
    (tmp_path / "jobs.d").mkdir()
    (tmp_path / "jobs.d" / "shop.yaml").write_text(JOBS)
    bad = [job(name, "SELECT 1/0") for name in ("orders", "bills")]
    jobs = *bad, job("direct", mode="direct"), job("long", hold())
    site.apply(*jobs, queue("mail"))
    site.apply(*jobs, queue("mail", concurrency=2))
    for one in bad:
        call(site, one.name)
    site.run("SELECT cron.schedule('foreign', '0 0 1 1 *', 'SELECT 1')")
    with site.database.session() as conn:
        enqueue(conn, "mail", max_attempts=1)
        fail(conn, claim_one(conn, "mail"), final=True)
        fill(conn, 5)
    served = Served(
        site,
        endpoint=RunEndpoint(site.dsn, Work().handlers, tokens="x" * 32),
        files=WatchedSpecFiles(tmp_path / "reconciler.yaml", environment={}),
        limits=Limits(rate=1e6, burst=10**6, failed_rate=1e6, failed_burst=10**6),
    )
    for name in ("a", "b"):
        assert served.post("/api/jobs", json={"name": name}).status_code == 201
    with running(site, "long"):
        yield Fuzzed(served)
    shutdown_lifespans()


def test_the_service_does_as_its_document_says(fuzzed: Fuzzed) -> None:
    """Whatever is sent, in whatever order: each answer is documented, and none is a fault."""
    findings = fuzzed.run(examples=EXAMPLES or 20)
    assert not findings.failures, "\n\n".join(f"{what}\n{how}" for what, how in findings.failures.items())
    assert findings.others == set()
    # Nothing is tried in vain: each operation did what it is for at least once.
    done = {operation for operation, status in findings.answers if 200 <= status < 300}
    assert done == {operation for operation, _ in findings.answers}


def test_nobody_does_anything_without_a_token(fuzzed: Fuzzed) -> None:
    """But ask whether the service lives: all else is 401, whatever is sent, and a problem."""
    phases = {"coverage": {"enabled": False}, "stateful": {"enabled": False}}
    findings = fuzzed.run(examples=EXAMPLES or 2, has_token=False, phases=phases)
    assert findings.others == set()
    assert {one for one, status in findings.answers if status == 200} == OPEN
    assert {status for one, status in findings.answers if one not in OPEN} == {0, 401}
