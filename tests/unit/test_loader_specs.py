"""Loading spec files: which files, what is merged, and what the documents say."""

from __future__ import annotations

import gc
import json
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.config import Config, Secret, Target
from reconciler.core.specs import (
    ChannelSpec,
    Daily,
    Every,
    HandlerBody,
    HttpBody,
    JobSpec,
    Monthly,
    NthWeekday,
    Once,
    Place,
    QueueSpec,
    Schedule,
    Spec,
    SqlBody,
    Succeeded,
    Weekly,
    WorkerSpec,
)
from reconciler.errors import InvalidInputError
from reconciler.loader.config import load_config, resolve_target
from reconciler.loader.problems import Problem, describe_place, render_problem
from reconciler.loader.specs import load_specs
from reconciler.loader.sql_texts import find_sql_fault, strip_sql
from reconciler.loader.yaml_reader import read_yaml

if TYPE_CHECKING:
    import random

_DATA = Path(__file__).parents[1] / "data" / "specs"
_TARGETS = {
    "production": Target(name="production", variables={"url": "https://x", "n": "1", "raw": "${var:n}"}),
    "staging": Target(name="staging", variables={"url": "https://y"}),
}
_SECRETS = {"s": Secret(name="s", store="env", key="S")}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an empty jobs.d."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs.d").mkdir()
    return tmp_path


def _config(folder: Path, *jobs: str) -> Config:
    return Config(
        path=str(folder / "reconciler.yaml"),
        owner="delivery",
        jobs=jobs or ("jobs.d",),
        targets=_TARGETS,
        default_target="production",
        secrets=_SECRETS,
    )


def _load(folder: Path, *texts: str, target: str = "production") -> dict[str, Spec]:
    for number, text in enumerate(texts):
        (folder / "jobs.d" / f"{number}.yaml").write_text(text, encoding="utf-8")
    return {spec.name: spec for spec in load_specs(_config(folder), _TARGETS[target])}


def _document(folder: Path, text: str, *, target: str = "production", name: str = "a") -> dict[str, Any]:
    document: dict[str, Any] = json.loads(_load(folder, text, target=target)[name].document)
    return document


def _problems(folder: Path, *texts: str, target: str = "production") -> list[str]:
    with pytest.raises(InvalidInputError) as caught:
        _load(folder, *texts, target=target)
    return [problem.split("\n")[0] for problem in caught.value.problems]


def _job(**keys: object) -> str:
    return json.dumps({"jobs": {"a": {"schedule": "* * * * *", "sql": "SELECT 1"} | keys}})


