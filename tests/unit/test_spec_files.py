"""Spec files that are read anew when they changed."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from reconciler.errors import ConfigError, InvalidInputError
from reconciler.loader.specs import load_specs
from reconciler.runtime.spec_files import WatchedSpecFiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from reconciler.core.config import Config, Target
    from reconciler.core.specs import Spec

MODULE = "reconciler.runtime.spec_files"
CONFIG = """\
owner: shop
targets:
  test: {dsn: "${env:DSN}", vars: {app: "${env:APP}"}}
  live: {dsn: "${env:LIVE}"}
default_target: test
"""
JOBS = """\
jobs:
  %s: {schedule: "0 1 * * *", sql: SELECT 1}
"""
ENVIRONMENT = {"DSN": "host=here", "APP": "x", "USER": "anna", "GITHUB_SHA": "c0ffee"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with one job, written a while ago."""
    (tmp_path / "jobs.d").mkdir()
    write(tmp_path / "reconciler.yaml", CONFIG)
    write(tmp_path / "jobs.d" / "a.yaml", JOBS % "one")
    return tmp_path


def write(path: Path, text: str, *, age: float = 60) -> Path:
    """Write a file as if it had been done some seconds ago."""
    path.write_text(text)
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def watch(folder: Path, **options: object) -> WatchedSpecFiles:
    """Watch the files; by a clock for which they have settled."""
    values = {"environment": ENVIRONMENT, "clock": lambda: time.time_ns() + 10**12, **options}
    return WatchedSpecFiles(folder / "reconciler.yaml", **values)  # type: ignore[arg-type] # each of its kind


def list_names(files: WatchedSpecFiles) -> list[str]:
    """List what is declared."""
    return [spec.name for spec in files.load()[2]]


def test_nothing_is_read_twice(folder: Path) -> None:
    """What did not change is the very same."""
    files = watch(folder)
    first = files.load()
    assert first[1].name == "test"
    assert all(one is other for one, other in zip(files.load(), first, strict=True))


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda folder: write(folder / "jobs.d" / "a.yaml", JOBS % "other"), ["other"]),
        # The same length and time: the file's number tells, or when it was changed.
        (lambda folder: write(folder / "jobs.d" / "a.yaml", JOBS % "two"), ["two"]),
        (lambda folder: write(folder / "jobs.d" / "b.yaml", JOBS % "two"), ["one", "two"]),
        (lambda folder: (folder / "jobs.d" / "more").mkdir(), ["one"]),
        (
            lambda folder: (
                write(folder / "jobs.d" / "b.yaml", JOBS % "b"),
                (folder / "jobs.d" / "a.yaml").unlink(),
            ),
            ["b"],
        ),
    ],
)
def test_a_change_is_seen(folder: Path, change: Callable[[Path], object], names: list[str]) -> None:
    """A file that was edited, that came or went."""
    files = watch(folder)
    assert list_names(files) == ["one"]
    change(folder)
    assert list_names(files) == names


def test_the_configuration_counts_too(folder: Path) -> None:
    """Its owner and folders hold from the next reading on."""
    files = watch(folder)
    files.load()
    (folder / "more").mkdir()
    write(folder / "more" / "b.yaml", JOBS % "two")
    write(folder / "reconciler.yaml", CONFIG + "jobs: [jobs.d, more]\n")
    assert list_names(files) == ["one", "two"]


def test_what_was_written_just_now_is_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the grain of a file's time another edit would not be seen by it."""
    grain = time.time_ns()
    monkeypatch.setattr(f"{MODULE}._describe", lambda path: (str(path), grain, grain, 60, 1))
    files = watch(folder, clock=time.time_ns)
    first = files.load()
    (folder / "jobs.d" / "a.yaml").write_text(JOBS % "two")
    assert list_names(files) == ["two"]
    assert files.load()[2] is not first[2]


def test_problems_are_told_until_they_are_mended(folder: Path) -> None:
    """What was good before is not told in their place."""
    files = watch(folder)
    files.load()
    write(folder / "jobs.d" / "a.yaml", "jobs: {one: {schedule: 7}}")
    for _ in range(2):
        with pytest.raises(InvalidInputError, match=r"a\.yaml:1"):
            files.load()
    write(folder / "jobs.d" / "a.yaml", "jobs: {}")
    with pytest.raises(InvalidInputError, match="no resource is declared"):
        files.load()
    (folder / "jobs.d" / "a.yaml").unlink()
    (folder / "jobs.d").rmdir()
    with pytest.raises(InvalidInputError, match=r"there is no 'jobs\.d'"):
        files.load()
    (folder / "jobs.d").mkdir()
    write(folder / "jobs.d" / "a.yaml", JOBS % "back")
    assert list_names(files) == ["back"]
    (folder / "reconciler.yaml").unlink()
    with pytest.raises(ConfigError, match="there is no"):
        files.load()


def test_the_environment_is_the_one_that_is_given(folder: Path) -> None:
    """Variables, who asks and of which commit; what the chosen target needs has to be there."""
    request = watch(folder).make_request()
    assert (request.target.dsn, request.target.variables) == ("host=here", {"app": "x"})
    assert (request.owner, request.actor, request.commit) == ("shop", "anna", "c0ffee")
    assert [spec.name for spec in request.specs] == ["one"]
    with pytest.raises(ConfigError, match="LIVE"):
        watch(folder, target_name="live").load()
    assert watch(folder, target_name="live", dsn="host=there").load()[1].dsn == "host=there"


def test_a_target_that_moves_is_not_followed(folder: Path) -> None:
    """The process is connected to where it was: to plan for another place would be wrong."""
    files = watch(folder)
    assert files.find_target().dsn == "host=here"
    write(folder / "reconciler.yaml", CONFIG.replace("${env:DSN}", "host=elsewhere"))
    for look in (files.load, files.find_target):
        with pytest.raises(ConfigError, match="the dsn of the target test changed"):
            look()
    write(folder / "reconciler.yaml", CONFIG)
    assert list_names(files) == ["one"]


def test_many_threads_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes while the files are read waits for that."""
    readings = []

    def load(config: Config, target: Target) -> tuple[Spec, ...]:
        readings.append(1)
        return load_specs(config, target)

    monkeypatch.setattr(f"{MODULE}.load_specs", load)
    files = watch(folder)
    threads = [threading.Thread(target=files.load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(readings) == 1
