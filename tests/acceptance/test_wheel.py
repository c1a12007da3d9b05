"""The built wheel, installed elsewhere, has all it needs: SQL and schemas lie outside the package here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import Database  # noqa: TC001 - pytest reads annotations of fixtures

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel of this checkout was installed, without its dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}", str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    wheel = next(folder.glob("*.whl"))
    subprocess.run(
        [*pip, "install", "--no-deps", f"--target={folder / 'site'}", str(wheel)],
        check=True,
        capture_output=True,
    )
    return folder / "site"


def run(installed: Path, folder: Path, *args: str) -> str:
    """Run the installed package in another folder."""
    result = subprocess.run(
        [sys.executable, "-P", *args],
        cwd=folder,
        env={"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin"},
        check=True,
        capture_output=True,
        text=True,
    )
    return result.stdout


def test_the_installed_package_is_the_one_that_runs(installed: Path, tmp_path: Path) -> None:
    """The package comes from the wheel, not from this checkout."""
    where = run(installed, tmp_path, "-c", "import reconciler; print(reconciler.__file__)")
    assert Path(where.strip()) == installed / "reconciler" / "__init__.py"


def test_apply_from_the_wheel(installed: Path, tmp_path: Path, database: Database) -> None:
    """The wheel can make a project, validate it, migrate a database and apply to it."""
    run(installed, tmp_path, "-m", "reconciler", "init", "--owner", "me")
    run(installed, tmp_path, "-m", "reconciler", "validate")
    output = run(installed, tmp_path, "-m", "reconciler", "apply", "--yes", "--dsn", database.dsn)
    assert "Applied as revision 1." in output
    assert database.connect().execute("SELECT jobname::text FROM cron.job ORDER BY 1").fetchall() == [
        ("hello",),
        ("reconciler-runner",),
        ("reconciler-tick",),
    ]