def test_the_full_example_becomes_typed_specs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind, trigger and body becomes its type, with defaults, overrides and variables resolved."""
    monkeypatch.chdir(_DATA)
    config = load_config(Path("reconciler.yaml"))
    target = resolve_target(config, None, environment={"DATABASE_URL": ""})
    specs = {spec.name: spec for spec in load_specs(config, target)}
    jobs = {name: spec for name, spec in specs.items() if isinstance(spec, JobSpec)}
    assert "only-staging" not in specs
    assert [spec.kind for spec in specs.values()] == ["channel"] + ["queue"] * 3 + ["job"] * 7 + ["worker"]
    assert {name: spec.trigger for name, spec in jobs.items()} == {
        "by-day": Daily(hour=2, minute=30),
        "by-instant": Once(at=datetime(2026, 12, 1, 8, 0, 0, 250_000, tzinfo=UTC)),
        "by-interval": Daily(hour=2, minute=5),
        "by-month": Monthly(day=NthWeekday(weekday=5, nth=-1), hour=23, minute=59),
        "by-schedule": Schedule(text="*/5 * * * *"),
        "by-success": Succeeded(),
        "by-week": Weekly(days=(0, 3), hour=3, minute=0),
    }
    assert jobs["by-day"].body == HttpBody(
        url="https://app.example.com/functions/v1/reminders", secret="reminders"
    )
    assert jobs["by-instant"].body == HandlerBody(handler="mail.welcome", queue="default")
    assert jobs["by-interval"].body == HandlerBody(handler="certification.expiry", queue="outreach")
    assert jobs["by-week"].body == SqlBody(text="VACUUM (ANALYZE) orders")
    assert jobs["by-day"].after == ("by-interval", "by-schedule")
    assert jobs["by-schedule"].place == Place(path="good/full.yaml", line=23, column=3)
    assert jobs["by-schedule"].renamed_from == "by_schedule"
    worker = specs["worker-default-1"]
    assert isinstance(worker, WorkerSpec)
    assert json.loads(worker.document)["limit"] == 20
    assert worker.secret == "run-endpoint"
    channel = specs["ops"]
    assert isinstance(channel, ChannelSpec)
    assert (channel.secret, channel.deliver) == ("ops-slack", "database")
    assert json.loads(channel.document)["deliver"] == "database"
    alert = json.loads(jobs["by-day"].document)["alert"]
    assert (alert["slow"], alert["remind"]) == ("2m", "1d")
    assert json.loads(jobs["by-success"].document)["alert"] == {"slow": "2.5x"}
    assert {name for name, spec in jobs.items() if not spec.needs_runtime} == {"by-week"}
    outreach = json.loads(specs["outreach"].document)
    assert outreach["rate"] == "100/1m"
    assert "mode" not in outreach


def test_the_defaults_of_the_file_give_way_where_jobs_follow_others(folder: Path) -> None:
    """A zone or a mode that all jobs share says nothing to one without a time of its own."""
    defaults = {"timezone": "Europe/Oslo", "mode": "direct"}
    jobs = {"a": {"after": ["b"], "sql": "SELECT 1"}, "b": {"daily": "01:00", "sql": "x", "mode": "managed"}}
    specs = _load(folder, json.dumps({"defaults": defaults, "jobs": jobs}))
    assert json.loads(specs["a"].document) == {"after": ["b"], "sql": "SELECT 1"}
    assert isinstance(specs["a"], JobSpec)
    assert (specs["a"].mode, specs["a"].timezone, specs["a"].after) == ("managed", "", ("b",))


def test_an_override_may_give_a_time_to_what_follows_others(folder: Path) -> None:
    """A trigger beside after is one: the job runs at that time, once the others have succeeded."""
    follows = {"after": ["b"], "sql": "SELECT 1", "overrides": {"staging": {"every": "5m"}}}
    jobs = {"a": follows, "b": {"every": "5m", "sql": "SELECT 1"}}
    text = json.dumps({"jobs": jobs})
    for target, trigger in (("staging", Every(interval=timedelta(minutes=5))), ("production", Succeeded())):
        spec = _load(folder, text, target=target)["a"]
        assert isinstance(spec, JobSpec)
        assert (spec.trigger, spec.after) == (trigger, ("b",))


@pytest.mark.parametrize(
    ("written", "canonical"), [("90s", "1m30s"), ("3x", "3x"), ("03.50x", "3.5x"), ("100.0x", "100x")]
)
def test_slow_is_a_duration_or_a_multiple(folder: Path, written: str, canonical: str) -> None:
    """Both are spelt in one way, so that equal meaning is equal text."""
    assert _document(folder, _job(alert={"slow": written}))["alert"]["slow"] == canonical


def test_what_is_usual_is_left_out_of_a_channel(folder: Path) -> None:
    """A channel that a process serves has the document that it always had."""
    text = "channels: {a: {url: {secret: s}, deliver: process}}"
    assert _document(folder, text) == {"url": {"secret": "s"}}


def test_a_direct_job_leaves_out_what_only_the_defaults_say(folder: Path) -> None:
    """Defaults that a direct job cannot have do not hold for it."""
    text = (
        "defaults: {timeout: 5m, concurrency: wait, labels: {a: b}}\n"
        + _job(mode="direct", sql="VACUUM")[1:-1]
    )
    document = _document(folder, text)
    assert document == {"labels": {"a": "b"}, "mode": "direct", "schedule": "* * * * *", "sql": "VACUUM"}


def test_a_nearer_layer_wins_over_a_farther_one(folder: Path) -> None:
    """An override that changes the body or the mode drops what no longer goes with it."""
    job = {"schedule": "* * * * *", "handler": "x", "queue": "default", "payload": {}, "timeout": "5m"}
    overrides = {"staging": {"sql": "SELECT 1"}, "production": {"sql": "VACUUM", "mode": "direct"}}
    text = json.dumps({"jobs": {"a": job | {"overrides": overrides}}})
    assert _document(folder, text, target="staging") == {
        "schedule": "* * * * *",
        "sql": "SELECT 1",
        "timeout": "5m",
    }
    assert _document(folder, text) == {"mode": "direct", "schedule": "* * * * *", "sql": "VACUUM"}


def test_defaults_to_direct_hold_for_sql_only(folder: Path) -> None:
    """A handler cannot be direct, so a file's default mode does not reach it."""
    text = 'defaults: {mode: direct}\njobs: {a: {schedule: "* * * * *", handler: x}}'
    spec = _load(folder, text)["a"]
    assert isinstance(spec, JobSpec)
    assert spec.mode == "managed"
    assert "mode" not in spec.document


