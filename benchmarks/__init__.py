"""Benchmarks: ratios against peers and floors, measured in the same run. Never a timed test."""

from __future__ import annotations
