"""PostgreSQL through psycopg: connect, migrate, observe, apply. Knows no YAML and prints nothing."""

from __future__ import annotations
