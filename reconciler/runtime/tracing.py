"""Spans for OpenTelemetry: of requests, applies, queued jobs and locked runs.

Without its API package, or where this process never imported it, a span is nothing and costs next to nothing:
what embeds us and traces has imported it, and our own commands do where OTEL_* asks for it. Spans tell names,
numbers and how something ended; no SQL, payload, message of an error, secret or connection string.
"""

from __future__ import annotations

import logging
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Kind = Literal["internal", "server", "consumer"]
Value = str | int | bool | float

_log: Final = logging.getLogger("reconciler.tracing")
_API: Final = "opentelemetry.trace"
_WANTED: Final = (
    "OTEL_TRACES_EXPORTER",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
)
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class Span(Protocol):
    """A span, or nothing."""

    def note(self, **values: Value | None) -> None:
        """Note what became known.

        Args:
            **values: Attributes below `reconciler.`, with a dot for two underscores; None is left out.
        """

    def fail(self, why: str, /) -> None:
        """Note that it failed.

        Args:
            why: A word for it: the class of an error, a status. Never its message, which may hold anything.
        """

    def end_request(self, method: str, route: str, status: int, /) -> None:
        """Note how a request was answered.

        Args:
            method: Of the request.
            route: The template of its path; "" for none.
            status: Of the answer.
        """


class _Nothing:
    """No span."""

    def note(self, **_: Value | None) -> None:
        return

    def fail(self, _: str, /) -> None:
        return

    def end_request(self, _method: str, _route: str, _status: int, /) -> None:
        return


_NOTHING: Final[AbstractContextManager[Span]] = nullcontext(_Nothing())


def is_tracing() -> bool:
    """Tell whether spans go anywhere, as far as that is cheap to know."""
    return _API in sys.modules


def span(
    name: str, *, kind: Kind = "internal", attributes: Mapping[str, Value] | None = None
) -> AbstractContextManager[Span]:
    """Make a span of a block; it is a child of the one around it.

    An error that leaves the block marks it as failed, with the name of its class.

    Args:
        name: Few different ones: no ids.
        kind: What part it has between processes.
        attributes: Full names and values.

    Returns:
        A context manager that gives the span.
    """
    if not is_tracing():
        return _NOTHING
    from . import otel_spans  # noqa: PLC0415 - only where its package is

    return otel_spans.start(name, kind, attributes)


def phase(name: str) -> AbstractContextManager[object]:
    """Make a span of a part of something.

    Args:
        name: Of the part.
    """
    return span(name)


def request_span(
    method: str, path: str, scheme: str, headers: Iterable[tuple[bytes, bytes]]
) -> AbstractContextManager[Span]:
    """Make a span of a request; it continues the trace that the request brings (W3C Trace Context).

    Args:
        method: As it was sent.
        path: Without its query, which may hold anything.
        scheme: http or https.
        headers: As ASGI gives them.

    Returns:
        As `span`.
    """
    if not is_tracing():
        return _NOTHING
    from . import otel_spans  # noqa: PLC0415 - only where its package is

    attributes = {"http.request.method": method, "url.path": path, "url.scheme": scheme}
    return otel_spans.start(method, "server", attributes, otel_spans.read_context(headers))


def exporting(environment: Mapping[str, str], *, service: str) -> AbstractContextManager[None]:
    """Send spans wherever OTEL_* says, for as long as a block takes.

    Nothing is imported and nothing is done where OTEL_* does not ask for traces. Where it does and the
    packages are missing, or it asks for what we cannot do, a warning says so and the block goes on. The trace
    of TRACEPARENT is continued.

    Args:
        environment: Of the process.
        service: The name of the service, where OTEL_SERVICE_NAME does not say.

    Returns:
        A context manager; what was not sent at its end is sent then, for some seconds at the most.
    """
    exporter = _find_exporter(environment)
    if exporter is None:
        return nullcontext()
    try:
        from . import otel_export  # noqa: PLC0415 - only where somebody asks for it
    except ImportError as error:
        _log.warning('no traces: %s is not installed; pip install "reconciler[otel]"', error.name)
        return nullcontext()
    return otel_export.export(exporter, environment, service=service)


def _find_exporter(environment: Mapping[str, str]) -> str | None:
    """Find what spans are to be sent with; None where nobody asks for them, or for what we cannot do."""
    is_off = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if is_off or not any(environment.get(name) for name in _WANTED):
        return None
    name = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() or "otlp"
    protocol = next((environment[one] for one in _PROTOCOLS if environment.get(one)), "http/protobuf")
    if name == "none":
        return None
    if name not in {"otlp", "console"}:
        _log.warning("no traces: OTEL_TRACES_EXPORTER=%s is neither otlp, console nor none", name[:40])
        return None
    if name == "otlp" and protocol != "http/protobuf":
        _log.warning("no traces: OTEL_EXPORTER_OTLP_PROTOCOL=%s is not http/protobuf", protocol[:40])
        return None
    return name
