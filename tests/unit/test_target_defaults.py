"""`target_defaults` of `reconciler.yaml`, and `${target}`: a tenant is one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from reconciler.core.config import Policy, Runtime, Target
from reconciler.errors import ConfigError, InvalidInputError
from reconciler.loader.config import load_config, resolve_target
from reconciler.loader.specs import load_sources, load_specs

if TYPE_CHECKING:
    from pathlib import Path

    from reconciler.core.config import Config

_FLEET = """\
owner: delivery
target_defaults:
  dsn: postgresql://deploy@${env:HOST}/${target}
  role: app-${target}
  prune: confirm
  limits: {deletes: 3, delete_share: 0.1}
  vars: {url: "https://${target}.example.com", plan: basic}
  wave: 1
targets:
  tenant-1: {}
  tenant-2: {wave: 0, prune: auto, limits: {deletes: 9}, vars: {plan: gold}, runtime: false}
"""
_MARS = """\
owner: a
target_defaults:
  windows: {apply: {timezone: Mars, freeze: [{last: 2026-01-01}]}}
targets: {one: {}, two: {}}
"""


def _load(folder: Path, text: str) -> Config:
    path = folder / "reconciler.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def _problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(InvalidInputError) as caught:
        _load(folder, text)
    return [problem.split("\n")[0].removeprefix(str(folder)).lstrip("/") for problem in caught.value.problems]


def test_a_target_has_what_it_does_not_say_itself(tmp_path: Path) -> None:
    """Variables are put together and the target's own text wins; all else is replaced whole."""
    config = _load(tmp_path, _FLEET)
    first, second = (
        resolve_target(config, name, environment={"HOST": "db"}) for name in ("tenant-1", "tenant-2")
    )
    assert first == Target(
        name="tenant-1",
        dsn="postgresql://deploy@db/tenant-1",
        role="app-tenant-1",
        variables={"plan": "basic", "url": "https://tenant-1.example.com"},
        policy=Policy(prune="confirm", max_deletes=3, max_delete_share=0.1),
        runtime=Runtime(),
        wave=1,
    )
    assert second == Target(
        name="tenant-2",
        dsn="postgresql://deploy@db/tenant-2",
        role="app-tenant-2",
        variables={"plan": "gold", "url": "https://tenant-2.example.com"},
        policy=Policy(prune="auto", max_deletes=9),
        wave=0,
    )


def test_the_name_is_inserted_as_text_once(tmp_path: Path) -> None:
    """`$${target}` is a plain `${target}`, and what the environment brings is not read again."""
    config = _load(tmp_path, "owner: a\ntargets:\n  one: {dsn: '$${target} ${env:X} ${target}'}\n")
    assert resolve_target(config, "one", environment={"X": "${target}"}).dsn == "${target} ${target} one"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "owner: a\ntarget_defaults:\n  dsn: ${tarqet}\ntargets: {one: {}, two: {}}\n",
            "reconciler.yaml:3:8: dsn of target one: ${tarqet} is no variable",
        ),
        (
            "owner: a\ntarget_defaults:\n  vars:\n    x: ${env:X\ntargets: {one: {vars: {y: z}}, two: {}}\n",
            "reconciler.yaml:4:8: x of target one: ${env:X is not closed",
        ),
        (
            "owner: a\ntarget_defaults:\n  runtime: {every: 7m}\ntargets: {one: {}, two: {}}\n",
            "reconciler.yaml:3:20: runtime.every of target one: '7m' is neither",
        ),
        (_MARS, "reconciler.yaml:3:31: windows.apply of target one: "),
        (
            "owner: a\ntarget_defaults: {wave: 100}\ntargets: {one: {}}\n",
            "reconciler.yaml:2:25: ",
        ),
        (
            "owner: ${target}\ntargets: {one: {}}\n",
            "reconciler.yaml:1:8: ",
        ),
        (
            "owner: a\ntarget_defaults: {pg_cron: '${target}'}\ntargets: {one: {}}\n",
            "reconciler.yaml:2:28: ",
        ),
    ],
)
def test_what_the_defaults_say_wrong_is_one_problem_at_its_place(
    tmp_path: Path, text: str, problem: str
) -> None:
    """However many targets there are, the problem stands once, where the text was written."""
    found = _problems(tmp_path, text)
    assert len(found) == 1
    assert found[0].startswith(problem)


def test_an_unset_variable_of_the_defaults_is_said_at_its_place(tmp_path: Path) -> None:
    """The error names the target that was chosen, and the line in the defaults."""
    config = _load(tmp_path, _FLEET)
    with pytest.raises(ConfigError, match=r"reconciler.yaml:3:8: .*'HOST' is not set.*target 'tenant-2'"):
        resolve_target(config, "tenant-2", environment={})


def test_files_are_read_once_for_many_targets(tmp_path: Path) -> None:
    """Each target has its own variables and overrides in what was parsed once, and none changes it."""
    config = _load(tmp_path, _FLEET)
    (tmp_path / "jobs.d").mkdir()
    file = tmp_path / "jobs.d" / "a.yaml"
    file.write_text(
        "jobs:\n  one: {every: 5m, sql: \"SELECT '${var:plan}'\", overrides: {tenant-1: {every: 1h}}}\n"
    )
    targets = [resolve_target(config, name, environment={"HOST": "db"}) for name in ("tenant-1", "tenant-2")]
    alone = [load_specs(config, target) for target in targets]
    files = load_sources(config)
    file.unlink()
    shared = [load_specs(config, target, files) for target in (*targets, *targets)]
    assert shared == [*alone, *alone]
    assert "'gold'" in shared[1][0].document
    assert '"1h"' in shared[0][0].document


def test_the_name_of_a_target_stands_in_no_spec_file(tmp_path: Path) -> None:
    """A spec has it through a variable; and what is wrong for one target is not said of the next."""
    config = _load(tmp_path, "owner: a\ntargets:\n  one: {}\n  two: {vars: {name: two}}\n")
    (tmp_path / "jobs.d").mkdir()
    file = tmp_path / "jobs.d" / "a.yaml"
    file.write_text("jobs:\n  one: {every: 5m, sql: SELECT 1, description: 'of ${var:name}'}\n")
    files = load_sources(config)
    one, two = (resolve_target(config, name, environment={}) for name in ("one", "two"))
    with pytest.raises(InvalidInputError, match="unknown variable 'name'"):
        load_specs(config, one, files)
    assert '"of two"' in load_specs(config, two, files)[0].document
    file.write_text("jobs:\n  one: {every: 5m, sql: SELECT 1, description: 'of ${target}'}\n")
    with pytest.raises(InvalidInputError, match=r"\$\{target\} is no variable: write \$\{var:name\}"):
        load_specs(config, two)
