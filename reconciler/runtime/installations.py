"""Find installations of PostgreSQL that have pg_cron: on this machine, or in a root directory beside it.

Reads folders and asks `pg_config`. Knows nothing of clusters: it never starts a server.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from reconciler.errors import LocalServerError

# Where packages put the programs of a server, as patterns below the top of the file system.
BIN_DIR_PATTERNS = (
    "usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "usr/pgsql-*/bin",  # the RPMs of the PostgreSQL project
    "opt/homebrew/opt/postgresql@*/bin",
    "usr/local/opt/postgresql@*/bin",
    "home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
    "Applications/Postgres.app/Contents/Versions/*/bin",
)
# Client packages have the folder, but not these.
SERVER_PROGRAMS = ("initdb", "pg_ctl", "postgres")
# The newest server with a pg_cron package, by release of the distribution.
DISTRIBUTION_SERVERS = {"debian12": 15, "debian13": 17, "ubuntu22.04": 14, "ubuntu24.04": 16}
NEWEST_COMMON_SERVER = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """The programs of one PostgreSQL server.

    Attributes:
        major: The major version, for instance 15.
        bin_dir: The folder of its programs, as seen from inside `root`.
        extension_dir: The folder of its extensions' control files, as seen from inside `root`.
        root: The root directory that it lives in; None for this machine's own.
    """

    major: int
    bin_dir: Path
    extension_dir: Path
    root: Path | None = None

    def extension_version(self, name: str) -> str | None:
        """Read which version `CREATE EXTENSION` would make.

        Args:
            name: The extension, for instance `pg_cron`.

        Returns:
            The default version of its control file, for instance `1.6`; None where it is not installed.
        """
        folder = self.extension_dir
        if self.root is not None:
            folder = self.root / folder.relative_to("/")
        try:
            text = (folder / f"{name}.control").read_text(encoding="utf-8")
        except OSError:
            return None
        found = re.search(r"^\s*default_version\s*=\s*'([^']*)'", text, flags=re.MULTILINE)
        return found.group(1) if found else ""


def find_installations(*, top: Path = Path("/"), search_path: str | None = None) -> tuple[Installation, ...]:
    """Find every server on this machine, with pg_cron or without.

    Args:
        top: The folder below which the packages' folders are looked up.
        search_path: Where to look for `pg_config`, as in PATH; None for PATH itself.

    Returns:
        The installations, newest first, each folder of programs once.
    """
    found = [folder for pattern in BIN_DIR_PATTERNS for folder in top.glob(pattern)]
    pg_config = shutil.which("pg_config", path=search_path)
    if pg_config and (bin_dir := _ask([pg_config, "--bindir"])):
        found.append(Path(bin_dir))
    by_folder: dict[Path, Installation] = {}
    for folder in found:
        if folder.resolve() not in by_folder and (installation := _read_installation(folder)) is not None:
            by_folder[folder.resolve()] = installation
    return tuple(sorted(by_folder.values(), key=lambda one: (-one.major, str(one.bin_dir))))


def find_root_installation(root: Path) -> Installation | None:
    """Find the newest server with pg_cron inside a Debian root directory; runs nothing in it.

    Args:
        root: The top of the root directory.

    Returns:
        The installation, or None where the root has none.
    """
    found = []
    for folder in root.glob("usr/lib/postgresql/*/bin"):
        if folder.parent.name.isdigit() and all((folder / name).exists() for name in SERVER_PROGRAMS):
            major = int(folder.parent.name)
            installation = Installation(
                major=major,
                bin_dir=Path("/") / folder.relative_to(root),
                extension_dir=Path(f"/usr/share/postgresql/{major}/extension"),
                root=root,
            )
            if installation.extension_version("pg_cron") is not None:
                found.append(installation)
    return max(found, key=lambda one: one.major, default=None)


def choose_installation(
    installations: tuple[Installation, ...], *, major: int | None = None, distribution: str = ""
) -> Installation:
    """Choose the newest server with pg_cron.

    Args:
        installations: What was found, newest first.
        major: Take this major version only.
        distribution: What `read_distribution` says, for the remedy.

    Returns:
        The chosen one.

    Raises:
        LocalServerError: None fits; the remedy names the packages.
    """
    for installation in installations:
        if major in (None, installation.major) and installation.extension_version("pg_cron") is not None:
            return installation
    wanted = "PostgreSQL" if major is None else f"PostgreSQL {major}"
    lines = [f"{wanted} with the extension pg_cron is not installed on this machine."]
    for installation in installations:
        cron = installation.extension_version("pg_cron")
        state = "without pg_cron" if cron is None else f"with pg_cron {cron}"
        lines.append(f"Found PostgreSQL {installation.major} in {installation.bin_dir}, {state}.")
    raise LocalServerError("\n  ".join(lines), remedy=_remedy(installations, major, distribution))


def read_distribution(os_release: Path = Path("/etc/os-release")) -> str:
    """Read which release of which distribution this is.

    Args:
        os_release: The file that says so.

    Returns:
        For instance `debian12` or `ubuntu24.04`; empty where the file does not say.
    """
    try:
        text = os_release.read_text(encoding="utf-8")
    except OSError:
        return ""
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return (fields.get("ID", "") + fields.get("VERSION_ID", "")).replace('"', "")


def _remedy(installations: tuple[Installation, ...], major: int | None, distribution: str) -> str:
    newest = installations[0].major if installations else NEWEST_COMMON_SERVER
    apt = major or DISTRIBUTION_SERVERS.get(distribution, newest)
    brew = major or NEWEST_COMMON_SERVER
    return "\n  ".join(
        [
            "Install one of these, then try again:",
            f"  Debian, Ubuntu: apt-get install postgresql-{apt} postgresql-{apt}-cron",
            f"  macOS:          brew install postgresql@{brew} pg_cron",
            f"  Fedora, RHEL:   dnf install postgresql{brew}-server pg_cron_{brew} (from postgresql.org)",
            "  with Docker:    docker compose up --wait (in a checkout of this project; needs nothing else)",
        ]
    )


def _read_installation(bin_dir: Path) -> Installation | None:
    if not all((bin_dir / name).exists() for name in SERVER_PROGRAMS):
        return None
    version = re.search(r"(\d+)(?:\.|devel|beta|rc|\b)", _ask([str(bin_dir / "postgres"), "--version"]))
    if version is None:
        return None
    major = int(version.group(1))
    share_dir = ""
    if (bin_dir / "pg_config").exists():
        share_dir = _ask([str(bin_dir / "pg_config"), "--sharedir"])
    extension_dir = Path(share_dir or f"/usr/share/postgresql/{major}") / "extension"
    return Installation(major=major, bin_dir=bin_dir, extension_dir=extension_dir)


def _ask(command: list[str]) -> str:
    """Return the first line that a program prints; empty where it cannot run."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
