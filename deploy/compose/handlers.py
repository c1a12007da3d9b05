"""What the queued jobs of the example do."""  # noqa: INP001 - a module of a project, in no package

from __future__ import annotations

from reconciler.runtime import Handlers

handlers = Handlers()


@handlers.handler("example.greet")
async def greet(name: str) -> str:
    """Greet somebody; what is returned is kept with the job."""
    return f"Hello, {name}."
