"""Each file of tests/data/specs/bad is wrong in the way of its name; the message stands beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.errors import InvalidInputError
from reconciler.loader.config import load_config, resolve_target
from reconciler.loader.specs import load_specs

_DATA = Path(__file__).parents[1] / "data" / "specs"
_BAD = sorted(path.name for path in (_DATA / "bad").glob("*.yaml"))


def test_every_bad_file_has_its_message() -> None:
    """No message lacks its file, and no file its message."""
    assert [Path(name).stem for name in _BAD] == sorted(path.stem for path in (_DATA / "bad").glob("*.txt"))
    assert len(_BAD) > 80


@pytest.mark.parametrize("name", _BAD)
def test_a_bad_file_is_refused_with_its_message(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The problems of a file are exactly those beside it: place, words, line and caret."""
    monkeypatch.chdir(_DATA)
    config = load_config(Path("reconciler.yaml"))
    target = resolve_target(config, None, environment={"DATABASE_URL": ""})
    with pytest.raises(InvalidInputError) as caught:
        load_specs(replace(config, jobs=(f"bad/{name}",)), target)
    expected = (_DATA / "bad" / name).with_suffix(".txt").read_text(encoding="utf-8")
    assert "\n".join(caught.value.problems) + "\n" == expected
