"""Handlers: named Python functions that do queued jobs, how they are registered, found and called.

Knows nothing of the database, nor of when a handler is called.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from reconciler.core.names import find_nearest
from reconciler.errors import ConfigError

from .job import Fail, Job, Retry, Snooze

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "Fail",
    "Handler",
    "Handlers",
    "Job",
    "Retry",
    "Snooze",
    "default_handlers",
    "handler",
    "load_handlers",
]

_Function = TypeVar("_Function", bound="Callable[..., Any]")

_OPEN: Final = frozenset({inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD})


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """A registered function.

    Attributes:
        name: Under which jobs name it.
        function: What is called.
        is_async: Whether its call gives a coroutine; else it is called in a thread.
        wants_job: Whether it has a parameter `job`.
        wants_payload: Whether it has any other one.
    """

    name: str
    function: Callable[..., Any]
    is_async: bool
    wants_job: bool
    wants_payload: bool

    def bind(self, job: Job) -> Callable[[], Any]:
        """Put the arguments to the function, without calling it.

        Args:
            job: To be done.

        Returns:
            The call: the payload's keys as keyword arguments, or the payload itself as the one positional
            argument where it is no object; and the job, where it is wanted. A function whose only parameter
            is `job` finds the payload there.
        """
        payload = job.payload if self.wants_payload else {}
        if isinstance(payload, dict):
            if self.wants_job:
                payload["job"] = job
            return partial(self.function, **payload) if payload else self.function
        return partial(self.function, payload, job=job) if self.wants_job else partial(self.function, payload)


class Handlers:
    """Handlers by name."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    def __len__(self) -> int:
        return len(self._handlers)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names, sorted."""
        return tuple(sorted(self._handlers))

    @overload
    def handler(self, name: _Function, /) -> _Function: ...
    @overload
    def handler(self, name: str | None = None, /) -> Callable[[_Function], _Function]: ...
    def handler(self, name: _Function | str | None = None, /) -> _Function | Callable[[_Function], _Function]:
        """Register the decorated function, which stays as it is.

        Args:
            name: Under which jobs name it, as in `@handlers.handler("mail.welcome")`. Without one, also as a
                bare `@handlers.handler`, it is the function's module and qualified name.

        Returns:
            The decorator; the function itself where it was bare.

        Raises:
            ConfigError: Another function has the name.
        """
        if callable(name):
            self.register(name)
            return name

        def decorate(function: _Function) -> _Function:
            self.register(function, name)
            return function

        return decorate

    def register(self, function: Callable[..., Any], name: str | None = None) -> Handler:
        """Register a function.

        Args:
            function: To be called; a coroutine function is awaited, any other is called in a thread.
            name: Under which jobs name it; None for its module and qualified name.

        Returns:
            The handler.

        Raises:
            ConfigError: Another function has the name.
        """
        name = name or f"{function.__module__}.{function.__qualname__}"
        known = self._handlers.get(name)
        if known is not None and not _is_same(known.function, function):
            raise ConfigError(
                f"two handlers are named {name}: {_describe(known.function)} and {_describe(function)}",
                remedy="give one of them another name",
            )
        names, is_open = _read_parameters(function)
        made = Handler(
            name=name,
            function=function,
            is_async=_is_async(function),
            wants_job="job" in names,
            wants_payload=is_open or names != {"job"},
        )
        self._handlers[name] = made
        return made

    def include(self, other: Handlers) -> None:
        """Take over the handlers of another instance.

        Args:
            other: Whose.

        Raises:
            ConfigError: Two functions have one name.
        """
        for handler in other._handlers.values():
            self.register(handler.function, handler.name)

    def find(self, name: str) -> Handler | None:
        """Find a handler.

        Args:
            name: As a job has it.

        Returns:
            The handler; None when there is none of that name.
        """
        return self._handlers.get(name)

    def suggest(self, name: str) -> str:
        """Name the handler that was meant, for people.

        Args:
            name: One that nobody registered.

        Returns:
            The nearest name; "" when none is near.
        """
        return find_nearest(name, self._handlers)


default_handlers: Final = Handlers()
"""What the decorator `handler` of this module registers in."""

handler: Final = default_handlers.handler


def load_handlers(where: str) -> Handlers:
    """Import a module and find the handlers that it registers.

    Args:
        where: `package.module`, or `package.module:name` for one of several instances of `Handlers`.

    Returns:
        The instance of that name; else the one in the module, or that which it names `handlers`; else what
        the decorator `handler` registered.

    Raises:
        ConfigError: There is no such module, it cannot be imported, or there are no handlers in it.
    """
    module_name, _, name = where.partition(":")
    module = _import(module_name)
    if name:
        found = getattr(module, name, None)
        if not isinstance(found, Handlers):
            what = f"{name} in {module_name} is no instance of Handlers" if found else f"{where} is not there"
            raise ConfigError(what, remedy=f"write {name} = Handlers() in {module_name}")
    else:
        found = _choose(module_name, vars(module))
    if not len(found):
        raise ConfigError(
            f"{where} registers no handler",
            remedy="put @handlers.handler before a function, and import the modules that do so there",
        )
    return found


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(
                f"there is no module {name}",
                remedy="write it as in an import, and start where it can be imported from, or install it",
            ) from None
        raise ConfigError(
            f"{name} cannot be imported: {error}", remedy="install it beside reconciler"
        ) from error
    except (TypeError, ValueError):
        raise ConfigError(
            f"{name!r} is no module", remedy="write package.module or package.module:name"
        ) from None
    except Exception as error:
        raise ConfigError(
            f"{name} cannot be imported: {type(error).__name__}: {error}",
            remedy=f"mend it; python -c 'import {name}' shows where",
        ) from error


def _choose(module_name: str, attributes: dict[str, Any]) -> Handlers:
    found = {name: value for name, value in attributes.items() if isinstance(value, Handlers)}
    if len({id(value) for value in found.values()}) > 1 and "handlers" not in found:
        raise ConfigError(
            f"{module_name} has several instances of Handlers: {', '.join(sorted(found))}",
            remedy=f"say which one, as in {module_name}:{min(found)}",
        )
    chosen: Handlers = found.get("handlers", next(iter(found.values()), default_handlers))
    return chosen


def _is_async(function: Callable[..., Any]) -> bool:
    inner: Any = function
    while isinstance(inner, partial):
        inner = inner.func
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(getattr(inner, "__call__", None))  # noqa: B004 - its kind is asked for


def _read_parameters(function: Callable[..., Any]) -> tuple[set[str], bool]:
    """Read the names of a function's parameters, and whether it takes any others."""
    try:
        parameters: Iterable[inspect.Parameter] = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return set(), True
    names = {one.name for one in parameters if one.kind not in _OPEN}
    return names, any(one.kind in _OPEN for one in parameters)


def _is_same(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """Tell whether two functions are one, also when its module was imported again under the same name."""
    return one is other or _describe(one) == _describe(other)


def _describe(function: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    name = f"{function.__module__}.{getattr(function, '__qualname__', type(function).__qualname__)}"
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code is not None else name
