"""Plan and drift: what an apply would change, and what was changed behind the files' back."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

router: Final = APIRouter(prefix="/api/v1", tags=["plans"])