def test_labels_are_merged_and_all_else_is_replaced(folder: Path) -> None:
    """Labels of defaults, job and override are merged; a mapping such as on_failure is replaced whole."""
    text = (
        "defaults: {labels: {a: '1', b: '1', c: '1'}, on_failure: {retries: 3, jitter: true}}\n"
        "jobs:\n  a:\n    schedule: '* * * * *'\n    sql: SELECT 1\n    labels: {b: '2', c: '2'}\n"
        "    on_failure: {retries: 1}\n    overrides: {production: {labels: {c: '3'}}}\n"
    )
    document = _document(folder, text)
    assert document["labels"] == {"a": "1", "b": "2", "c": "3"}
    assert document["on_failure"] == {"retries": 1}


def test_defaults_hold_for_jobs_of_their_file_only(folder: Path) -> None:
    """Neither other files nor other kinds get them."""
    first = 'defaults: {timeout: 5m}\njobs: {a: {schedule: "* * * * *", sql: SELECT 1}}\nqueues: {q: {}}'
    second = 'jobs: {b: {schedule: "* * * * *", sql: SELECT 1}}'
    specs = _load(folder, first, second)
    assert '"timeout":"5m"' in specs["a"].document
    assert "timeout" not in specs["b"].document
    assert specs["q"].document == "{}"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"timeout": "90s"}, {"timeout": "1m30s"}),
        ({"active": True, "protect": False, "mode": "managed", "concurrency": "skip", "labels": {}}, {}),
        ({"on_failure": {"retries": 3.0, "backoff": {"factor": 2.0, "max": "60m"}}},
         {"on_failure": {"retries": 3, "backoff": {"factor": 2, "max": "1h"}}}),
        ({"alert": {"after": 1, "on": ["slow", "failed"], "slow": "60s"}},
         {"alert": {"after": 1.0, "on": ["failed", "slow"], "slow": "1m"}}),
        ({"targets": ["production"], "overrides": {"production": {"timeout": "1h"}}}, {"timeout": "60m"}),
    ],
)  # fmt: skip
def test_equal_meaning_is_equal_text(folder: Path, one: dict[str, object], other: dict[str, object]) -> None:
    """Spelling does not change a document."""
    assert _load(folder, _job(**one))["a"].document == _load(folder, _job(**other))["a"].document


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"every": "60s"}, {"every": "1m"}),
        ({"daily": "2:05"}, {"daily": "02:05"}),
        ({"weekly": {"on": ["tue", "sun", "tue"], "at": "2:05"}},
         {"weekly": {"on": ["sun", "tue"], "at": "02:05"}}),
        ({"monthly": {"day": 31.0, "at": "2:05"}}, {"monthly": {"day": 31, "at": "02:05"}}),
        ({"once": "2026-12-01T09:00:00.000+01:00"}, {"once": "2026-12-01t08:00:00z"}),
    ],
)  # fmt: skip
def test_triggers_of_equal_meaning_are_equal_text(
    folder: Path, one: dict[str, object], other: dict[str, object]
) -> None:
    """Times, intervals and instants have one spelling each."""
    texts = [json.dumps({"jobs": {"a": {"sql": "SELECT 1"} | trigger}}) for trigger in (one, other)]
    assert _load(folder, texts[0])["a"] == replace(_load(folder, texts[1])["a"])


