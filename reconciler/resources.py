"""Find the files that belong to the package but lie outside of it in a checkout: `sql/` and `schemas/`."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def resource_root() -> Path:
    """Return the folder that holds `sql/` and `schemas/`.

    Returns:
        `reconciler/_resources` in an installed wheel, the top of the checkout otherwise.
    """
    package = Path(__file__).parent
    installed = package / "_resources"
    return installed if installed.is_dir() else package.parent


def read_resource(*parts: str) -> str:
    """Read one of the files below `sql/` or `schemas/`.

    Args:
        *parts: Its path, for instance `"sql", "queries", "observe.sql"`.

    Returns:
        The text.

    Raises:
        FileNotFoundError: The installation is broken: the file is not there.
    """
    return resource_root().joinpath(*parts).read_text(encoding="utf-8")
