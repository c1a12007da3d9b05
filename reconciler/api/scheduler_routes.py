"""The registry of jobs over HTTP: list, register, trigger, last result, cancel."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

router: Final = APIRouter(prefix="/api/v1/scheduler/jobs", tags=["scheduler"])
