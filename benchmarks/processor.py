"""How much processor time a server's processes have used: says more than seconds do where others work too."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psycopg import Connection

_TICKS = os.sysconf("SC_CLK_TCK")


def read_seconds(pid: int) -> float:
    """Return the processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


class ServerTime:
    """Adds up what the processes of a server use from now on; that of one which ends, up to the last look."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._before: dict[int, float] = {}
        self._last: dict[int, float] = {}
        self.look()
        self._before = dict(self._last)

    def look(self) -> None:
        """Look at all of them but the one that asks."""
        for (pid,) in self._conn.execute("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()"):
            with contextlib.suppress(OSError):
                self._last[pid] = read_seconds(pid)

    @property
    def seconds(self) -> float:
        """Return how much they used, up to the last look."""
        return sum(last - self._before.get(pid, 0.0) for pid, last in self._last.items())
