"""What a server is, has and allows, as far as the connected role can see it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reconciler.core.schedules import Dialect, dialect_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reconciler.core.identity import Identity

_VERSION = re.compile(r"(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What the connected role may do.

    Attributes:
        superuser: May name other roles in entries, and sees all.
        sees_all: No row-level security hides other roles' entries.
        use_cron: May use the schema cron.
        schedule: May call `cron.schedule`.
        schedule_in_database: May call `cron.schedule_in_database` (revoked from PUBLIC since pg_cron 1.4).
        alter_job: May call `cron.alter_job` (revoked from PUBLIC since pg_cron 1.4).
        update_entries: May UPDATE `cron.job`: the only way to rename an entry.
        create_schema: May create the schema `reconciler` in the database.
        write_definitions: May write the schema `reconciler`; False also where it is not there yet.
    """

    superuser: bool
    sees_all: bool
    use_cron: bool
    schedule: bool
    schedule_in_database: bool
    alter_job: bool
    update_entries: bool
    create_schema: bool
    write_definitions: bool

    @property
    def has_all(self) -> bool:
        """Whether there is a way for every change of `cron.job`."""
        return (
            self.superuser
            and self.use_cron
            and self.schedule
            and self.schedule_in_database
            and self.alter_job
            and self.update_entries
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A server at one moment.

    Settings of pg_cron are visible to superusers and pg_read_all_settings only; what cannot be seen is None.

    Attributes:
        server_version: For instance 150020.
        database: The connected database.
        role: The connected role (current_user).
        in_recovery: A standby: nothing can be written, and pg_cron does not run.
        extension: Installed version of the extension pg_cron; "" when it is not in this database.
        extension_default: The version that the installed packages would create; "" when there is none.
        extensions: Names of the other extensions that matter here: http, pg_net, supabase_vault.
        settings: pg_cron's settings that are visible, by name without `cron.`.
        launcher_running: Whether pg_cron's launcher is there; None when this cannot be seen.
        launcher_age: Seconds since it started; None when this cannot be seen.
        preloaded: Whether shared_preload_libraries names pg_cron; None when this cannot be seen.
        migrations: Checksums of the migrations that were applied, by number.
        rights: What the role may do.
        identity: Where the database was recorded, and whether it is there; None where nothing is recorded.
    """

    server_version: int
    database: str
    role: str
    in_recovery: bool
    extension: str
    extension_default: str
    extensions: frozenset[str]
    settings: Mapping[str, str]
    launcher_running: bool | None
    launcher_age: float | None
    preloaded: bool | None
    rights: Rights
    migrations: Mapping[int, str] = field(default_factory=dict)
    identity: Identity | None = None

    @property
    def pg_cron(self) -> tuple[int, int, int]:
        """The lowest version that the binary can be; extversion alone cannot tell 1.6.1 from 1.6.7."""
        return find_lowest_version(self.extension, self.settings)

    @property
    def dialect(self) -> Dialect:
        """The schedule grammar of this server."""
        return dialect_for(self.pg_cron)

    @property
    def timezone(self) -> str:
        """The zone in which pg_cron reads schedules: cron.timezone since 1.5, GMT before and by default."""
        return self.settings.get("timezone", "GMT") if self.pg_cron >= (1, 5, 0) else "GMT"

    @property
    def known_timezone(self) -> str | None:
        """That zone, where the role sees pg_cron's settings; None where it is only taken for GMT."""
        return self.timezone if self.settings else None

    @property
    def background_workers(self) -> bool | None:
        """Whether jobs run in background workers; None when the setting cannot be seen."""
        value = self.settings.get("use_background_workers")
        return None if value is None else value == "on"

    def same_server(self, other: Facts) -> bool:
        """Tell whether everything is the same that a desired state is made of."""
        return (
            self.database == other.database
            and self.role == other.role
            and self.dialect == other.dialect
            and self.timezone == other.timezone
            and self.background_workers == other.background_workers
            and self.extensions == other.extensions
        )


def find_lowest_version(extension: str, settings: Mapping[str, str]) -> tuple[int, int, int]:
    """Find the lowest pg_cron version that a server can be running.

    The extension's version moves late (1.6.0 still says 1.5, 1.6.1 and all later say 1.6), while each binary
    brings its own settings: cron.timezone came with 1.5.0, cron.launch_active_jobs with 1.6.0,
    cron.match_dom_and_dow after 1.6.7.

    Args:
        extension: The extension's version, such as `1.4-1`; "" when it is not installed.
        settings: pg_cron's visible settings, by name without `cron.`.

    Returns:
        Three numbers; (0, 0, 0) when pg_cron is not installed.
    """
    match = _VERSION.match(extension)
    if match is None:
        return (0, 0, 0)
    major, minor = int(match[1]), int(match[2])
    lowest = (major, minor, 1 if (major, minor) == (1, 6) else 0)
    for setting, since in (
        ("timezone", (1, 5, 0)),
        ("launch_active_jobs", (1, 6, 0)),
        ("match_dom_and_dow", (1, 6, 8)),
    ):
        if setting in settings:
            lowest = max(lowest, since)
    return lowest
