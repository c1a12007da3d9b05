"""How many requests somebody may send: a bucket of tokens that fills with time; pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How many requests are let in.

    Attributes:
        per_second: On average; more than 0.
        burst: At once, at least 1.
    """

    per_second: float
    burst: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """What somebody has left.

    Attributes:
        level: Requests, at the moment `at`.
        at: Seconds of a clock that nobody sets.
    """

    level: float
    at: float


def find_level(bucket: Bucket | None, rate: Rate, now: float) -> float:
    """Find how many requests somebody has left.

    Args:
        bucket: As it was left; None for somebody new.
        rate: That holds for it.
        now: The moment.
    """
    if bucket is None:
        return rate.burst
    return min(bucket.level + max(now - bucket.at, 0.0) * rate.per_second, rate.burst)


def find_wait(bucket: Bucket | None, rate: Rate, now: float) -> float:
    """Find how long somebody has to wait before the next request.

    Args:
        bucket: As it was left; None for somebody new.
        rate: That holds for it.
        now: The moment.

    Returns:
        Seconds; 0 where the request may come in.
    """
    return max(1.0 - find_level(bucket, rate, now), 0.0) / rate.per_second


def take_one(bucket: Bucket | None, rate: Rate, now: float) -> Bucket:
    """Count one request.

    Args:
        bucket: As it was left; None for somebody new.
        rate: That holds for it.
        now: The moment.

    Returns:
        What is left; never less than nothing.
    """
    return Bucket(level=max(find_level(bucket, rate, now) - 1.0, 0.0), at=now)
