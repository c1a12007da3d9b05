"""How handlers are registered, found and called, and how a module gives them."""

from __future__ import annotations

import sys
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.errors import ConfigError
from reconciler.runtime.handlers import Handlers, Job, Retry, Snooze, default_handlers, load_handlers
from tests.attempted import DUE, make_job

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def call(function: Callable[..., Any], payload: object = None, job: Job | None = None) -> Any:
    """Call a function as the handler of a job."""
    return Handlers().register(function, "a").bind(job or make_job(payload=payload))()


def test_a_decorated_function_is_found_by_its_name_and_stays_what_it_is() -> None:
    """The decorator registers and returns the function itself."""
    handlers = Handlers()

    @handlers.handler("mail.welcome")
    def welcome() -> int:
        return 7

    assert welcome() == 7
    found = handlers.find("mail.welcome")
    assert found is not None
    assert found.function is welcome


@pytest.mark.parametrize("bare", [True, False])
def test_without_a_name_it_is_module_and_qualified_name(bare: bool) -> None:
    """`@handler` and `@handler()` both name a function by where it is."""
    handlers = Handlers()

    def welcome() -> None: ...

    decorated = handlers.handler(welcome) if bare else handlers.handler()(welcome)
    assert decorated is welcome
    assert handlers.names == (f"{__name__}.{welcome.__qualname__}",)


def test_two_functions_of_one_name_are_refused() -> None:
    """It is told which two there are, and what to do."""
    handlers = Handlers()
    handlers.register(lambda: 1, "a")
    with pytest.raises(ConfigError, match=r"two handlers are named a: .*test_handlers") as raised:
        handlers.register(lambda: 2, "a")
    assert raised.value.remedy == "give one of them another name"


def test_the_same_function_may_come_twice() -> None:
    """A module that is imported again under its name registers the same once more."""
    handlers = Handlers()

    def welcome() -> None: ...

    handlers.register(welcome, "a")
    handlers.register(welcome, "a")
    assert len(handlers) == 1


def test_the_payloads_keys_are_keyword_arguments() -> None:
    """An object's keys are passed by name."""
    assert call(lambda a, b=2: (a, b), {"a": 1}) == (1, 2)
    assert call(lambda **rest: rest, {"a": 1}) == {"a": 1}


def test_a_payload_that_is_no_object_is_the_one_argument() -> None:
    """A list, a text or null comes as it is."""
    assert call(lambda them: them, [1, 2]) == [1, 2]
    assert call(lambda text, job: (text, job.id), "a") == ("a", 12)


def test_a_parameter_named_job_gets_the_job() -> None:
    """It comes beside the payload's keys."""
    job = make_job(payload={"a": 1})
    assert call(lambda a, job: (a, job), job=job) == (1, job)


def test_a_function_of_the_job_alone_gets_no_keys() -> None:
    """It finds the payload in the job."""
    assert call(lambda job: job.payload, {"a": 1}) == {"a": 1}


def test_a_job_tells_what_it_is() -> None:
    """Everything that a handler may want to know is there, and a key for this very try."""
    job = make_job("mail.welcome", {"a": 1})
    assert (job.id, job.handler, job.queue, job.payload) == (12, "mail.welcome", "default", {"a": 1})
    assert (job.attempt, job.max_attempts, job.run_at, job.created_at, job.type) == (2, 5, DUE, DUE, "custom")
    assert job.key == "12-3"
    assert repr(job) == "<Job 12 mail.welcome on default, try 2>"
    assert not job.is_cancelled()


def test_a_payload_is_a_copy_each_time() -> None:
    """What a handler does to it changes nothing elsewhere."""
    job = make_job(payload={"a": []})
    job.payload["a"].append(1)
    assert job.payload == {"a": []}


async def _coroutine() -> None: ...


class _Callable:
    async def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("function", "is_async"),
    [(_coroutine, True), (partial(_coroutine), True), (_Callable(), True), (lambda: None, False)],
)
def test_coroutine_functions_are_known(function: Callable[..., Any], is_async: bool) -> None:
    """Also behind functools.partial, and as objects that can be called."""
    assert Handlers().register(function, "a").is_async is is_async


def test_a_function_without_a_readable_signature_gets_the_payload() -> None:
    """A function in C that does not tell its parameters is called with what there is."""
    assert call(max, [1, 3, 2]) == 3


def test_one_instance_takes_over_anothers_handlers() -> None:
    """include() adds them under their names."""
    one, other = Handlers(), Handlers()
    other.register(lambda: None, "a")
    one.include(other)
    assert one.names == ("a",)


def test_durations_may_be_seconds() -> None:
    """Snooze and Retry take numbers as well."""
    assert Snooze(90).delay == Retry(90).delay == timedelta(minutes=1, seconds=30)
    assert Snooze(timedelta(hours=1)).delay == Retry(timedelta(hours=1)).delay == timedelta(hours=1)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Write the module `an_app`, which can be imported during the test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "an_app", raising=False)
    monkeypatch.setattr(default_handlers, "_handlers", {})

    def write(text: str) -> None:
        (tmp_path / "an_app.py").write_text(f"from reconciler.runtime import *\n{text}\n")

    return write


ONE = 'mine = Handlers()\n@mine.handler("a")\ndef a(): pass'
TWO = f'{ONE}\nother = Handlers()\n@other.handler("b")\ndef b(): pass'


@pytest.mark.parametrize(
    ("text", "where", "names"),
    [
        (ONE, "an_app", ("a",)),
        (ONE, "an_app:mine", ("a",)),
        (TWO, "an_app:other", ("b",)),
        (f"{TWO}\nhandlers = other", "an_app", ("b",)),
        ('@handler("c")\ndef c(): pass', "an_app", ("c",)),
    ],
)
def test_a_module_gives_its_handlers(
    write: Callable[[str], None], text: str, where: str, names: tuple[str, ...]
) -> None:
    """The instance that is named, the only one, the one named handlers, or the default one."""
    write(text)
    assert load_handlers(where).names == names


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("", "an_app", "an_app registers no handler"),
        ("", "an_app:mine", "an_app:mine is not there"),
        ("mine = 1", "an_app:mine", "mine in an_app is no instance of Handlers"),
        (TWO, "an_app", "several instances of Handlers: mine, other"),
        ("", "no_app", "there is no module no_app"),
        ("", "no_app.tasks", "there is no module no_app.tasks"),
        ("", "", "'' is no module"),
        ("", ".an_app", "'.an_app' is no module"),
        ("import not_there", "an_app", "an_app cannot be imported: No module named 'not_there'"),
        ("1 / 0", "an_app", "an_app cannot be imported: ZeroDivisionError: division by zero"),
    ],
)
def test_a_module_without_handlers_is_an_error_for_people(
    write: Callable[[str], None], text: str, where: str, message: str
) -> None:
    """What is wrong, and what to do, without a traceback."""
    write(text)
    with pytest.raises(ConfigError, match=message) as raised:
        load_handlers(where)
    assert raised.value.remedy
