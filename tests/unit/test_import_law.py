"""Machine-checked borders: who imports whom, what core may know, who prints, how long a module is."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import reconciler

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKAGE = Path(reconciler.__file__).parent

_BELOW: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "core": frozenset({"errors"}),
    "resources": frozenset({"errors"}),
    "collector": frozenset(),
    "loader": frozenset({"collector", "core", "errors", "resources"}),
    "database": frozenset({"collector", "core", "errors", "resources"}),
    "targets": frozenset({"core", "errors"}),
    "runtime": frozenset({"database", "targets", "loader", "core", "errors", "resources"}),
    "api": frozenset({"runtime", "database", "targets", "loader", "core", "errors"}),
    "cli": frozenset({"api", "runtime", "database", "targets", "loader", "core", "errors", "resources"}),
    "__main__": frozenset({"cli"}),
    "__init__": frozenset(),
}
"""What each layer may import beside itself; the version in the package's own __init__ is open to all."""

_IMPURE = frozenset(
    {
        *("os", "io", "pathlib", "shutil", "tempfile", "glob", "fileinput", "sys", "locale", "platform"),
        *("socket", "ssl", "http", "urllib", "requests", "httpx", "select", "selectors", "smtplib", "ftplib"),
        *("subprocess", "signal", "multiprocessing", "threading", "asyncio", "concurrent", "sched"),
        *("time", "random", "secrets", "uuid", "getpass", "logging", "sqlite3"),
        *("psycopg", "click", "yaml", "jsonschema", "jsonschema_rs", "importlib"),
    }
)
_CLOCKS = frozenset({("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today")})
_VAGUE = frozenset({"utils", "util", "common", "helpers", "helper", "manager", "base", "misc"})
_LONGEST = 400


def _layer(path: Path, package: Path) -> str:
    return path.relative_to(package).parts[0].removesuffix(".py")


