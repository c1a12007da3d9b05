"""Queued jobs: put, read, list, retry, cancel."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

router: Final = APIRouter(prefix="/api/jobs", tags=["jobs"])
