"""`reconciler.yaml`: found, read, checked, and one target of it resolved."""

from __future__ import annotations

import tempfile
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.change_windows import ChangeWindows, Freeze
from reconciler.core.config import Config, Policy, Runtime, Secret, Target
from reconciler.core.policies import ChangePolicy, Governance, Match, SpecPolicy
from reconciler.core.specs import Blackout, Place
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
    grace: 1w
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
                policy=Policy(prune="confirm", max_deletes=7, max_delete_share=0.25, grace=timedelta(days=7)),
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


@pytest.mark.parametrize("stage", ["add-only", "declared-only", "authoritative"])
def test_the_stage_of_a_target_is_read(folder: Path, stage: str) -> None:
    """Declared-only holds where nothing is said."""
    text = f"owner: a\ntargets: {{x: {{stage: {stage}, prune: confirm}}, y: {{}}}}\n"
    targets = _load(folder, text).targets
    assert (targets["x"].policy.stage, targets["y"].policy.stage) == (stage, "declared-only")


_RULES = """\
owner: delivery
policies:
  - name: teams
    because: Somebody has to be called
    targets: [production]
    level: warn
    match: {kind: [job, worker], names: "tenant-*", labels: {team: delivery}}
    require: {labels: team, description: true, timeout: true, alert: false}
    forbid: {mode: direct, body: [http], role: postgres, database: [a, b], url: {not_matching: "https://*.x/*"}}
    limit: {runs_per_hour: 60, timeout: 1h, retries: 5}
  - {name: calm, because: Nobody is there, changes: [delete], forbid: {on: [fri], from: "16:00", to: "8:00"},
     timezone: Europe/Oslo}
  - {name: a-law, because: They are the law, changes: [update, delete], forbid: true, match: {kind: channel}}
targets:
  local: {}
  production:
    windows:
      apply:
        allow: [{on: [mon], from: "08:00", to: "16:00"}, {on: [sun]}]
        freeze: [{first: 2026-12-20, last: 2027-01-03, because: Christmas}, {last: 2026-01-01}]
        timezone: Europe/Oslo
"""


def _place(line: int, column: int) -> Place:
    return Place(path="reconciler.yaml", line=line, column=column)


def test_policies_and_windows_are_read(folder: Path) -> None:
    """Each target has its windows and the policies that hold for it, sorted by name, with their places."""
    config = _load(folder, _RULES)
    teams = SpecPolicy(
        name="teams",
        because="Somebody has to be called",
        place=_place(3, 5),
        level="warn",
        match=Match(kinds=("job", "worker"), names=("tenant-*",), labels=(("team", "delivery"),)),
        labels=("team",),
        needs=("description", "timeout"),
        modes=("direct",),
        bodies=("http",),
        roles=("postgres",),
        databases=("a", "b"),
        good_urls=("https://*.x/*",),
        runs_per_hour=60,
        timeout=timedelta(hours=1),
        retries=5,
    )
    calm = ChangePolicy(
        name="calm",
        because="Nobody is there",
        place=_place(11, 5),
        verbs=("delete",),
        window=Blackout(days=(5,), start=960, end=480),
        timezone="Europe/Oslo",
    )
    law = ChangePolicy(
        name="a-law",
        because="They are the law",
        place=_place(13, 5),
        match=Match(kinds=("channel",)),
        verbs=("update", "delete"),
    )
    assert config.targets["local"].governance == Governance(changes=(law, calm))
    assert config.targets["production"].governance == Governance(
        specs=(teams,),
        changes=(law, calm),
        windows=ChangeWindows(
            allow=(Blackout(days=(1,), start=480, end=960), Blackout(days=(0,))),
            freezes=(
                Freeze(window=Blackout(first=date(2026, 12, 20), last=date(2027, 1, 3)), because="Christmas"),
                Freeze(window=Blackout(last=date(2026, 1, 1))),
            ),
            timezone="Europe/Oslo",
        ),
    )


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ("{name: p, because: b}", "4:5: policy p: it demands nothing: write require, forbid or limit"),
        ("{name: p, because: b, limit: {}}", "4:27: policies[0].limit is empty"),
        ("{name: p, require: {role: true}}", "4:5: policies[0] needs because"),
        ("{name: p, because: '', require: {role: true}}", "4:24: policies[0].because is empty"),
        ("{name: p, because: b, becuase: b}",
         "4:27: unknown key 'becuase' in policies[0]; did you mean 'because'?"),
        ("{name: p, because: b, require: {lables: [a]}}",
         "4:37: unknown key 'lables' in policies[0].require; did you mean 'labels'?"),
        ("{name: p, because: b, forbid: {rol: a}}",
         "4:36: unknown key 'rol' in policies[0].forbid; did you mean 'role'?"),
        ("{name: p, because: b, limit: {runs: 1}}", "4:35: unknown key 'runs' in policies[0].limit"),
        ("{name: p, because: b, match: {king: job}, require: {role: true}}",
         "4:35: unknown key 'king' in policies[0].match; did you mean 'kind'?"),
        ("{name: p, because: b, match: {kind: jobs}, require: {role: true}}",
         "4:41: policies[0].match.kind is 'jobs': use job, queue, worker or channel"),
        ("{name: p, because: b, match: {kind: [queue, channel]}, require: {role: true}}",
         "4:76: policy p: require.role is about jobs and workers, which match.kind leaves out"),
        ("{name: p, because: b, require: {role: true}, targets: [prod]}",
         "4:60: policy p: unknown target 'prod'; known are x"),
        ("{name: p, because: b, level: eror, require: {role: true}}",
         "4:34: policies[0].level is 'eror': use refuse or warn"),
        ("{name: p, because: b, limit: {timeout: 1s1d}}", "4:44: policy p: limit.timeout: '1s1d' is no"),
        ("{name: p, because: b, limit: {runs_per_hour: 0}}", "4:50: policies[0].limit.runs_per_hour is 0"),
        ("{name: p, because: b, forbid: true}", "4:35: policy p: forbid: true goes with changes only"),
        ("{name: p, because: b, forbid: {on: [fri]}}", "4:40: policy p: on goes with changes only"),
        ("{name: p, because: b, forbid: {url: {not_matching: example.com}}}",
         "4:56: policies[0].forbid.url.not_matching is 'example.com': write a scheme, a host"),
        ("{name: p, because: b, forbid: {role: a}, timezone: UTC}", "4:56: policy p: timezone goes with"),
        ("{name: p, because: b, changes: [delete]}", "4:5: policy p: it forbids nothing: write forbid: true"),
        ("{name: p, because: b, changes: [delete], forbid: false}", "4:5: policy p: it forbids nothing"),
        ("{name: p, because: b, changes: [drop], forbid: true}",
         "4:37: policies[0].changes[0] is 'drop': use create, update or delete"),
        ("{name: p, because: b, changes: [delete], forbid: true, limit: {retries: 1}}",
         "4:67: policy p: limit is about specs, and changes about changes: make two policies of it"),
        ("{name: p, because: b, changes: [delete], forbid: {role: a}}",
         "4:61: policy p: role is about specs, and changes about changes"),
        ("{name: p, because: b, changes: [delete], forbid: true, timezone: UTC}",
         "4:70: policy p: what is always forbidden needs no timezone"),
        ("{name: p, because: b, changes: [delete], forbid: {from: '16:00'}}",
         "4:46: policies[0].forbid has from without to"),
        ("{name: p, because: b, changes: [delete], forbid: {from: '1:00', to: '01:00'}}",
         "4:73: policy p: from and to are both 01:00"),
        ("{name: p, because: b, changes: [delete], forbid: {last: 2026-02-30}}",
         "4:61: policy p: '2026-02-30' is no date"),
        ("{name: p, because: b, changes: [delete], forbid: {on: [fri]}, timezone: CET}",
         "4:77: policy p: PostgreSQL takes 'CET' for an abbreviation"),
        ("{name: p, because: b, require: {role: true}}\n  - {name: p, because: c, limit: {retries: 1}}",
         "5:12: there are two policies 'p': choose another name"),
    ],
)  # fmt: skip
def test_a_wrong_policy_says_where_and_what(folder: Path, rule: str, problem: str) -> None:
    """Each fault of a policy has its place, and says what to write."""
    text = f"owner: a\ntargets: {{x: {{}}}}\npolicies:\n  - {rule}\n"
    assert _problems(folder, text)[0].startswith(f"reconciler.yaml:{problem}")


