"""Processes: the local PostgreSQL. Knows nothing of commands and prints nothing."""

from __future__ import annotations
