"""Options of commands on several targets, and what their output says of errors; no database."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
import pytest

from reconciler.cli import exits
from reconciler.cli.fleet_commands import apply_fleet
from reconciler.cli.fleets import Choice
from reconciler.cli.main import main
from reconciler.cli.render_fleet import render_fleet
from reconciler.core.fleets import Outcome, make_plan_key
from reconciler.core.plan import Plan

if TYPE_CHECKING:
    from pathlib import Path

    from reconciler.cli.session import Session
    from reconciler.database.statements import Request

UNREACHABLE = "host=127.0.0.1 port=1 connect_timeout=2"
CONFIG = f"""\
owner: shop
target_defaults: {{dsn: "{UNREACHABLE}", wave: 1}}
targets: {{eu-1: {{wave: 0}}, eu-2: {{}}, us-1: {{}}}}
"""
JOBS = "jobs:\n  tidy: {every: 5m, sql: SELECT 1}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with three targets that nobody can reach."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reconciler.yaml").write_text(CONFIG)
    (tmp_path / "jobs.d").mkdir()
    (tmp_path / "jobs.d" / "shop.yaml").write_text(JOBS)
    return tmp_path


def _run(*args: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(args)
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("plan -t eu-1 -t eu-2 --dsn x", "--dsn leads to one target"),
        ("plan -t eu-* --out plan.json", "a plan is saved for one target"),
        ("plan -t eu-* --format markdown", "plan of several targets is text or json"),
        ("plan -t eu-* --format sql", "name one target for sql"),
        ("plan -t eu-1 --parallel 2", "--parallel goes with several targets"),
        ("plan --parallel 0 -t eu-*", "0 is not in the range 1<=x<=100"),
        ("plan -t eu-* --keep-going", "No such option"),
        ("apply -t eu-*", "apply with --yes"),
        ("apply -t eu-1 --keep-going", "--keep-going goes with several targets"),
        ("apply -t eu-1 --format json", "--format goes with several targets"),
        ("apply plan.json -t eu-1 -t eu-2", "a saved plan is for one target"),
        ("apply -t eu-* --yes --allow-deletes 3-9f2c1a", "a code is for the deletions of one target"),
        ("drift -t eu-* --format markdown", "drift of several targets is text or json"),
        ("drift -t eu-* --watch", "--watch is for one target"),
    ],
)
def test_what_is_for_one_target_is_refused_for_several(
    line: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is that of usage, and the message says what goes together."""
    assert _run(*line.split()) == exits.USAGE
    assert words in " ".join(capsys.readouterr().err.split())


@pytest.mark.usefixtures("folder")
def test_a_pattern_that_fits_nothing_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    """The error is that of a configuration."""
    assert _run("plan", "-t", "eu-*", "-t", "su-1") == exits.ERROR
    assert "reconciler.yaml: no target fits 'su-1'; did you mean 'us-1'?" in capsys.readouterr().err


def test_problems_of_the_files_are_said_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are no target's, so that there is no table."""
    (folder / "jobs.d" / "shop.yaml").write_text("jobs: 1\n")
    assert _run("plan", "-t", "*") == exits.ERROR
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("jobs.d/shop.yaml:1:") == 1


@pytest.mark.usefixtures("folder")
def test_an_error_that_many_have_is_written_out_once(capsys: pytest.CaptureFixture[str]) -> None:
    """The table has a line for each target; below is the text with the names of all that have it."""
    assert _run("plan", "-t", "*") == exits.ERROR
    text = capsys.readouterr().out
    assert text.count("check host and port") == 1
    assert "eu-1, eu-2, us-1: cannot connect to" in text
    assert text.endswith("3 targets: 3 failed.\n")


@pytest.mark.usefixtures("folder")
def test_a_fault_of_ours_does_not_hide_what_became_of_others(capsys: pytest.CaptureFixture[str]) -> None:
    """It is the outcome of its target, with what a report of it needs."""

    def make(session: Session) -> Request:
        raise KeyError(session.target.name)

    choice = Choice(config_path=None, patterns=("*",), parallel=2, keep_going=True)
    assert apply_fleet(choice, make, form="json", yes=True, allow_deletes=None) == exits.ERROR
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert [one["error"] for one in value["targets"]] == [
        f"a fault of reconciler, please report it: KeyError: '{name}'" for name in ("eu-1", "eu-2", "us-1")
    ]
    assert "in make" in value["targets"][0]["remedy"]
    assert value["results"] == {"failed": 3}


def test_a_table_says_what_changed_and_what_was_not_reached() -> None:
    """Changes are counted by their signs, and what took no time has none."""
    plan = Plan(target="one", owner="shop", changes=(), resources=3)
    key = make_plan_key(plan, database="app", role="deploy")
    outcomes = [
        Outcome(
            target="one",
            wave=0,
            result="done",
            key=key,
            counts={"create": 2, "delete": 1},
            revision=4,
            seconds=0.123,
        ),
        Outcome(target="two", wave=1, result="not reached"),
    ]
    text = click.unstyle(render_fleet("apply", outcomes, {key: ("one", plan)}, 0))
    assert "Nothing to change: 3 resources are as declared." in text
    lines = [line.split() for line in text.splitlines()]
    assert ["one", "0", "done", "+2", "-1", "4", "0.12"] in lines
    assert ["two", "1", "not", "reached"] in lines
    assert text.endswith("2 targets: 1 done, 1 not reached.\n")
