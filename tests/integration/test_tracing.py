"""Traces as they leave the process: over HTTP to a real receiver, and of runs on a real database."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from reconciler.runtime.execution import locked_execution, locked_execution_async
from tests.declared import Site, job
from tests.http_server import QuietHandler, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Cli

pytestmark = pytest.mark.one_server

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
JOBS = "jobs:\n  a: {schedule: '0 0 29 2 *', sql: SELECT 'hunter2'}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """What takes spans in.

    Attributes:
        port: Where it listens.
        bodies: As they came.
        arrived: Set when one has.
    """

    port: int
    bodies: list[bytes] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)

    def spans(self) -> dict[str, Any]:
        """Return all spans by name."""
        return {
            span.name: span
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }


class _Handler(QuietHandler):
    def do_POST(self) -> None:  # noqa: N802 - the name that http.server calls
        """Keep what comes."""
        receiver: Receiver = self.server.state  # type: ignore[attr-defined] # the server is always ours
        receiver.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        receiver.arrived.set()
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver of OTLP over HTTP."""
    with serve(_Handler, lambda port: Receiver(port=port), lambda one: one.arrived.set()) as made:
        yield made


def test_an_apply_is_sent_with_its_parts(cli: Cli, site: Site, receiver: Receiver) -> None:
    """One trace, that of the pipeline: plan, execute and read back within the apply; no SQL and no dsn."""
    (cli.directory / "reconciler.yaml").write_text(f"owner: shop\ntargets:\n  main: {{dsn: '{site.dsn}'}}\n")
    (cli.directory / "jobs.d").mkdir()
    (cli.directory / "jobs.d" / "a.yaml").write_text(JOBS)
    result = cli(
        *("apply", "--yes"),
        env={"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.port}", "TRACEPARENT": PARENT},
    )
    assert (result.exit_code, result.stderr) == (0, "")
    spans = receiver.spans()
    assert spans.keys() == {"apply", "plan", "execute", "read back"}
    assert {span.trace_id.hex() for span in spans.values()} == {"0af7651916cd43dd8448eb211c80319c"}
    assert spans["apply"].parent_span_id.hex() == "b7ad6b7169203331"
    assert {spans[name].parent_span_id for name in ("plan", "execute", "read back")} == {
        spans["apply"].span_id
    }
    told = {one.key: one.value for one in spans["apply"].attributes}
    assert told["reconciler.target"].string_value == "main"
    assert told["reconciler.revision"].int_value == 1
    assert told["reconciler.changes"].int_value > 0
    sent = b"".join(receiver.bodies)
    assert b"hunter2" not in sent
    assert site.dsn.encode() not in sent
    assert b"reconciler" in sent  # the service's name


def test_a_receiver_that_is_not_there_does_not_hold_up_an_apply(cli: Cli, site: Site) -> None:
    """The work is done and says so; what could not be sent is told on the side."""
    (cli.directory / "reconciler.yaml").write_text(f"owner: shop\ntargets:\n  main: {{dsn: '{site.dsn}'}}\n")
    (cli.directory / "jobs.d").mkdir()
    (cli.directory / "jobs.d" / "a.yaml").write_text(JOBS)
    result = cli(
        *("apply", "--yes"),
        env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"},
        timeout=60,
    )
    assert result.exit_code == 0
    assert "Applied as revision 1." in result.stdout
    assert site.rows("SELECT count(*) FROM reconciler.revisions") == [(1,)]


def test_locked_runs_are_spans(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over both kinds of connection: what ran, as which run, and how it ended, also where it was skipped."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    site.apply(job("a", "SELECT 'hunter2'"))

    async def run_awaited() -> None:
        async with (
            await psycopg.AsyncConnection.connect(site.dsn, autocommit=True) as conn,
            locked_execution_async(conn, "a"),
        ):
            pass

    with (
        site.database.connect() as conn,
        locked_execution(conn, "a"),
        site.database.connect() as other,
        locked_execution(other, "a") as skipped,
    ):
        assert not skipped
    asyncio.run(run_awaited())
    with (
        site.database.connect() as conn,
        pytest.raises(ValueError, match="hunter2"),
        locked_execution(conn, "a"),
    ):
        raise ValueError("hunter2")
    provider.shutdown()
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == ["run a"] * 4
    told = [dict(span.attributes or {}) for span in spans]
    assert [one["reconciler.run.status"] for one in told] == ["skipped", "succeeded", "succeeded", "failed"]
    assert {one["reconciler.job.name"] for one in told} == {"a"}
    runs = site.rows("SELECT id FROM reconciler.cron_execution_log WHERE status <> 'skipped' ORDER BY id")
    assert [one["reconciler.run.id"] for one in told[1:]] == [run for (run,) in runs]
    assert told[3]["error.type"] == "ValueError"
    assert not any("hunter2" in span.to_json() for span in spans)
