"""The edge: click commands, the only place that prints and picks exit codes."""

from __future__ import annotations
