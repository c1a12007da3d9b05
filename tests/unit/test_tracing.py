"""Spans: what they tell, and that they are nothing where nobody traces."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from typing import TYPE_CHECKING, NoReturn

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from reconciler.api.request_watch import RequestMetrics, RequestWatch
from reconciler.runtime import tracing
from reconciler.runtime.attempts import Completed, Failed
from tests.attempted import try_once

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Message, Receive, Scope, Send


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What keeps the spans of one test."""
    made = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(made))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield made
    provider.shutdown()


def find(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """Return the spans by name."""
    return {span.name: span for span in exporter.get_finished_spans()}


def test_spans_are_children_of_the_one_around_them(exporter: InMemorySpanExporter) -> None:
    """A phase within an apply belongs to it, and what became known is noted."""
    with tracing.span("apply", attributes={"reconciler.target": "main"}) as seen:
        with tracing.phase("plan"):
            pass
        seen.note(revision=7, changes=0, job__name=None)
    spans = find(exporter)
    inner, outer = spans["plan"], spans["apply"]
    assert inner.parent is not None
    assert outer.context is not None
    assert inner.parent.span_id == outer.context.span_id
    assert dict(outer.attributes or {}) == {
        "reconciler.target": "main",
        "reconciler.revision": 7,
        "reconciler.changes": 0,
    }


def test_an_error_marks_its_span_and_tells_nothing_else(exporter: InMemorySpanExporter) -> None:
    """The class of an error is told; its message may hold a secret."""
    with pytest.raises(ValueError, match="hunter2"), tracing.span("apply"):
        raise ValueError("password=hunter2")
    [span] = exporter.get_finished_spans()
    assert span.status.status_code is trace.StatusCode.ERROR
    assert dict(span.attributes or {}) == {"error.type": "ValueError"}
    assert "hunter2" not in span.to_json()


def test_a_queued_job_is_a_span_and_its_handlers_spans_are_children(exporter: InMemorySpanExporter) -> None:
    """By the conventions for messages; a function in a thread and a coroutine alike."""

    async def send(to: str) -> None:
        with trace.get_tracer("app").start_as_current_span(f"async {to}"):
            await asyncio.sleep(0)

    def send_in_thread(to: str) -> None:
        with trace.get_tracer("app").start_as_current_span(f"thread {to}"):
            pass

    assert isinstance(asyncio.run(try_once(send, {"to": "x"})), Completed)
    assert isinstance(asyncio.run(try_once(send_in_thread, {"to": "x"})), Completed)
    spans = exporter.get_finished_spans()
    jobs = [span for span in spans if span.name.startswith("process ")]
    assert len(jobs) == 2
    for job, name in zip(jobs, ("async x", "thread x"), strict=True):
        [child] = [span for span in spans if span.name == name]
        assert child.parent is not None
        assert job.context is not None
        assert child.parent.span_id == job.context.span_id
        assert job.kind is trace.SpanKind.CONSUMER
        told = dict(job.attributes or {})
        assert told["messaging.system"] == "reconciler"
        assert told["messaging.destination.name"] == job.name.removeprefix("process ")
        assert told["reconciler.job.handler"] == "work.do"
        assert told["reconciler.job.outcome"] == "completed"


def test_a_job_that_fails_marks_its_span_without_payload_or_message(exporter: InMemorySpanExporter) -> None:
    """What it was given and why it failed stays in the database."""

    def send(to: str) -> NoReturn:
        raise RuntimeError(f"no mailbox {to}")

    assert isinstance(asyncio.run(try_once(send, {"to": "hunter2"})), Failed)
    [span] = exporter.get_finished_spans()
    assert span.status.status_code is trace.StatusCode.ERROR
    assert dict(span.attributes or {})["error.type"] == "failed"
    assert "hunter2" not in span.to_json()


def ask(path: str, *, status: int, headers: dict[str, str] | None = None, query: bytes = b"") -> None:
    """Send a request through the middleware to an application that answers a status."""
    from prometheus_client import CollectorRegistry

    class Route:
        path = "/api/v1/runs/{id}"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - as ASGI wants it
        scope["route"] = Route()
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:  # noqa: ARG001 - nobody looks at the answer
        return

    raw = [(key.lower().encode(), value.encode()) for key, value in (headers or {}).items()]
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "scheme": "http",
        "headers": raw,
        "query_string": query,
    }
    asyncio.run(RequestWatch(app, RequestMetrics(CollectorRegistry()))(scope, receive, send))


def test_a_request_continues_the_trace_that_it_brings(exporter: InMemorySpanExporter) -> None:
    """W3C Trace Context in; named by its route; neither query nor token in the span."""
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    ask(
        "/api/v1/runs/7",
        status=200,
        headers={"traceparent": parent, "Authorization": "Bearer hunter2"},
        query=b"token=hunter2",
    )
    [span] = exporter.get_finished_spans()
    assert span.name == "GET /api/v1/runs/{id}"
    assert span.kind is trace.SpanKind.SERVER
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET",
        "http.route": "/api/v1/runs/{id}",
        "http.response.status_code": 200,
        "url.path": "/api/v1/runs/7",
        "url.scheme": "http",
    }
    assert "hunter2" not in span.to_json()


@pytest.mark.parametrize("parent", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "é"])
def test_a_request_with_a_broken_trace_begins_its_own(exporter: InMemorySpanExporter, parent: str) -> None:
    """What cannot be read is left alone."""
    ask("/", status=500, headers={"traceparent": parent})
    [span] = exporter.get_finished_spans()
    assert span.parent is None
    assert span.status.status_code is trace.StatusCode.ERROR


def test_without_opentelemetry_nothing_is_imported_or_done() -> None:
    """A command that does not trace pays for no import."""
    code = (
        "import sys\n"
        "from reconciler.runtime import tracing\n"
        "with tracing.exporting({}, service='x'), tracing.span('a') as one:\n"
        "    one.note(b=1); one.fail('x')\n"
        "with tracing.request_span('GET', '/', 'http', []) as one:\n"
        "    one.end_request('GET', '', 200)\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')], sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"OTEL_TRACES_EXPORTER": "jaeger"}, "OTEL_TRACES_EXPORTER=jaeger is neither"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL=grpc is not http/protobuf",
        ),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_more(
    environment: dict[str, str], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A value that asks for something else makes a warning; the work goes on."""
    with caplog.at_level(logging.WARNING), tracing.exporting(environment, service="x"):
        pass
    assert words in caplog.text


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"},
    ],
)
def test_who_does_not_ask_for_traces_gets_none(
    environment: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """Without a word in OTEL_*, or with one against it."""
    before = trace.get_tracer_provider()
    with caplog.at_level(logging.WARNING), tracing.exporting(environment, service="x"):
        assert trace.get_tracer_provider() is before
    assert caplog.text == ""


def test_missing_packages_are_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The extra that brings them is told, and the work goes on."""
    monkeypatch.setitem(sys.modules, "reconciler.runtime.otel_export", None)
    with caplog.at_level(logging.WARNING), tracing.exporting({"OTEL_TRACES_EXPORTER": "otlp"}, service="x"):
        pass
    assert 'pip install "reconciler[otel]"' in caplog.text
