"""Functions as handlers: a job keeps the name of a function, and another process finds it by that.

A name is one that the program gave, or the path `module:qualified.name`. By their path only functions of
named modules are found: the name comes out of a table, and who may write there must not choose among all the
functions that Python has. Knows nothing of the database.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import replace
from functools import wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from reconciler.errors import InvalidInputError

from .handlers import Handler, Handlers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_MAIN: Final = "__main__"
_LONGEST: Final = 200
_ADVICE: Final = (
    "put @scheduler.job('a.name') above a function of a module, where every process of the program comes by"
)


class Functions(Handlers):
    """The functions of one program that jobs may name; those of its modules need not be registered."""

    def __init__(self, modules: Iterable[str], *, keep_results: bool = True) -> None:
        """Begin with those that can be found.

        Args:
            modules: Modules and packages whose functions are found by their path, with all that is below;
                the program's own, `__main__`, is always among them.
            keep_results: Whether what they return is kept.
        """
        super().__init__()
        self.modules = tuple(sorted({_rename_main(module) for module in (*modules, _MAIN)}))
        self._keep_results = keep_results
        self._found: dict[str, Handler] = {}

    def __len__(self) -> int:
        return super().__len__() or len(self.modules)

    def register(self, function: Callable[..., Any], name: str | None = None) -> Handler:
        """Register a function.

        Args:
            function: Of whatever module.
            name: What jobs call it; None for its path.

        Returns:
            The handler.

        Raises:
            InvalidInputError: It was to have its path for a name, and has none.
            ConfigError: Another function has the name.
        """
        handler = super().register(function, name or _make_path(function))
        self._found.pop(handler.name, None)
        return handler

    def name(self, function: Callable[..., Any]) -> str:
        """Name a function as jobs do.

        Args:
            function: One that was registered, or that a module has under its name.

        Returns:
            The name by which another process finds it, too.

        Raises:
            InvalidInputError: It has none; the message says what to do.
        """
        for handler in self._handlers.values():
            if handler.function == function:
                return handler.name
        path = _make_path(function)
        module, _, qualname = path.partition(":")
        if _is_elsewhere(function, module, qualname):
            raise _make_refusal(
                path,
                "is not what its module has under that name, so another process would call something else",
            )
        if not self._covers(module):
            top = module.partition(".")[0]
            problem = (
                f"{path} is in none of the modules whose functions this scheduler calls "
                f"({', '.join(self.modules)}): name them all in Scheduler(…, modules=[…, {top!r}]), "
                "or put @scheduler.job above the function"
            )
            raise InvalidInputError([problem])
        return path

    def make_call(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> str:
        """Name a function, and see whether it takes what it will be called with.

        Args:
            function: As for `name`.
            arguments: By keyword; one named `job` is added to them when it is called.

        Returns:
            The name.

        Raises:
            InvalidInputError: It has none, or does not.
        """
        name = self.name(function)
        _check_call(name, function, arguments)
        return name

    def find(self, name: str) -> Handler | None:
        """Find the function of a job.

        Args:
            name: As the job has it.

        Returns:
            The handler; None where there is none, or it is in none of the modules. Where its module cannot be
            imported, the handler fails and says so: another process may have better luck.
        """
        found = self._found.get(name)
        if found is not None:
            return found
        handler = super().find(name)
        if handler is None:
            module, colon, path = name.partition(":")
            if not colon or not self._covers(module):
                return None
            try:
                function = _look_up(module, path)
            except Exception as error:  # noqa: BLE001 - a module can raise anything
                return _make_failing(name, error)
            if function is None:
                return None
            handler = super().register(function, name)
        if not self._keep_results:
            handler = replace(handler, function=_forget_result(handler))
        self._found[name] = handler
        return handler

    def _covers(self, module: str) -> bool:
        return any(module == own or module.startswith(f"{own}.") for own in self.modules)


def pick_arguments(function: Callable[..., Any], offered: Mapping[str, Any]) -> dict[str, Any]:
    """Pick those arguments that a function has parameters for, by name.

    Args:
        function: To be called.
        offered: What could be given to it.
    """
    try:
        names = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
    return {name: value for name, value in offered.items() if name in names}


def find_calling_package() -> str:
    """Find the top package, or the module, of who called into `reconciler.runtime`."""
    frame = inspect.currentframe()
    own = __name__.rpartition(".")[0]
    while frame is not None and str(frame.f_globals.get("__name__", "")).startswith(f"{own}."):
        frame = frame.f_back
    module = str(frame.f_globals.get("__name__", _MAIN)) if frame is not None else _MAIN
    return _rename_main(module).partition(".")[0]


def _check_call(name: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some of those that are written in C do not say
        return
    own = {"job": None} if "job" in signature.parameters else {}
    try:
        signature.bind(**{**own, **arguments})
    except TypeError as error:
        problem = f"{name} cannot be called with what was given for it: {error}"
        raise InvalidInputError([problem]) from None


def _make_path(function: Callable[..., Any]) -> str:
    module = _rename_main(getattr(function, "__module__", None) or "")
    name = getattr(function, "__qualname__", "")
    if not module or not name:
        raise InvalidInputError(
            [f"{function!r} has no name of its own, so no other process finds it: {_ADVICE}"]
        )
    path = f"{module}:{name}"
    if "<lambda>" in name:
        raise _make_refusal(path, "is a lambda, so no other process finds it")
    if "<locals>" in name:
        raise _make_refusal(path, "is made within a function, so no other process finds it")
    if len(path) > _LONGEST:
        raise _make_refusal(path, f"is a name of more than {_LONGEST} characters")
    return path


def _make_refusal(path: str, problem: str) -> InvalidInputError:
    return InvalidInputError([f"{path} {problem}: {_ADVICE}"])


def _make_failing(name: str, error: Exception) -> Handler:
    def fail(**_: Any) -> None:
        raise error

    return Handler(name=name, function=fail, is_async=False, wants_job=False, wants_payload=False)


def _forget_result(handler: Handler) -> Callable[..., Any]:
    function = handler.function
    if handler.is_async:

        @wraps(function)
        async def call(*arguments: Any, **named: Any) -> None:
            await function(*arguments, **named)

    else:

        @wraps(function)
        def call(*arguments: Any, **named: Any) -> None:
            function(*arguments, **named)

    return call


def _is_elsewhere(function: Callable[..., Any], module: str, name: str) -> bool:
    try:
        return _look_up(module, name) != function
    except ImportError:
        return True


def _look_up(module: str, path: str) -> Callable[..., Any] | None:
    """Look a function up; None where there is none, or where another module only uses it."""
    main = sys.modules.get(_MAIN)
    found: Any = main if _rename_main(_MAIN) == module else import_module(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    if not callable(found) or isinstance(found, type):
        return None
    home = _rename_main(getattr(found, "__module__", None) or "")
    return found if (home, getattr(found, "__qualname__", "")) == (module, path) else None


def _rename_main(module: str) -> str:
    """Name the program's own module as an import would: with `python -m` it has such a name, too."""
    if module != _MAIN:
        return module
    spec = getattr(sys.modules.get(_MAIN), "__spec__", None)
    return spec.name if spec is not None else _MAIN
