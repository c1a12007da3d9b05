"""When things happen: pg_cron's dialects, rules of local time, zones, runs, and all of it in words."""

from __future__ import annotations
