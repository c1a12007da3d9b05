"""Revisions: what was applied, when, by whom."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

router: Final = APIRouter(prefix="/api/v1/revisions", tags=["revisions"])
