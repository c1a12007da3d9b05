"""Send spans by OpenTelemetry's SDK; imported only where OTEL_* asks for traces, see `tracing`."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

from reconciler import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_log: Final = logging.getLogger("reconciler.tracing")
_PATIENCE: Final = 5.0
"""Seconds in which spans have to be sent, unless OTEL_EXPORTER_OTLP_TIMEOUT says otherwise."""
_TIMEOUTS: Final = ("OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")


@contextmanager
def export(exporter: str, environment: Mapping[str, str], *, service: str) -> Iterator[None]:
    """Send spans for as long as a block takes; OpenTelemetry reads the rest of OTEL_* by itself.

    Args:
        exporter: otlp or console.
        environment: Of the process.
        service: The name of the service, where OTEL_SERVICE_NAME does not say.

    Yields:
        Nothing.
    """
    try:
        provider = _make_provider(exporter, environment, service)
    except ValueError as error:
        _log.warning("no traces: a value of OTEL_* cannot be read: %s", error)
        yield
        return
    trace.set_tracer_provider(provider)
    # A pipeline may say of what its step is a part.
    token = context.attach(extract({"traceparent": environment.get("TRACEPARENT", "")}))
    try:
        yield
    finally:
        context.detach(token)
        provider.shutdown()


def _make_provider(exporter: str, environment: Mapping[str, str], service: str) -> TracerProvider:
    named = {} if environment.get("OTEL_SERVICE_NAME") else {"service.name": service}
    provider = TracerProvider(resource=Resource.create({**named, "service.version": __version__}))
    if exporter == "console":
        provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter(out=sys.stderr)))
    else:
        timeout = None if any(environment.get(name) for name in _TIMEOUTS) else _PATIENCE
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=timeout)))
    return provider
