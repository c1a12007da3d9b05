"""What people import from reconciler.runtime, and what that costs."""

from __future__ import annotations

import subprocess
import sys

import reconciler.runtime


def test_everything_exported_is_there() -> None:
    """Each name is found where it is said to be, once it is asked for."""
    assert {getattr(reconciler.runtime, name).__name__ for name in reconciler.runtime.__all__} == set(
        reconciler.runtime.__all__
    )


def test_the_package_is_loaded_when_it_is_used() -> None:
    """Who imports reconciler.runtime for the local server does not wait for psycopg."""
    program = "import sys, reconciler.runtime as r; assert 'psycopg' not in sys.modules; r.locked_execution"
    subprocess.run([sys.executable, "-c", program], check=True)
    unknown = "import reconciler.runtime as r; r.unknown"
    result = subprocess.run([sys.executable, "-c", unknown], capture_output=True, text=True, check=False)
    assert "AttributeError: module 'reconciler.runtime' has no attribute 'unknown'" in result.stderr