def test_an_instant_keeps_its_microseconds(folder: Path) -> None:
    """The document says UTC, with six digits where there is a fraction."""
    text = json.dumps({"jobs": {"a": {"once": "2026-01-01T00:30:00.1+02:00", "sql": "SELECT 1"}}})
    assert _document(folder, text)["once"] == "2025-12-31T22:30:00.100000Z"


def test_variables_are_inserted_as_text_and_never_read_again(folder: Path) -> None:
    """A value may hold what looks like a variable; keys are left alone."""
    text = _job(description="${var:n} ${var:raw} $${var:n}", labels={"${var:n}": "x${var:n}"})
    document = _document(folder, text)
    assert document["description"] == "1 ${var:n} ${var:n}"
    assert document["labels"] == {"${var:n}": "x1"}


def test_sql_keeps_braces_that_are_not_ours(folder: Path) -> None:
    """Dollar quotes and other tools' braces in SQL stay; our variables are inserted."""
    sql = "SELECT '${env:X}', $${\"a\": 1}$$, '${', ${var:n}, '$${var:n}'"
    assert _document(folder, _job(sql=sql))["sql"] == "SELECT '${env:X}', $${\"a\": 1}$$, '${', 1, '${var:n}'"


def test_overrides_of_other_targets_may_use_their_own_variables(folder: Path) -> None:
    """Variables of another target's override are looked up when that target is used."""
    text = _job(overrides={"production": {"description": "${var:n}"}})
    assert "description" not in _document(folder, text, target="staging")
    assert _document(folder, text)["description"] == "1"


def test_other_targets_overrides_are_checked_by_the_schema(folder: Path) -> None:
    """A fault in another target's override is found without choosing it."""
    assert (
        "overrides for production"
        in _problems(folder, _job(overrides={"production": {"x": 1}}), target="staging")[0]
    )


def test_a_zone_of_the_defaults_does_not_reach_intervals(folder: Path) -> None:
    """An interval has no zone; the file's zone is for the others."""
    jobs = "jobs: {a: {every: 5m, sql: SELECT 1}, b: {daily: '01:00', sql: SELECT 1}}"
    text = f"defaults: {{timezone: Europe/Oslo}}\n{jobs}"
    specs = _load(folder, text)
    assert specs["a"] == JobSpec(
        name="a",
        place=Place(path="jobs.d/0.yaml", line=2, column=8),
        document='{"every":"5m","sql":"SELECT 1"}',
        trigger=Every(interval=timedelta(minutes=5)),
        body=SqlBody(text="SELECT 1"),
    )
    assert '"timezone":"Europe/Oslo"' in specs["b"].document


def test_a_resource_of_other_targets_is_left_out(folder: Path) -> None:
    """`targets` limits a resource, also through the defaults; a file may be for one target alone."""
    text = 'defaults: {targets: [staging]}\njobs: {a: {schedule: "* * * * *", sql: SELECT 1}}'
    assert _load(folder, text) == {}
    assert set(_load(folder, text, target="staging")) == {"a"}


def test_names_are_unique_across_files(folder: Path) -> None:
    """A name declared in two files is refused at the second, with the first place."""
    text = "queues: {a: {}}"
    (problem,) = _problems(folder, text, text)
    assert problem.startswith(
        "jobs.d/1.yaml:1:10: the name 'a' is taken already, by queue a at jobs.d/0.yaml:1:10"
    )


