"""Pure decisions: specs, schedules, diff, plan. Knows no file, network, clock, environment or chance."""

from __future__ import annotations
