"""Whether the service lives, and whether it can serve; for probes, without a token."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

router: Final = APIRouter(tags=["health"])
