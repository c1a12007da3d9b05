"""Functions as jobs name them: found again by their path, or by a name of their own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime
from functools import partial, wraps
from json import dumps
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.database.claims import ClaimedJob
from reconciler.errors import ConfigError, InvalidInputError
from reconciler.runtime.functions import Functions, pick_arguments
from reconciler.runtime.handlers import Fail, Job, load_handlers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def greet(name: str, *, loud: bool = False) -> str:
    """Do something that can be seen."""
    return name.upper() if loud else name


async def greet_later(name: str) -> str:
    """Do the same in an event loop."""
    await asyncio.sleep(0)
    return name


class Greeter:
    """Has functions of its own."""

    @staticmethod
    def plain(name: str) -> str:
        """Need no instance."""
        return name

    @classmethod
    def of_class(cls, name: str) -> str:
        """Need no instance either."""
        return name

    def of_instance(self, name: str) -> str:
        """Need one."""
        return name


def _decorate(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    return call


greet_aloud = _decorate(greet)


@pytest.fixture
def functions() -> Functions:
    """Those of the tests."""
    return Functions(["tests"])


def _job(name: str, /, **payload: Any) -> Job:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    claimed = ClaimedJob(
        1, 1, name, dumps(payload), 1, 4, 0, moment, 60, 30, "custom", None, None, "a", "scheduler", moment
    )
    return Job(claimed)


@pytest.mark.parametrize(
    ("function", "path"),
    [
        (greet, "greet"),
        (greet_later, "greet_later"),
        (Greeter.plain, "Greeter.plain"),
        (Greeter.of_class, "Greeter.of_class"),
    ],
)
def test_a_function_is_named_by_its_path(functions: Functions, function: Any, path: str) -> None:
    """And another program finds it by that, without registering it."""
    name = functions.make_call(function, {"name": "you"})
    assert name == f"{__name__}:{path}"
    handler = Functions(["tests"]).find(name)
    assert handler is not None
    assert handler.function == function
    assert handler.is_async == (function is greet_later)


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (lambda: 1, "is a lambda"),
        (_decorate(lambda: 1), "is a lambda"),
        (Greeter().of_instance, "is not what its module has under that name"),
        (greet_aloud, "is not what its module has under that name"),
        (partial(greet, "you"), "has no name of its own"),
        (os.system, "is not what its module has|is in none of the modules"),
        (subprocess.getoutput, "subprocess:getoutput is in none of the modules"),
        (Greeter, "is not what its module has under that name"),
    ],
)  # fmt: skip
def test_what_no_other_process_finds_is_refused(functions: Functions, function: Any, problem: str) -> None:
    """With what to do about it."""
    with pytest.raises(InvalidInputError, match=problem) as caught:
        functions.name(function)
    assert "@scheduler.job" in str(caught.value)


def test_a_local_function_is_refused_unless_it_has_a_name(functions: Functions) -> None:
    """Whoever registers it in each process can use it."""

    def local(name: str) -> str:
        return name

    with pytest.raises(InvalidInputError, match="is made within a function"):
        functions.name(local)
    with pytest.raises(InvalidInputError, match="is made within a function"):
        functions.handler(local)
    assert functions.handler("local.greeting")(local) is local
    assert functions.name(local) == "local.greeting"
    handler = functions.find("local.greeting")
    assert handler is not None
    assert handler.function is local


def test_a_bare_decorator_names_by_the_path(functions: Functions) -> None:
    """Also a function of a module that is none of those whose functions are found."""
    foreign = Functions(["elsewhere"])
    foreign.handler(greet)
    assert foreign.name(greet) == functions.name(greet)
    assert foreign.find(f"{__name__}:greet") is not None
    assert foreign.find(f"{__name__}:greet_later") is None


def test_two_functions_have_two_names(functions: Functions) -> None:
    """The same function may be registered again."""
    functions.handler("a")(greet)
    functions.handler("a")(greet)
    with pytest.raises(ConfigError, match="two handlers are named a"):
        functions.handler("a")(greet_later)


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "posix:system",
        "subprocess:getoutput",
        f"{__name__}:subprocess.getoutput",
        f"{__name__}:os.system",
        f"{__name__}:dumps",
        f"{__name__}:Greeter",
        f"{__name__}:nothing",
        f"{__name__}:",
        f"{__name__}.greet",
        "testsuite:greet",
        "greet",
    ],
)
def test_who_writes_the_table_does_not_choose_among_all_functions(functions: Functions, name: str) -> None:
    """Only what the named modules themselves define is called."""
    assert functions.find(name) is None


def test_a_module_that_cannot_be_imported_fails_its_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They say why, and are tried again: the module may be there by then."""
    monkeypatch.syspath_prepend(tmp_path)
    functions = Functions(["hf_late"])
    handler = functions.find("hf_late:work")
    assert handler is not None
    with pytest.raises(ModuleNotFoundError, match="hf_late"):
        handler.bind(_job("hf_late:work", a=1))()
    (tmp_path / "hf_late.py").write_text("def work(): return 5\n")
    handler = functions.find("hf_late:work")
    assert handler is not None
    assert handler.bind(_job("hf_late:work"))() == 5
    monkeypatch.delitem(sys.modules, "hf_late")


