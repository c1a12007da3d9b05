"""The disk: strict YAML, JSON Schema, variables and configuration become specs. Knows no database."""

from __future__ import annotations
