"""Spans by OpenTelemetry's API package; imported only where that is there and in use, see `tracing`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.propagate import extract

from reconciler import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from opentelemetry.context import Context

    from .tracing import Kind, Value

_CARRIED = frozenset((b"traceparent", b"tracestate", b"baggage"))


class OtelSpan:
    """A span.

    Args:
        span: Of the API.
    """

    __slots__ = ("_span",)

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def note(self, **values: Value | None) -> None:
        """Note what became known; see `tracing.Span`."""
        for name, value in values.items():
            if value is not None:
                self._span.set_attribute(f"reconciler.{name.replace('__', '.')}", value)

    def fail(self, why: str) -> None:
        """Note that it failed; see `tracing.Span`."""
        self._span.set_attribute("error.type", why)
        self._span.set_status(trace.StatusCode.ERROR)

    def end_request(self, method: str, route: str, status: int) -> None:
        """Note how a request was answered; see `tracing.Span`."""
        if route:
            self._span.update_name(f"{method} {route}")
            self._span.set_attribute("http.route", route)
        self._span.set_attribute("http.response.status_code", status)
        if status >= 500:
            self.fail(str(status))


@contextmanager
def start(
    name: str, kind: Kind, attributes: Mapping[str, Value] | None, context: Context | None = None
) -> Iterator[OtelSpan]:
    """Make a span of a block.

    Args:
        name: Of the span.
        kind: What part it has between processes.
        attributes: Full names and values.
        context: Of the span around it, where that is not in this process.

    Yields:
        The span.
    """
    tracer = trace.get_tracer("reconciler", __version__)
    with tracer.start_as_current_span(
        name,
        context=context,
        kind=trace.SpanKind[kind.upper()],
        attributes=attributes,
        # Both would tell the message of the error, which may hold anything.
        record_exception=False,
        set_status_on_exception=False,
    ) as made:
        one = OtelSpan(made)
        try:
            yield one
        except BaseException as error:
            one.fail(type(error).__name__)
            raise


def read_context(headers: Iterable[tuple[bytes, bytes]]) -> Context | None:
    """Read the trace that a request continues.

    Args:
        headers: As ASGI gives them.

    Returns:
        The context; None where it brings none.
    """
    carrier = {key.decode("latin-1"): value.decode("latin-1") for key, value in headers if key in _CARRIED}
    return extract(carrier) if carrier else None
