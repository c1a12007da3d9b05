"""Queues: how deep and how quick they are, and what holds them up."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

router: Final = APIRouter(prefix="/api/v1/queues", tags=["queues"])
