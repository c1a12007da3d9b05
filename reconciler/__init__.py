"""Reconcile scheduled work in PostgreSQL with what is declared in YAML."""

from __future__ import annotations

__version__ = "0.1.0"