def test_references_reach_across_files(folder: Path) -> None:
    """A queue, a channel and a job of another file are known."""
    first = _job(alert={"channels": ["c"]}, after=["b"])
    second = (
        "channels: {c: {url: {secret: s}}}\njobs: {b: {every: 5m, handler: x, queue: q}}\nqueues: {q: {}}"
    )
    assert set(_load(folder, first, second)) == {"a", "b", "c", "q"}


def test_a_broken_file_does_not_make_other_files_wrong(folder: Path) -> None:
    """What a broken file declares is not called unknown, but other problems are still found."""
    problems = _problems(folder, _job(after=["b"], timezone="X/Y"), "jobs:\n  b: {{\n")
    assert len(problems) == 2
    assert "there is no time zone" in problems[0]
    assert problems[1].startswith("jobs.d/1.yaml:")


def test_problems_of_all_files_come_in_order(folder: Path) -> None:
    """Syntax, schema, variables and meaning are reported at once, by file and line."""
    texts = [
        "jobs: [",
        _job(x=1),
        _job(description="${var:x}").replace('"a"', '"b"'),
        _job(sql="--").replace('"a"', '"c"'),
    ]
    assert [problem.split(":")[0] for problem in _problems(folder, *texts)] == [
        f"jobs.d/{n}.yaml" for n in range(4)
    ]


def test_the_schedule_is_judged_for_the_targets_version(folder: Path) -> None:
    """Seconds are fine without a version and with 1.5, and a problem for 1.4."""
    (folder / "jobs.d" / "a.yaml").write_text('jobs: {a: {schedule: "30 seconds", sql: SELECT 1}}')
    config = _config(folder)
    assert load_specs(config, replace(_TARGETS["production"], pg_cron=(1, 5, 0)))
    with pytest.raises(InvalidInputError, match=r"needs pg_cron 1\.5"):
        load_specs(config, replace(_TARGETS["production"], pg_cron=(1, 4, 2)))


def test_an_override_brings_its_own_trigger(folder: Path) -> None:
    """A trigger in an override takes the place of another kind of trigger."""
    spec = _load(folder, _job(overrides={"production": {"every": "5m"}}))["a"]
    assert isinstance(spec, JobSpec)
    assert spec.trigger == Every(interval=timedelta(minutes=5))
    assert "schedule" not in spec.document


def test_files_are_found_below_folders_and_by_patterns(folder: Path) -> None:
    """Folders are read with what is below them; hidden files, folders and other endings are left out."""
    for number, path in enumerate(
        [
            "jobs.d/a.yaml",
            "jobs.d/deep/er/b.yml",
            "jobs.d/.hidden.yaml",
            "jobs.d/.git/c.yaml",
            "jobs.d/d.txt",
            "x/e.yaml",
        ]
    ):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"queues: {{q{number}: {{}}}}")

    def names(*jobs: str) -> set[str]:
        return {spec.name for spec in load_specs(_config(folder, *jobs), _TARGETS["staging"])}

    assert names("jobs.d") == {"q0", "q1"}
    assert names("jobs.d", "x/*.yaml", "jobs.d/a.yaml") == {"q0", "q1", "q5"}
    assert names("*/**/*.y*ml") == {"q0", "q1", "q5"}
    assert names(str(folder / "x")) == {"q5"}


@pytest.mark.parametrize("jobs", ["nowhere", "jobs.d", "x/*.yaml"])
def test_no_file_is_a_problem_and_never_nothing_declared(folder: Path, jobs: str) -> None:
    """A folder that is empty or not there, and a pattern without a match, are problems."""
    with pytest.raises(InvalidInputError, match="jobs: "):
        load_specs(_config(folder, jobs), _TARGETS["staging"])


def test_an_empty_file_beside_others_is_fine(folder: Path) -> None:
    """Only when nothing at all is declared is that a problem."""
    assert set(_load(folder, "", "# later\n", "queues: {q: {}}", "\ufeffqueues: {r: {}}")) == {"q", "r"}
    (folder / "jobs.d" / "2.yaml").unlink()
    (folder / "jobs.d" / "3.yaml").unlink()
    assert "no resource is declared" in _problems(folder, "")[0]


