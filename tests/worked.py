"""Run a pull worker beside a test, in a thread of this process."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from reconciler.runtime.handlers import Handlers
from reconciler.runtime.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.declared import Site


def handle(**functions: Callable[..., Any]) -> Handlers:
    """Make handlers named `work.NAME` of functions."""
    handlers = Handlers()
    for name, function in functions.items():
        handlers.register(function, f"work.{name}")
    return handlers


def drain(site: Site, handlers: Handlers, *queues: str, **options: Any) -> Worker:
    """Do everything that is due, and return the worker.

    Args:
        site: Where.
        handlers: That do it.
        *queues: That are served; `default` if there is none.
        **options: Of the worker.
    """
    worker = Worker(site.dsn, handlers, queues or ("default",), drain=True, **options)
    worker.run(signals=False)
    return worker


@contextmanager
def working(site: Site, handlers: Handlers, *queues: str, dsn: str = "", **options: Any) -> Iterator[Worker]:
    """Work while a block runs; it is stopped at once then, and raises what the worker raised.

    Args:
        site: Where.
        handlers: That do the jobs.
        *queues: That are served; `default` if there is none.
        dsn: Where to connect instead.
        **options: Of the worker.
    """
    worker = Worker(dsn or site.dsn, handlers, queues or ("default",), **options)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            worker.run(signals=False)
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop(now=True)
        thread.join(30)
    assert not thread.is_alive(), "the worker does not end"
    if errors:
        raise errors[0]
