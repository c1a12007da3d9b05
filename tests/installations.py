"""Which installations of PostgreSQL the tests use, and which pg_cron these really have."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import psycopg

from reconciler.runtime.installations import Installation, find_installations, find_root_installation

# What script/bootstrap installs: Debian 12's and Debian 13's packages.
EXPECTED_PG_CRON = {15: (1, 4, 2), 17: (1, 6, 5)}


def find_cache() -> Path:
    """Return the folder outside of the checkout where script/bootstrap keeps what is slow to make."""
    given = os.environ.get("RECONCILER_CACHE")
    return Path(given or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reconciler")


def find_test_installation(major: int) -> Installation | None:
    """Find the programs for a test server: in a Debian root directory, or on this machine."""
    roots = (find_root_installation(find_cache() / name) for name in ("trixie-pg17", "bookworm-pg15"))
    for installation in (*(one for one in roots if one is not None), *find_installations()):
        if installation.major == major and installation.extension_version("pg_cron") is not None:
            return installation
    return None


def read_pg_cron_package(installation: Installation) -> tuple[int, int, int] | None:
    """Read the version of Debian's package; None where it is not from a package."""
    status = (installation.root or Path("/")) / "var/lib/dpkg/status"
    with contextlib.suppress(OSError):
        found = re.search(
            rf"^Package: postgresql-{installation.major}-cron\n(?:.+\n)*?Version: (\d+)\.(\d+)\.(\d+)",
            status.read_text(encoding="utf-8"),
            flags=re.MULTILINE,
        )
        if found:
            return (int(found[1]), int(found[2]), int(found[3]))
    return None


def observe_pg_cron(dsn: str) -> tuple[int, int, int]:
    """Tell the least version of pg_cron that behaves as this one does: 1.4.2, 1.5.0, 1.6.1 or 1.6.5."""
    with psycopg.connect(dsn) as conn:
        settings = {row[0] for row in conn.execute("SELECT name FROM pg_settings WHERE name ~ '^cron[.]'")}
        try:
            # From 1.6.5 on a step beyond the field's range is refused.
            conn.execute("SELECT cron.schedule('probe', '*/60 * * * *', 'SELECT 1')")
        except psycopg.errors.InvalidParameterValue:
            return (1, 6, 5)
        finally:
            conn.rollback()
    if "cron.launch_active_jobs" in settings:
        return (1, 6, 1)
    return (1, 5, 0) if "cron.timezone" in settings else (1, 4, 2)