def test_arguments_that_do_not_fit_are_refused(functions: Functions) -> None:
    """When it is scheduled, and not when it is due; `job` comes by itself."""
    for wrong in ({}, {"name": "a", "nane": "b"}, {"loud": True}):
        with pytest.raises(InvalidInputError, match=r"greet cannot be called with what was given for it: "):
            functions.make_call(greet, wrong)

    @functions.handler("wants.job")
    def wants_job(job: Job, event: str) -> str:
        return f"{job.id} {event}"

    assert functions.make_call(wants_job, {"event": "a"}) == "wants.job"
    functions.make_call(functions.handler("any")(lambda **_: None), {"whatever": 1})


def test_arguments_are_picked_by_name() -> None:
    """What nobody asks for is left out."""

    def wants(event_id: str, event_time: str) -> None: ...

    assert pick_arguments(wants, {"event_time": "t", "minutes_before": 5}) == {"event_time": "t"}
    assert pick_arguments(print, {"event_time": "t"}) == {}


def test_results_can_be_forgotten() -> None:
    """What functions raise is not."""
    functions = Functions(["tests"], keep_results=False)
    for function in (greet, greet_later):
        handler = functions.find(functions.name(function))
        assert handler is not None
        value = handler.bind(_job(handler.name, name="you"))()
        assert (asyncio.run(value) if handler.is_async else value) is None

    @functions.handler("fails")
    def fails() -> None:
        raise Fail("no")

    handler = functions.find("fails")
    assert handler is not None
    with pytest.raises(Fail):
        handler.bind(_job("fails"))()


def test_the_programs_own_module_has_the_name_that_an_import_gives_it(tmp_path: Path) -> None:
    """With `python -m` its functions are found from elsewhere; of a script, by the same script."""
    (tmp_path / "program.py").write_text(
        "from reconciler.runtime.functions import Functions, find_calling_package\n"
        "def work(): return 5\n"
        "if __name__ == '__main__':\n"
        "    functions = Functions(['other'])\n"
        "    name = functions.name(work)\n"
        "    print(name, functions.find(name).function is work, find_calling_package())\n"
    )
    for command, expected in (
        (["program.py"], "__main__:work True __main__"),
        (["-m", "program"], "program:work True program"),
    ):
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        assert done.stdout.strip() == expected


def test_a_worker_can_load_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--app module` finds them, although none may be registered."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "hf_app.py").write_text(
        "from reconciler.runtime.functions import Functions\n"
        "handlers = Functions(['hf_app'])\n"
        "def work(): return 5\n"
    )
    handler = load_handlers("hf_app").find("hf_app:work")
    assert handler is not None
    assert handler.function() == 5
    monkeypatch.delitem(sys.modules, "hf_app")
