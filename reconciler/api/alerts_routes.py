"""Alerts: what somebody has to hear of."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

router: Final = APIRouter(prefix="/api/v1/alerts", tags=["alerts"])
