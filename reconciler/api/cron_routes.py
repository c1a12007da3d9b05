"""Jobs over HTTP: list, read, create, change, delete, trigger, pause, resume."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

router: Final = APIRouter(prefix="/api/v1/cron/jobs", tags=["cron"])
