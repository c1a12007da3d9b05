"""Runs, the newest first, and one with everything that is known of it."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

router: Final = APIRouter(prefix="/api/v1/runs", tags=["runs"])