def test_a_file_that_cannot_be_read_is_a_problem(folder: Path) -> None:
    """A link that leads nowhere says so."""
    (folder / "jobs.d" / "a.yaml").symlink_to("gone")
    with pytest.raises(InvalidInputError, match=r"jobs\.d/a\.yaml:1:1: the file cannot be read"):
        load_specs(_config(folder), _TARGETS["staging"])


def test_the_collector_is_restored(folder: Path) -> None:
    """The garbage collector is on again after loading and after a problem, and stays off where it was."""
    assert gc.isenabled()
    _load(folder, "queues: {q: {}}")
    assert gc.isenabled()
    _problems(folder, "x: 1")
    assert gc.isenabled()
    gc.disable()
    try:
        _load(folder, "queues: {q: {}}")
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_section_behind_an_alias_has_places(folder: Path) -> None:
    """Names that an alias brings are found at the anchor."""
    specs = _load(folder, "queues: &q\n  a: {}\n")
    assert specs["a"].place.line == 2
    assert (
        "taken already"
        in _problems(folder, "queues: &q\n  a: {}\njobs: {}\nchannels: {}\nworkers: {}\n", "queues: {a: {}}")[
            0
        ]
    )


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_files_and_keys_changes_nothing(chance: random.Random) -> None:
    """Shuffled keys, spread over shuffled files, give the same specs but for their places."""
    source = read_yaml((_DATA / "good" / "full.yaml").read_text(encoding="utf-8")).value
    config = replace(load_config(_DATA / "reconciler.yaml"))
    target = resolve_target(config, "staging", environment={})
    known = load_specs(config, target)
    defaults = source.pop("defaults")
    documents = [
        {"defaults": defaults, section: {name: own}}
        for section, held in source.items()
        for name, own in held.items()
    ]
    chance.shuffle(documents)
    with tempfile.TemporaryDirectory() as folder:
        for number, document in enumerate(documents):
            text = json.dumps(_shuffle(document, chance))
            Path(folder, f"{number}.yaml").write_text(text, encoding="utf-8")
        again = load_specs(replace(config, jobs=(folder,)), target)
    nowhere = Place(path="", line=1, column=1)
    assert [replace(spec, place=nowhere) for spec in again] == [
        replace(spec, place=nowhere) for spec in known
    ]


