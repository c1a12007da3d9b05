"""`reconciler.yaml`: found, read, checked, and one target of it resolved."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.config import Config, Policy, Runtime, Secret, Target
from reconciler.errors import ConfigError, InvalidInputError
from reconciler.loader.config import find_config, load_config, resolve_target

_FULL = """\
owner: delivery
jobs: [jobs.d, "teams/*/jobs"]
default_target: production
targets:
  local: {dsn: local, vars: {app_url: "http://127.0.0.1:3000"}, prune: auto}
  production:
    dsn: ${env:DATABASE_URL}
    role: ${env:ROLE}
    pg_cron: "1.6"
    prune: confirm
    limits: {deletes: 7, delete_share: 0.25}
    runtime: {every: 5m, runners: 3, keep_runs: 2w, keep_details: 36h}
    vars: {app_url: "https://${env:HOST}/x$${y}"}
secrets:
  run-endpoint: {env: RUN_ENDPOINT_TOKEN}
  reminders: {file: /run/secrets/reminders}
  ops-slack: {vault: ops_slack}
"""
_SMALL = "owner: delivery\ntargets:\n  local: {dsn: local}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _load(folder: Path, text: str) -> Config:
    path = folder / "reconciler.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def _problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(InvalidInputError) as caught:
        _load(folder, text)
    return [problem.split("\n")[0] for problem in caught.value.problems]


def test_every_key_is_read(folder: Path) -> None:
    """The whole file becomes a typed configuration, with the texts of targets as written."""
    assert _load(folder, _FULL) == Config(
        path=str(folder / "reconciler.yaml"),
        owner="delivery",
        jobs=("jobs.d", "teams/*/jobs"),
        default_target="production",
        targets={
            "local": Target(
                name="local",
                dsn="local",
                variables={"app_url": "http://127.0.0.1:3000"},
                policy=Policy(prune="auto"),
                runtime=Runtime(),
            ),
            "production": Target(
                name="production",
                dsn="${env:DATABASE_URL}",
                role="${env:ROLE}",
                pg_cron=(1, 6, 0),
                policy=Policy(prune="confirm", max_deletes=7, max_delete_share=0.25),
                variables={"app_url": "https://${env:HOST}/x$${y}"},
                runtime=Runtime(
                    every=timedelta(minutes=5),
                    runners=3,
                    keep_runs=timedelta(days=14),
                    keep_details=timedelta(hours=36),
                ),
            ),
        },
        secrets={
            "ops-slack": Secret(name="ops-slack", store="vault", key="ops_slack"),
            "reminders": Secret(name="reminders", store="file", key="/run/secrets/reminders"),
            "run-endpoint": Secret(name="run-endpoint", store="env", key="RUN_ENDPOINT_TOKEN"),
        },
    )


def test_little_is_needed(folder: Path) -> None:
    """Jobs are in jobs.d, and the only target is the default one."""
    config = _load(folder, _SMALL)
    assert config.jobs == ("jobs.d",)
    assert config.default_target == "local"
    assert config.targets["local"].policy == Policy()
    assert _load(folder, "owner: a\ntargets: {x: {}}").targets["x"].dsn == ""


@pytest.mark.parametrize(
    ("written", "runtime"),
    [
        ("false", None),
        ("true", Runtime()),
        ("{}", Runtime()),
        ("{every: 59s}", Runtime(every=timedelta(seconds=59))),
        ("{every: 1h, runners: 8}", Runtime(every=timedelta(hours=1), runners=8)),
    ],
)
def test_the_tools_own_entries_can_be_tuned_or_left_out(
    folder: Path, written: str, runtime: Runtime | None
) -> None:
    """runtime: false declares none of them; a key that is left out has its usual value."""
    config = _load(folder, f"owner: a\ntargets: {{x: {{runtime: {written}}}}}")
    assert config.targets["x"].runtime == runtime


def test_the_nearest_configuration_is_found(folder: Path) -> None:
    """It is in the folder, or in the nearest one above."""
    deep = folder / "a" / "b"
    deep.mkdir(parents=True)
    (folder / "reconciler.yaml").write_text(_SMALL)
    assert find_config(deep) == folder / "reconciler.yaml"
    (folder / "a" / "reconciler.yaml").write_text(_SMALL)
    assert find_config(deep) == folder / "a" / "reconciler.yaml"


def test_no_configuration_says_how_to_get_one(folder: Path) -> None:
    """The remedy is `reconciler init`, for a search and for a path."""
    with pytest.raises(ConfigError, match="reconciler init"):
        find_config(folder)
    with pytest.raises(ConfigError, match="reconciler init"):
        load_config(folder / "reconciler.yaml")


def test_a_target_is_resolved_from_the_environment(folder: Path) -> None:
    """`${env:…}` is inserted in dsn, role and variables; `$${` is a plain `${`."""
    environment = {"DATABASE_URL": "postgres://${env:ROLE}@h/d", "ROLE": "runner", "HOST": "example.com"}
    target = resolve_target(_load(folder, _FULL), None, environment=environment)
    assert target.name == "production"
    assert target.dsn == "postgres://${env:ROLE}@h/d"
    assert target.role == "runner"
    assert target.variables == {"app_url": "https://example.com/x${y}"}


def test_an_unset_variable_matters_to_its_own_target_only(folder: Path) -> None:
    """The error names variable, target and place; another target resolves without it."""
    config = _load(folder, _FULL)
    assert resolve_target(config, "local", environment={}).dsn == "local"
    with pytest.raises(ConfigError) as caught:
        resolve_target(config, "production", environment={"DATABASE_URL": "x", "ROLE": "y"})
    message = str(caught.value)
    assert message.startswith("reconciler.yaml:13:21: the environment variable 'HOST' is not set")
    assert "vars.app_url of target 'production'" in message


def test_an_unknown_target_names_the_nearest(folder: Path) -> None:
    """A misspelt target is not guessed, but suggested."""
    with pytest.raises(ConfigError, match="did you mean 'production'"):
        resolve_target(_load(folder, _FULL), "prodution", environment={})
    with pytest.raises(ConfigError, match="known are local, production"):
        resolve_target(_load(folder, _FULL), "zzz", environment={})


def test_several_targets_without_a_default_need_a_name(folder: Path) -> None:
    """No target is chosen silently."""
    config = _load(folder, "owner: a\ntargets: {x: {}, y: {}}")
    assert config.default_target == ""
    with pytest.raises(ConfigError, match="--target: x, y"):
        resolve_target(config, None, environment={})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "1:1: the file needs owner and targets"),
        ("owner: a\ntargets: {}", "2:1: targets is empty"),
        ("owner: My Team\ntargets: {x: {}}", "1:8: owner: 'My Team' is no name"),
        ("owner: a\ntargets: {x: {dns: y}}", "2:15: unknown key 'dns' in target x; did you mean 'dsn'?"),
        ("owner: a\ntargets: {x: {pg_cron: 1.6}}",
         "2:24: pg_cron of target x is the number 1.6, and must be a text"),
        ("owner: a\ntargets: {x: {pg_cron: latest}}",
         "2:24: pg_cron of target x is 'latest': a pg_cron version"),
        ("owner: a\ntargets: {x: {prune: yes}}",
         "2:22: prune of target x is 'yes': use never, confirm or auto"),
        ("owner: a\ntargets: {x: {limits: {delete_share: 2}}}",
         "2:38: limits.delete_share of target x is 2: 1 at most"),
        ("owner: a\ntargets: {x: {vars: {port: 80}}}", "2:28: vars.port of target x is the number 80"),
        ("owner: a\ntargets: {x: {vars: {a b: c}}}", "2:22: 'a b': a variable's name is"),
        ("owner: a\ntargets: {X: {}}", "2:11: 'X' is no name"),
        ("owner: sql\ntargets: {prod: {}}",
         "1:8: owner: 'sql' is the owner of workers that are made in SQL: choose another"),
        ("owner: a\ntargets: {prod: {}}\ndefault_target: pord",
         "3:17: default_target: unknown target 'pord'; did you mean 'prod'?"),
        ("owner: a\ntargets: {x: {}}\nsecrets: {s: {env: A, file: B}}",
         "3:11: secret s has 2 entries: keep one"),
        ("owner: a\ntargets: {x: {}}\nsecrets: {s: abc}",
         "3:14: secret s is the text 'abc', and must be a mapping"),
        ("owner: a\ntargets: {x: {}}\njobs: '${env:JOBS}'", "3:7: jobs: ${…} is read in dsn, role and vars"),
        ("owner: a\ntargets: {x: {dsn: '${var:a}'}}",
         "2:20: dsn of target x: ${var:a} is no variable: write ${env:name}"),
        ("owner: a\ntargets: {x: {role: '${env:A'}}", "2:21: role of target x: ${env:A is not closed"),
        ("owner: a\ntargets: {x: {runtime: {every: 7m}}}",
         "2:32: runtime.every of target x: '7m' is neither 1s to 59s nor a divisor of 60 minutes"),
        ("owner: a\ntargets: {x: {runtime: {every: 2h}}}",
         "2:32: runtime.every of target x: '2h' is neither"),
        ("owner: a\ntargets: {x: {runtime: {keep_runs: 1s1d}}}",
         "2:36: runtime.keep_runs of target x: '1s1d' is no duration"),
        ("owner: a\ntargets: {x: {runtime: {keep_details: 7}}}",
         "2:39: runtime.keep_details of target x is the number 7"),
        ("owner: a\ntargets: {x: {runtime: {runners: 9}}}",
         "2:34: runtime.runners of target x is 9: 8 at most"),
        ("owner: a\ntargets: {x: {runtime: never}}", "2:24: runtime of target x is the text 'never'"),
        ("owner: a\nowner: b", "2:1: the key 'owner' comes twice"),
        ("owner: a\ntargets: {x: {dsn: ${env:A}}}", "2:21: a mapping that begins with {"),
    ],
)  # fmt: skip
def test_a_wrong_configuration_says_where_and_what(folder: Path, text: str, problem: str) -> None:
    """Each fault has its place in the file and says what to write."""
    assert _problems(folder, text)[0].startswith(f"reconciler.yaml:{problem}")


def test_all_problems_are_reported_at_once(folder: Path) -> None:
    """Several faults come together, in the order of their lines."""
    problems = _problems(folder, "owner: A B\ntargets: {x: {prune: no}}\nsecrets: {s: {}}\nother: 1\n")
    assert [problem.split(":")[1] for problem in problems] == ["1", "2", "3", "4"]


def test_a_password_of_the_file_is_not_shown(folder: Path) -> None:
    """The line of another fault hides the password of a connection string."""
    with pytest.raises(InvalidInputError) as caught:
        _load(folder, 'owner: a\ntargets: {x: {dsn: "postgres://u:hunter2@h/d", prune: no}}')
    assert "hunter2" not in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=60)
    | st.text(st.sampled_from("owner: a\ntgs{}[]$&*'\"#-"), max_size=80).map(str.encode)
)
def test_any_bytes_give_a_configuration_or_problems(data: bytes) -> None:
    """Whatever the file holds, nothing but a report of problems is raised."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "reconciler.yaml")
        path.write_bytes(data)
        try:
            load_config(path)
        except InvalidInputError as error:
            assert error.problems  # noqa: PT017 - both ends are right