def _imports(tree: ast.Module, path: Path, package: Path) -> Iterator[tuple[int, str]]:
    """Yield each import with its line, as an absolute dotted name; `from a import b` gives `a.b`."""
    parents = [package.name, *path.relative_to(package).parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = parents[: len(parents) - node.level + 1] if node.level else []
            module = ".".join([*start, *filter(None, [node.module])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def _check_import(name: str, layer: str, package: Path) -> str:
    top, _, rest = name.partition(".")
    if top != package.name:
        return f"core is pure: {name}" if layer == "core" and top in _IMPURE else ""
    imported = rest.partition(".")[0]
    if imported in {layer, "", "__version__"}:
        return ""
    return "" if imported in _BELOW.get(layer, frozenset()) else f"{layer} may not import {name}"


def _check_call(node: ast.Call, layer: str) -> str:
    function = node.func
    if isinstance(function, ast.Name):
        if function.id == "print" and layer != "cli":
            return "only cli prints"
        return "core reads no file: open" if function.id == "open" and layer == "core" else ""
    if not isinstance(function, ast.Attribute):
        return ""
    owner = function.value
    name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
    if function.attr in {"echo", "secho"} and name == "click" and layer != "cli":
        return "only cli prints"
    if (name, function.attr) in _CLOCKS and layer == "core":
        return f"core has no clock: {name}.{function.attr}"
    return ""


def _find_faults(package: Path) -> list[str]:
    """Find everything below a package that goes against the law, each as `path:line: what`."""
    faults = []
    for path in sorted(package.rglob("*.py")):
        where, layer, text = path.relative_to(package), _layer(path, package), path.read_text()
        if layer not in _BELOW:
            faults.append(f"{where}:1: no such layer: {layer}")
        if _VAGUE & {part.removesuffix(".py") for part in where.parts}:
            faults.append(f"{where}:1: the name says nothing")
        if len(text.splitlines()) > _LONGEST:
            faults.append(f"{where}:1: over {_LONGEST} lines")
        tree = ast.parse(text)
        found = [(line, _check_import(name, layer, package)) for line, name in _imports(tree, path, package)]
        found += [
            (node.lineno, _check_call(node, layer)) for node in ast.walk(tree) if isinstance(node, ast.Call)
        ]
        faults += [f"{where}:{line}: {fault}" for line, fault in sorted(found) if fault]
    return faults


def test_the_package_keeps_the_law() -> None:
    """Imports go one way, core is pure, only cli prints, modules are short and named for what they hold."""
    assert _find_faults(_PACKAGE) == []


def test_the_law_reads_the_whole_package() -> None:
    """Every layer that has modules was looked at: an empty reading would pass as well."""
    layers = {_layer(path, _PACKAGE) for path in _PACKAGE.rglob("*.py")}
    assert {"errors", "core", "loader", "database", "runtime", "cli"} <= layers


_BAD = [
    ("errors.py", "from reconciler.core.names import is_name", "errors may not import"),
    ("core/a.py", "from reconciler.database import observe", "core may not import"),
    ("core/a.py", "from reconciler import resources", "core may not import"),
    ("core/a.py", "from ..resources import read_resource", "core may not import"),
    ("core/deep/a.py", "from ...loader import files", "core may not import"),
    ("loader/a.py", "import reconciler.database.observe", "loader may not import"),
    ("database/a.py", "from reconciler.loader import files", "database may not import"),
    ("database/a.py", "def f():\n    from reconciler.runtime import local", "database may not import"),
    ("targets/a.py", "from reconciler.database import observe", "targets may not import"),
    ("runtime/a.py", "from reconciler.cli import main", "runtime may not import"),
    ("runtime/a.py", "if TYPE_CHECKING:\n    from reconciler.api import app", "runtime may not import"),
    ("api/a.py", "from reconciler.cli.main import main", "api may not import"),
    ("resources.py", "from reconciler.core import names", "resources may not import"),
    ("stray.py", "", "no such layer"),
    *(
        ("core/a.py", f"import {module}", "core is pure")
        for module in ("os", "os.path", "socket", "subprocess", "time", "random", "secrets", "io", "logging")
    ),
    ("core/a.py", "from pathlib import Path", "core is pure"),
    ("core/a.py", "from psycopg import sql", "core is pure"),
    ("core/a.py", "import click, json", "core is pure"),
    ("core/a.py", "import yaml as y", "core is pure"),
    ("core/a.py", "from urllib.request import urlopen", "core is pure"),
    ("core/a.py", "from datetime import datetime, UTC\nx = datetime.now(UTC)", "core has no clock"),
    ("core/a.py", "import datetime\nx = datetime.datetime.utcnow()", "core has no clock"),
    ("core/a.py", "import datetime\nx = datetime.date.today()", "core has no clock"),
    ("core/a.py", "x = open('a')", "core reads no file"),
    ("database/a.py", "print('a')", "only cli prints"),
    ("runtime/a.py", "import click\nclick.echo('a')", "only cli prints"),
    ("runtime/a.py", "import click\nclick.secho('a')", "only cli prints"),
    ("loader/utils.py", "", "the name says nothing"),
    ("loader/common/a.py", "", "the name says nothing"),
    ("database/base.py", "", "the name says nothing"),
    ("core/helpers.py", "", "the name says nothing"),
    ("runtime/manager.py", "", "the name says nothing"),
    ("core/a.py", "\n" * 401, "over 400 lines"),
]


def _write(root: Path, path: str, text: str) -> Path:
    package = root / "reconciler"
    (package / path).parent.mkdir(parents=True, exist_ok=True)
    (package / path).write_text(text)
    return package


@pytest.mark.parametrize(("path", "text", "fault"), _BAD)
def test_each_breach_is_found(tmp_path: Path, path: str, text: str, fault: str) -> None:
    """A tree with one breach gives one fault, with its path and line."""
    faults = _find_faults(_write(tmp_path, path, text))
    assert len(faults) == 1, faults
    assert faults[0].startswith(f"{path}:")
    assert fault in faults[0]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("cli/a.py", "import click\nfrom reconciler.api import app\nprint(1)\nclick.echo(1)\nopen('a')"),
        ("runtime/a.py", "from reconciler.database import observe\nfrom . import local\nimport time"),
        ("database/a.py", "from reconciler import __version__\nfrom ..core import names\nimport os"),
        (
            "core/a.py",
            "from datetime import UTC, datetime\nx = datetime.fromtimestamp(0, UTC)\nf()()\n[1][0].y()",
        ),
        ("core/a.py", "from reconciler.errors import ReconcilerError\nimport reconciler"),
        ("core/a.py", "\n" * 400),
        ("loader/a.py", "from reconciler.resources import read_resource"),
        ("__main__.py", "from reconciler.cli.main import main"),
    ],
)
def test_what_is_allowed_is_no_fault(tmp_path: Path, path: str, text: str) -> None:
    """The law forbids no more than it says."""
    assert _find_faults(_write(tmp_path, path, text)) == []
