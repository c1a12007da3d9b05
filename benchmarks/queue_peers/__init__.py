"""Programs that put and do no-op jobs, one for each contestant. They know nothing of what is measured."""

from __future__ import annotations
