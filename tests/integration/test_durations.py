"""Durations mean in the database what they mean in Python."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING

from reconciler.core.durations import render_duration
from reconciler.database.connect import connect
from reconciler.database.migrate import migrate_target

if TYPE_CHECKING:
    from tests.servers import Database


def test_sql_reads_every_canonical_duration(database: Database) -> None:
    """reconciler.read_duration gives back the duration that was rendered, for any mix of units."""
    draw = random.Random(7)
    units = (604_800_000, 86_400_000, 3_600_000, 60_000, 1_000, 1)
    durations = [
        timedelta(milliseconds=sum(draw.choice((0, 0, 1, 3, 11)) * unit for unit in units) + 1)
        for _ in range(500)
    ]
    texts = [render_duration(duration) for duration in durations]
    with connect(database.dsn) as conn:
        migrate_target(conn)
        rows = conn.execute(
            "SELECT reconciler.read_duration(text) FROM unnest(%s::text[]) AS text",
            (texts,),
        ).fetchall()
    assert [row[0] for row in rows] == durations
