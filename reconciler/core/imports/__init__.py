"""Read what people have: a target's entries, SQL scripts, crontabs; it becomes declarations or is left."""

from __future__ import annotations
