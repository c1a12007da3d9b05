"""Run the programs of a private server as an ordinary user and, where asked, inside a root directory.

Knows nothing of PostgreSQL.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from reconciler.errors import LocalServerError

# The programs' messages are read here, and the caller's PG* variables would lead them astray.
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """As whom, and where, the programs of a server run.

    Attributes:
        uid: The user to become; None to stay the caller.
        gid: The group to become; None to stay in the caller's.
        root: The root directory to enter first; None for none.
    """

    uid: int | None = None
    gid: int | None = None
    root: Path | None = None

    def run(self, *argv: str, text: str = "", privileged: bool = False, timeout: float = 60) -> str:
        """Run a program to its end.

        Args:
            *argv: The program and its arguments, paths as seen from inside the root directory.
            text: What it reads.
            privileged: Stay the caller (or root, inside a root directory) to make folders for the user.
            timeout: Seconds that it may take.

        Returns:
            What it printed, warnings included.

        Raises:
            LocalServerError: It could not run, took too long, or failed.
        """
        become = self.uid if self.root is None and not privileged else None
        command = [*self._prefix(privileged=privileged), *argv]
        try:
            result = subprocess.run(
                command,
                input=text,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                timeout=timeout,
                cwd="/",
                env=ENVIRONMENT,
                user=become,
                group=self.gid if become is not None else None,
                extra_groups=[] if become is not None else None,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise LocalServerError(f"{Path(argv[0]).name} could not run: {error}") from error
        if result.returncode != 0:
            raise LocalServerError(
                f"{Path(argv[0]).name} failed with exit code {result.returncode}: {result.stdout.strip()}"
            )
        return result.stdout

    def outside(self, path: Path) -> Path:
        """Return a path as it is seen from outside of the root directory."""
        return path if self.root is None else self.root / path.relative_to("/")

    def make_private_folder(self, folder: Path) -> None:
        """Make a folder that only this account may enter; its parents must exist.

        Args:
            folder: Its path as seen from inside the root directory.
        """
        owner = [] if self.uid is None else ["-o", str(self.uid), "-g", str(self.gid)]
        self.run("install", "-d", "-m", "700", *owner, str(folder), privileged=True)

    def _prefix(self, *, privileged: bool) -> list[str]:
        if self.root is None:
            return []
        sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
        become = [] if privileged else [f"--userspec={self.uid}:{self.gid}", "--groups="]
        return [*sudo, "chroot", *become, str(self.root)]