@pytest.mark.parametrize(
    ("windows", "problem"),
    [
        ("{}", "2:15: windows of target x is empty"),
        ("{aply: {}}", "2:25: unknown key 'aply' in windows of target x; did you mean 'apply'?"),
        ("{apply: {timezone: UTC}}",
         "2:32: windows.apply of target x: it says nothing: write allow or freeze"),
        ("{apply: {allow: []}}", "2:40: windows.apply.allow of target x is empty"),
        ("{apply: {allow: [{because: a}]}}", "2:42: unknown key 'because' in windows.apply.allow[0]"),
        ("{apply: {freeze: [{because: a}]}}", "2:42: windows.apply of target x: freeze[0] says no time"),
        ("{apply: {freeze: [{on: [friday]}]}}",
         "2:48: windows.apply.freeze[0].on[0] of target x is 'friday'"),
        ("{apply: {freeze: [{first: 2027-01-03, last: 2026-12-20}]}}",
         "2:68: windows.apply of target x: last is 2026-12-20, which is before first"),
        ("{apply: {allow: [{on: [mon]}], timezone: Oslo}}",
         "2:65: windows.apply of target x: there is no time zone 'Oslo'"),
    ],
)  # fmt: skip
def test_wrong_windows_say_where_and_what(folder: Path, windows: str, problem: str) -> None:
    """Each fault of the windows of a target has its place, and says what to write."""
    text = f"owner: a\ntargets: {{x: {{windows: {windows}}}}}\n"
    assert _problems(folder, text)[0].startswith(f"reconciler.yaml:{problem}")


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
    assert message.startswith("reconciler.yaml:14:21: the environment variable 'HOST' is not set")
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
        ("owner: a\ntargets: {x: {grace: 0s}}", "2:22: grace of target x: '0s' is no time at all"),
        ("owner: a\ntargets: {x: {prune: yes}}",
         "2:22: prune of target x is 'yes': use never, confirm or auto"),
        ("owner: a\ntargets: {x: {stage: all}}",
         "2:22: stage of target x is 'all': use add-only, declared-only or authoritative"),
        ("owner: a\ntargets: {x: {stage: authoritative}}",
         "2:22: stage of target x: authoritative deletes what nobody declared, and prune: never deletes"),
        ("owner: a\ntargets: {x: {limits: {delete_share: 2}}}",
         "2:38: limits.delete_share of target x is 2: 1 at most"),
        ("owner: a\ntargets: {x: {vars: {port: 80}}}", "2:28: vars.port of target x is the number 80"),
        ("owner: a\ntargets: {x: {vars: {a b: c}}}", "2:22: 'a b': a variable's name is"),
        ("owner: a\ntargets: {X: {}}", "2:11: 'X' is no name"),
        ("owner: sql\ntargets: {prod: {}}",
         "1:8: owner: 'sql' is the owner of workers that are made in SQL: choose another"),
        ("owner: api\ntargets: {prod: {}}",
         "1:8: owner: 'api' is the owner of jobs that are made through the service: choose another"),
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
