"""The table of guarantees names pages and tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guarantees.md"
ROWS = {
    cells[0]: cells
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if re.match(r"\| [PSW]\d", line)
    for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
}


def read_tests(path: Path) -> set[str]:
    """Read the names of a file's tests."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_no_row_is_missing() -> None:
    """Ten on planning, fifteen on safety and six on the service, each once and in order."""
    assert list(ROWS) == [
        *(f"P{n}" for n in range(1, 11)),
        *(f"S{n}" for n in range(1, 16)),
        *(f"W{n}" for n in range(1, 7)),
    ]
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert sum(line.startswith(("| P", "| S", "| W")) for line in lines) == len(ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_each_row_has_a_page_and_tests_that_exist(row: str) -> None:
    """A test that was renamed or removed takes its promise with it, unless another one is named."""
    _, promise, page, shown = ROWS[row]
    assert promise
    found = re.fullmatch(r"\[[^\]]+\]\(([a-z-]+\.md)(?:#[a-z-]+)?\)", page)
    assert found is not None
    assert (ROOT / "docs" / found[1]).is_file()
    tests = re.findall(r"`([a-z_/]+\.py)::(test_[a-z0-9_]+)`", shown)
    assert tests
    assert shown == ", ".join(f"`{path}::{name}`" for path, name in tests)
    for path, name in tests:
        assert path.startswith(("acceptance/", "integration/", "unit/"))
        assert name in read_tests(ROOT / "tests" / path), f"{path} has no {name}"
