"""Judge specs by the policies of `reconciler.yaml`; pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from reconciler.core.durations import parse_duration, render_duration
from reconciler.core.policies import SpecPolicy, describe_policy, fits_any, fits_url
from reconciler.core.specs import (
    WORKER_PATIENCE,
    HandlerBody,
    HttpBody,
    JobSpec,
    QueueSpec,
    Spec,
    WorkerSpec,
)
from reconciler.core.state import Notice
from reconciler.core.times.hourly_runs import find_crowd
from reconciler.core.times.timings import Timing, make_timing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_QUEUE_TIMEOUT: Final = timedelta(hours=1)
_QUEUE_TRIES: Final = 5
_NO_TIME: Final = timedelta(0)
_ANY_ZONE: Final = "UTC"
_TRIGGERS: Final = ("schedule", "every", "daily", "weekly", "monthly")


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A spec that a policy does not take.

    Attributes:
        spec: The spec.
        policy: The policy.
        path: Where in the spec, as keys from the resource; () for its name.
        fault: What is wrong and what to write.
    """

    spec: Spec
    policy: SpecPolicy
    path: tuple[str, ...]
    fault: str

    @property
    def message(self) -> str:
        """All of it in one line: the resource, the fault, the policy and its reason."""
        return f"{self.spec.kind} {self.spec.name}: {self.fault}; {describe_policy(self.policy)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """A spec with what policies look at, read once for all of them; what none limits is left out."""

    spec: Spec
    document: dict[str, Any]
    role: str
    timing: Timing | None
    timeout: timedelta | None


class SpecJudge:
    """Judges the specs of one target; what many of them share is found out once."""

    def __init__(self, policies: Iterable[SpecPolicy], *, role: str) -> None:
        """Take the policies of one target.

        Args:
            policies: In any order.
            role: That runs what names none; "" where it is not known, so that it is not judged.
        """
        self._policies = sorted(policies, key=lambda policy: policy.name)
        self._role = role
        self._limits_runs = any(policy.runs_per_hour is not None for policy in self._policies)
        self._limits_time = any(policy.timeout is not None for policy in self._policies)
        self._crowds: dict[tuple[Timing, int], int] = {}

    def judge(self, specs: Iterable[Spec]) -> tuple[Violation, ...]:
        """Judge specs.

        Args:
            specs: Sound ones.

        Returns:
            Each way in which one breaks a policy, in the order of the specs, then by the policy's name.
        """
        found: list[Violation] = []
        if not self._policies:
            return ()
        for spec in specs:
            subject = self._look_at(spec)
            labels = (subject.document.get("labels", {}),)
            for policy in self._policies:
                if policy.match.fits(spec.kind, (spec.name,), labels):
                    found.extend(
                        Violation(spec=spec, policy=policy, path=path, fault=fault)
                        for path, fault in self._find_faults(subject, policy)
                    )
        return tuple(found)

    def _look_at(self, spec: Spec) -> _Subject:
        own = spec.role if isinstance(spec, JobSpec | WorkerSpec) else ""
        document = json.loads(spec.document)
        return _Subject(
            spec=spec,
            document=document,
            role=own or self._role,
            timing=_read_timing(spec) if self._limits_runs else None,
            timeout=_read_timeout(spec, document) if self._limits_time else None,
        )

    def _find_faults(self, subject: _Subject, policy: SpecPolicy) -> Iterator[tuple[tuple[str, ...], str]]:
        yield from _find_missing(subject, policy)
        yield from _find_forbidden(subject, policy)
        yield from _find_excess(subject, policy)
        if policy.runs_per_hour is not None and subject.timing is not None:
            count = self._count_crowd(subject.timing, policy.runs_per_hour)
            if count:
                most = policy.runs_per_hour
                fault = f"it runs {count} times within an hour, more than {most}: let it run less often"
                yield _at(subject.document, *_TRIGGERS), fault

    def _count_crowd(self, timing: Timing, limit: int) -> int:
        key = (timing, limit)
        if key not in self._crowds:
            self._crowds[key] = find_crowd(timing, limit)
        return self._crowds[key]


def _read_timing(spec: Spec) -> Timing | None:
    """Read when an active spec runs by the clock."""
    if not (isinstance(spec, JobSpec | WorkerSpec) and spec.active):
        return None
    try:
        timing = make_timing(spec, _ANY_ZONE)
    except ValueError:  # somebody else says what is wrong with it
        return None
    if timing is not None and timing.shift:
        return replace(timing, shift=_NO_TIME)  # which the name decides: all runs are later by it
    return timing


def _read_timeout(spec: Spec, document: dict[str, Any]) -> timedelta | None:
    if "timeout" in document:
        return parse_duration(document["timeout"])
    return {"queue": _QUEUE_TIMEOUT, "worker": WORKER_PATIENCE}.get(spec.kind)


def _find_missing(subject: _Subject, policy: SpecPolicy) -> Iterator[tuple[tuple[str, ...], str]]:
    spec, document = subject.spec, subject.document
    labels = document.get("labels", {})
    for label in policy.labels:
        if label not in labels:
            yield ("labels",) * bool(labels), f"the label {label} is missing: write it below labels"
    is_job = isinstance(spec, JobSpec)
    for key in policy.needs:
        if key in {"description", "protect"}:
            if not document.get(key):
                hint = "true" if key == "protect" else "what it is for"
                yield (key,) * (key in document), f"it has no {key}: write {key}: {hint}"
        elif key == "role":
            if isinstance(spec, JobSpec | WorkerSpec) and not (spec.role or subject.role):
                yield (), "it has no role: write role, here or in the target"
        elif is_job and key == "timeout" and "timeout" not in document:
            yield _at(document, "mode"), f"it has no timeout: write one, such as timeout: 5m{_unless(spec)}"
        elif is_job and key == "alert" and not document.get("alert", {}).get("channels"):
            yield (
                _at(document, "alert", "mode"),
                f"nobody is told when it fails: write alert: {{channels: [...]}}{_unless(spec)}",
            )


def _find_forbidden(subject: _Subject, policy: SpecPolicy) -> Iterator[tuple[tuple[str, ...], str]]:
    spec, document = subject.spec, subject.document
    if isinstance(spec, JobSpec):
        if spec.mode in policy.modes:
            better = "managed" if spec.mode == "direct" else "direct"
            yield _at(document, "mode"), f"mode {spec.mode} is forbidden: write mode: {better}"
        body = "http" if isinstance(spec.body, HttpBody) else "sql"
        body = "handler" if isinstance(spec.body, HandlerBody) else body
        if body in policy.bodies:
            yield (body,), f"a body of {body} is forbidden: write another"
        if spec.database and fits_any(policy.databases, spec.database):
            yield ("database",), f"the database {spec.database} is forbidden: write another"
    if isinstance(spec, JobSpec | WorkerSpec):
        if subject.role and fits_any(policy.roles, subject.role):
            whose = "" if spec.role else ", which it has since it names none,"
            yield (
                _at(document, "role"),
                f"the role {subject.role}{whose} is forbidden: write role with another",
            )
        yield from _find_bad_url(spec, document, policy)


def _find_bad_url(
    spec: JobSpec | WorkerSpec, document: dict[str, Any], policy: SpecPolicy
) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(spec, WorkerSpec):
        path: tuple[str, ...] = ("url",)
        url = str(document.get("url", ""))
    elif isinstance(spec.body, HttpBody):
        path, url = ("http", "url"), spec.body.url
    else:
        return
    if any(fits_url(pattern, url) is not False for pattern in policy.bad_urls):
        yield path, f"this address is forbidden: write one that {_join(policy.bad_urls)} does not fit"
    if policy.good_urls and not any(fits_url(pattern, url) for pattern in policy.good_urls):
        yield path, f"this address is forbidden: write one that {_join(policy.good_urls)} fits"


def _find_excess(subject: _Subject, policy: SpecPolicy) -> Iterator[tuple[tuple[str, ...], str]]:
    spec, document = subject.spec, subject.document
    if policy.timeout is not None and isinstance(spec, JobSpec | QueueSpec | WorkerSpec):
        timeout = subject.timeout
        if timeout is None:
            most = render_duration(policy.timeout)
            yield (
                _at(document, "mode"),
                f"it has no timeout, and {most} is the longest: write timeout: {most}{_unless(spec)}",
            )
        elif timeout > policy.timeout:
            shown, most = render_duration(timeout), render_duration(policy.timeout)
            yield _at(document, "timeout"), f"its timeout is {shown}: write timeout: {most} at the most"
    if policy.retries is not None:
        retries, key = 0, "on_failure"
        if isinstance(spec, QueueSpec):
            retries, key = document.get("max_attempts", _QUEUE_TRIES) - 1, "max_attempts"
        elif isinstance(spec, JobSpec):
            retries = document.get("on_failure", {}).get("retries", 0)
        if retries > policy.retries:
            most = f"{policy.retries}" if key == "on_failure" else f"{policy.retries + 1} tries in all"
            yield _at(document, key), f"it has {retries} retries: {most} at the most"


def _at(document: dict[str, Any], *keys: str) -> tuple[str, ...]:
    """Point at the first key that is there, else at the name."""
    return next(((key,) for key in keys if key in document), ())


def _unless(spec: Spec) -> str:
    is_direct = isinstance(spec, JobSpec) and spec.mode == "direct"
    return ", and leave mode: direct out, which takes none" if is_direct else ""


def _join(patterns: tuple[str, ...]) -> str:
    return " or ".join(patterns)


def find_warnings(specs: Iterable[Spec], policies: Iterable[SpecPolicy], *, role: str) -> tuple[Notice, ...]:
    """Find what policies of the level warn say.

    Args:
        specs: Sound ones.
        policies: Of the target, in any order.
        role: Who runs what names none; "" where it is not known.

    Returns:
        A notice for each policy that has something to say, by name.
    """
    warning = [policy for policy in policies if policy.level == "warn"]
    found: dict[str, list[Violation]] = {}
    for violation in SpecJudge(warning, role=role).judge(specs):
        found.setdefault(describe_policy(violation.policy), []).append(violation)
    return tuple(
        Notice(
            code="policy",
            message=f"{policy}; {'; '.join(sorted({violation.fault for violation in found[policy]}))}",
            names=tuple(sorted({violation.spec.name for violation in found[policy]})),
        )
        for policy in sorted(found)
    )


def find_forbidden_roles(
    specs: Iterable[Spec], policies: Iterable[SpecPolicy], *, role: str
) -> tuple[Violation, ...]:
    """Find what would run as a forbidden role since it names none, once it is known who runs it.

    Args:
        specs: Sound ones, of a target that names no role.
        policies: Of the target, in any order.
        role: Who runs what names none.

    Returns:
        The violations, in the order of `SpecJudge.judge`.
    """
    about_roles = [
        SpecPolicy(
            name=policy.name,
            because=policy.because,
            place=policy.place,
            level=policy.level,
            match=policy.match,
            roles=policy.roles,
        )
        for policy in policies
        if policy.level == "refuse" and fits_any(policy.roles, role)
    ]
    unnamed = [spec for spec in specs if isinstance(spec, JobSpec | WorkerSpec) and not spec.role]
    return SpecJudge(about_roles, role=role).judge(unnamed)