def _shuffle(value: Any, chance: random.Random) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        chance.shuffle(keys)
        return {key: _shuffle(value[key], chance) for key in keys}
    return [_shuffle(child, chance) for child in value] if isinstance(value, list) else value


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=60)
    | st.text(st.sampled_from("jobs:queues \n-{}[]a\"'#&*$!\t\x00é"), max_size=60).map(str.encode)
    | st.builds(
        lambda head, body: f"jobs:\n  a:\n    schedule: '* * * * *'\n    {head}: {body}\n".encode(),
        st.sampled_from(
            ["sql", "http", "handler", "every", "payload", "overrides", "alert", "once", "after", "<<"]
        ),
        st.text(max_size=20)
        | st.sampled_from(["{secret: a}", "[a]", "{url: https://x}", "{production: {sql: '${var:n}'}}"]),
    )
)
def test_any_bytes_give_specs_or_problems(data: bytes) -> None:
    """Whatever a file holds, there are specs or a report of problems, and never another exception."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.yaml").write_bytes(data)
        try:
            specs = load_specs(_config(Path(folder), "."), _TARGETS["production"])
        except InvalidInputError as error:
            assert error.problems  # noqa: PT017 - both ends are right
        else:
            assert all(isinstance(spec, JobSpec | QueueSpec) for spec in specs)


def test_a_problem_shows_its_line_with_a_caret() -> None:
    """The caret stands under the column, also in a long line, which is cut."""
    place = Place(path="a.yaml", line=3, column=7)
    assert (
        render_problem(Problem(place=place, message="no", line_text="  abc: d"))
        == "a.yaml:3:7: no\n      abc: d\n          ^"
    )
    assert render_problem(Problem(place=place, message="no")) == "a.yaml:3:7: no"
    far = replace(place, column=5001)
    head, line, caret = render_problem(
        Problem(place=far, message="no", line_text="." * 5000 + "!" + "." * 500)
    ).split("\n")
    assert head == "a.yaml:3:5001: no"
    assert len(line) < 200
    assert line[caret.index("^")] == "!"


def test_a_password_in_a_shown_line_is_hidden() -> None:
    """A connection string in the line of another problem does not show its password."""
    text = 'a: {dsn: "postgres://u:pass@h/d", role: 1, x: "password = secret1"}'
    shown = render_problem(Problem(place=Place(path="a", line=1, column=1), message="no", line_text=text))
    assert "pass@" not in shown
    assert "secret1" not in shown
    assert "postgres://u:****@h/d" in shown


def test_the_line_of_a_place_is_read_from_its_file(folder: Path) -> None:
    """At plan time a problem has a place only; its line is looked up, where the file is still there."""
    (folder / "a.yaml").write_text("x\n  y: 1\n")
    assert (
        describe_place(Place(path="a.yaml", line=2, column=3), "no") == "a.yaml:2:3: no\n      y: 1\n      ^"
    )
    assert describe_place(Place(path="gone.yaml", line=2, column=3), "no") == "gone.yaml:2:3: no"


@pytest.mark.parametrize(
    ("sql", "fault"),
    [
        ("SELECT 'VACUUM'", ""), ("vacuum", "VACUUM"), ("-- x\n/* a /* b */ */ VACUUM t", "VACUUM"),
        ("create index concurrently i on t(a)", "CREATE INDEX CONCURRENTLY"), ("CREATE INDEX i ON t(a)", ""),
        ("REINDEX TABLE CONCURRENTLY t", "REINDEX"), ("REINDEX TABLE t", ""),
        ("REINDEX DATABASE d", "REINDEX"),
        ("ALTER SYSTEM SET a = 1", "ALTER SYSTEM"), ("ALTER TABLE t ADD a int", ""),
        ("DROP DATABASE d", "DROP DATABASE"),
        ("START TRANSACTION; SELECT 1", "START TRANSACTION"), ("PREPARE a AS SELECT 1", ""),
        ("COMMIT", "COMMIT"),
        ("SELECT 1; COPY t FROM STDIN", "COPY"), ("COPY t TO '/tmp/x'", ""),
        ("SELECT 'copy a to stdout'", ""),
        ("SELECT $$\n\\d\n$$", ""), ("SELECT 1\n\\gexec", "psql"), ("  ;  -- x", "no statement"),
        ("/* x", "no statement"),
        ("SELECT E'\\'; COPY t TO STDOUT'", ""), ("DO $a$ BEGIN COMMIT; END $a$", ""), ('SELECT "\n\\x"', ""),
    ],
)  # fmt: skip
def test_sql_that_cannot_run_is_found(sql: str, fault: str) -> None:
    """Words in texts, comments and dollar quotes do not count; statements do."""
    found = find_sql_fault(sql, "managed")
    assert bool(found) == bool(fault)
    assert fault in found


@pytest.mark.parametrize("sql", ["VACUUM", "DROP DATABASE d", "BEGIN; SELECT 1; COMMIT"])
def test_direct_sql_may_be_what_managed_sql_may_not(sql: str) -> None:
    """pg_cron runs a direct command at the top level."""
    assert find_sql_fault(sql, "direct") == ""
    assert find_sql_fault("COPY t TO STDOUT", "direct")


def test_stripping_keeps_what_is_sql() -> None:
    """Only comments, texts, quoted names and dollar quotes are blanked out."""
    assert strip_sql("a 'b''c' \"d\" $x$ e $x$ f$1 -- g\nh /* i */ j") == "a '' '' '' f$1  \nh   j"
