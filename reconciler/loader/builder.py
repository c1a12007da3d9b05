"""Build typed specs of declarations, and find what is wrong with each of them by itself."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from reconciler.core.canonical import render_canonical
from reconciler.core.declared_times import make_blackouts, make_trigger, read_instant
from reconciler.core.durations import parse_duration
from reconciler.core.names import find_nearest
from reconciler.core.run_calls import find_contradictions, read_query
from reconciler.core.schedules import ANY_DIALECT, dialect_for, find_problem
from reconciler.core.specs import (
    BLOCKING_QUEUE,
    WORKER_PATIENCE,
    Body,
    ChannelSpec,
    Every,
    HandlerBody,
    HttpBody,
    JobSpec,
    QueueSpec,
    Schedule,
    SqlBody,
    WorkerSpec,
    needs_runtime,
)
from reconciler.core.times.triggers import compile_every
from reconciler.loader.canonical_values import OMIT, RULES, UnreadableError
from reconciler.loader.job_times import (
    find_idle_zone,
    find_time_conflicts,
    find_zone_fault,
    make_time_rules,
)
from reconciler.loader.schema_words import BODIES, TRIGGERS, describe_choice
from reconciler.loader.sql_texts import find_sql_fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from reconciler.core.config import Config, Target
    from reconciler.core.specs import Spec
    from reconciler.loader.declarations import Declaration
    from reconciler.loader.problems import Problem

_NOT_DIRECT = (
    "timeout",
    "on_failure",
    "after",
    "alert",
    "catch_up",
    "concurrency",
    "blackout",
    "start_at",
    "end_at",
)
_MINUTE = timedelta(minutes=1)
_NO_SPREAD = timedelta(0)
_NO_SECRET = {"secret": ""}

_TRIGGERS = frozenset(TRIGGERS)
_BODIES = frozenset(BODIES)


class SpecBuilder:
    """Builds the specs of one target.

    Attributes:
        problems: What is wrong with the declarations that were built so far.
    """

    def __init__(self, config: Config, target: Target) -> None:
        self.problems: list[Problem] = []
        self._config = config
        self._dialect = ANY_DIALECT if target.pg_cron is None else dialect_for(target.pg_cron)
        # Thousands of jobs share a few schedules and zones.
        self._schedules: dict[str, str] = {}
        self._zones: dict[str, str] = {"": ""}
        self._rules: dict[str, dict[str, Callable[[Any], Any]]] = {}

    def build(self, declaration: Declaration) -> Spec | None:
        """Build one spec.

        Args:
            declaration: Fits the schema; variables are inserted.

        Returns:
            The spec; None when something is wrong, which is added to `problems`.
        """
        before = len(self.problems)
        match declaration.kind:
            case "job":
                spec: Spec | None = self._build_job(declaration)
            case "queue":
                spec = self._build_queue(declaration)
            case "worker":
                spec = self._build_worker(declaration)
            case "channel":
                spec = self._build_channel(declaration)
        return spec if len(self.problems) == before else None

    def _complain(
        self, declaration: Declaration, path: tuple[str | int, ...], message: str, *, at_key: bool = False
    ) -> None:
        # What the defaults say wrong is one problem, not one for each job.
        shared = bool(path) and not declaration.rank_of(str(path[0]))
        owner = "the defaults" if shared else declaration.label
        self.problems.append(declaration.make_problem(path, f"{owner}: {message}", at_key=at_key))

    def _canonical(self, declaration: Declaration) -> dict[str, Any]:
        rules = RULES[declaration.kind]
        if declaration.kind == "job":
            zone = declaration.value.get("timezone", "")
            # An unknown one was complained of: any other serves to find what else is wrong.
            rules = self._find_rules("UTC" if self._zones[zone] else zone)
        document: dict[str, Any] = {}
        for key, value in declaration.value.items():
            rule = rules.get(key)
            if rule is None:
                document[key] = value
                continue
            try:
                new = rule(value)
            except UnreadableError as fault:
                self._complain(declaration, (key, *fault.path), str(fault))
            except ValueError as error:
                self._complain(declaration, (key,), str(error))
            else:
                if new is not OMIT:
                    document[key] = new
        return document

    def _find_rules(self, zone: str) -> dict[str, Callable[[Any], Any]]:
        rules = self._rules.get(zone)
        if rules is None:
            rules = self._rules[zone] = RULES["job"] | make_time_rules(zone)
        return rules

    def _render(self, declaration: Declaration, document: dict[str, Any]) -> str:
        text = render_canonical(document)
        if "\\u0000" in text:
            for path in _find_nul(document, ()):
                self._complain(
                    declaration, path, "a text holds \\0, which PostgreSQL cannot keep: leave it out"
                )
        return text

    def _check_secret(self, declaration: Declaration, path: tuple[str, ...], reference: Any) -> None:
        name = reference["secret"]
        if name not in self._config.secrets:
            nearest = find_nearest(name, self._config.secrets)
            remedy = f"did you mean {nearest!r}?" if nearest else "add it to secrets in reconciler.yaml"
            self._complain(declaration, (*path, "secret"), f"unknown secret {name!r}; {remedy}")

    def _check_schedule(self, declaration: Declaration, text: str) -> None:
        fault = self._schedules.get(text)
        if fault is None:
            problem = find_problem(text, self._dialect)
            fault = ""
            if problem is not None:
                better = f"; write {problem.suggestion!r}" if problem.suggestion else ""
                fault = f"the schedule {text!r}: {problem.reason}{better}"
            self._schedules[text] = fault
        if fault:
            self._complain(declaration, ("schedule",), fault)

    def _check_zone(self, declaration: Declaration, name: str) -> None:
        fault = self._zones.get(name)
        if fault is None:
            fault = self._zones[name] = find_zone_fault(name)
        if fault:
            self._complain(declaration, ("timezone",), fault)

    def _check_choices(self, declaration: Declaration) -> tuple[str, str]:
        value = declaration.value
        triggers = [key for key in value if key in _TRIGGERS] or ["after"] * bool(value.get("after"))
        bodies = [key for key in value if key in _BODIES]
        if len(triggers) == len(bodies) == 1:
            return triggers[0], bodies[0]
        for title, found in (("trigger", triggers), ("body", bodies)):
            if len(found) != 1:
                message = describe_choice(declaration.label, title, found)
                path = (found[1],) if found else ()
                self.problems.append(declaration.make_problem(path, message, at_key=True))
        return "", ""

    def _build_job(self, declaration: Declaration) -> JobSpec | None:
        trigger_key, body_key = self._check_choices(declaration)
        if not trigger_key:
            return None
        self._check_conflicts(declaration, trigger_key, body_key)
        timezone = declaration.value.get("timezone", "")
        self._check_zone(declaration, timezone)
        problems = len(self.problems)
        document = self._canonical(declaration)
        if len(self.problems) > problems:
            return None
        value = declaration.value
        self._check_window(declaration, document)
        trigger = make_trigger(trigger_key, document[trigger_key])
        if isinstance(trigger, Schedule):
            self._check_schedule(declaration, trigger.text)
        elif isinstance(trigger, Every) and trigger.interval < _MINUTE:
            compiled = compile_every(trigger.interval, self._dialect)
            if compiled.problem:
                self._complain(declaration, (trigger_key,), compiled.problem)
        mode = value.get("mode", "managed")
        body: Body
        if body_key == "sql":
            body = SqlBody(text=value["sql"])
            fault = find_sql_fault(body.text, mode)
            if fault:
                self._complain(declaration, ("sql",), fault)
        elif body_key == "http":
            http = document["http"]
            body = HttpBody(url=http["url"], secret=http.get("token", _NO_SECRET)["secret"])
            if "token" in http:
                self._check_secret(declaration, ("http", "token"), http["token"])
        else:
            body = HandlerBody(handler=document["handler"], queue=value.get("queue", "default"))
        return JobSpec(
            name=declaration.name,
            place=declaration.place,
            document=self._render(declaration, document),
            trigger=trigger,
            body=body,
            timezone=timezone,
            start_at=read_instant(document["start_at"]) if "start_at" in document else None,
            end_at=read_instant(document["end_at"]) if "end_at" in document else None,
            blackout=make_blackouts(document.get("blackout", ())),
            spread=parse_duration(document["spread"]) if "spread" in document else _NO_SPREAD,
            ambiguous=value.get("ambiguous", ""),
            nonexistent=value.get("nonexistent", ""),
            mode=mode,
            role=value.get("role", ""),
            database=value.get("database", ""),
            active=value.get("active", True),
            protect=value.get("protect", False),
            after=tuple(document.get("after", ())),
            needs_runtime=mode == "managed" and needs_runtime(document),
            renamed_from=value.get("renamed_from", ""),
        )

    def _check_conflicts(self, declaration: Declaration, trigger: str, body: str) -> None:
        """Refuse keys that contradict each other where one layer wrote both; else the nearer layer wins."""
        value = declaration.value
        drop: list[str] = []

        def settle(key: str, decider: str, message: str) -> None:
            if declaration.rank_of(key) < declaration.rank_of(decider):
                drop.append(key)
            else:
                self._complain(declaration, (key,), message, at_key=True)

        if body != "handler":
            for key in ("queue", "payload"):
                if key in value:
                    settle(key, body, f"{key} goes with handler only, not with {body}: leave it out")
        for key, message in find_time_conflicts(trigger, value):
            settle(key, trigger, message)
        if value.get("mode") == "direct":
            self._check_direct(declaration, trigger, body, drop)
        kept = {key: item for key, item in value.items() if key not in drop}
        message = find_idle_zone(trigger, kept)
        if message:
            deciders = [key for key in (trigger, "start_at", "end_at", "blackout") if key in kept]
            settle("timezone", max(deciders, key=declaration.rank_of), message)
        if drop:
            declaration.value = {key: item for key, item in value.items() if key not in drop}

    def _check_window(self, declaration: Declaration, document: dict[str, Any]) -> None:
        """Refuse an end that is not after the start where one layer wrote both; else the nearer one wins."""
        if not {"start_at", "end_at"} <= document.keys():
            return
        start, end = (read_instant(document[key]) for key in ("start_at", "end_at"))
        if start < end:
            return
        ranks = declaration.rank_of("start_at"), declaration.rank_of("end_at")
        if ranks[0] == ranks[1]:
            message = (
                f"end_at is {document['end_at']}, which is not after start_at, {document['start_at']}: "
                "no run would ever start; write a later one, or active: false"
            )
            self._complain(declaration, ("end_at",), message)
        else:
            del document["start_at" if ranks[0] < ranks[1] else "end_at"]

    def _check_direct(self, declaration: Declaration, trigger: str, body: str, drop: list[str]) -> None:
        # pg_cron runs a direct job as it is: nothing of ours can hold for it.
        for key, rule in ((body, body == "sql"), (trigger, trigger not in {"once", "after"})):
            if rule:
                continue
            if declaration.rank_of("mode") < declaration.rank_of(key):
                drop.append("mode")
            else:
                message = (
                    f"mode: direct goes with sql and a recurring trigger only, not with {key}: leave mode out"
                )
                self._complain(declaration, ("mode",), message)
        if "mode" in drop:
            return
        for key in _NOT_DIRECT:
            if key not in declaration.value or key == trigger:
                continue
            if declaration.rank_of(key) < declaration.rank_of("mode"):
                drop.append(key)
            else:
                message = f"{key} does not go with mode: direct, which pg_cron runs as it is: leave one out"
                self._complain(declaration, (key,), message, at_key=True)

    def _build_queue(self, declaration: Declaration) -> QueueSpec:
        document = self._canonical(declaration)
        if declaration.name == BLOCKING_QUEUE and declaration.value.get("mode") != "blocking":
            # Undeclared it is blocking: who only wants to set its retention must not lose its order.
            key = ("mode",) if "mode" in declaration.value else ()
            self._complain(declaration, key, "is blocking by its name: write mode: blocking, or another name")
        return QueueSpec(
            name=declaration.name,
            place=declaration.place,
            document=self._render(declaration, document),
            protect=declaration.value.get("protect", False),
            renamed_from=declaration.value.get("renamed_from", ""),
        )

    def _build_worker(self, declaration: Declaration) -> WorkerSpec:
        value = declaration.value
        document = self._canonical(declaration)
        self._check_schedule(declaration, value["schedule"])
        if "token" in value:
            self._check_secret(declaration, ("token",), value["token"])
        for key, other in find_contradictions(value).items():
            message = f"{key} is {value[key]!r}, but its url says {other!r}: leave one of them out"
            self._complain(declaration, (key,), message)
        return WorkerSpec(
            name=declaration.name,
            place=declaration.place,
            document=self._render(declaration, document),
            schedule=value["schedule"],
            queue=read_query(value["url"]).get("queue", value.get("queue", "default")),
            timeout=parse_duration(document["timeout"]) if "timeout" in document else WORKER_PATIENCE,
            secret=value.get("token", _NO_SECRET)["secret"],
            role=value.get("role", ""),
            active=value.get("active", True),
            protect=value.get("protect", False),
            renamed_from=value.get("renamed_from", ""),
        )

    def _build_channel(self, declaration: Declaration) -> ChannelSpec:
        document = self._canonical(declaration)
        self._check_secret(declaration, ("url",), declaration.value["url"])
        return ChannelSpec(
            name=declaration.name,
            place=declaration.place,
            document=self._render(declaration, document),
            secret=declaration.value["url"]["secret"],
            deliver=declaration.value.get("deliver", "process"),
            protect=declaration.value.get("protect", False),
            renamed_from=declaration.value.get("renamed_from", ""),
        )


def _find_nul(value: Any, path: tuple[str | int, ...]) -> list[tuple[str | int, ...]]:
    if isinstance(value, str):
        return [path] if "\0" in value else []
    if isinstance(value, dict):
        inner = [found for key, child in value.items() for found in _find_nul(child, (*path, key))]
        return [*((*path, key) for key in value if "\0" in key), *inner]
    if isinstance(value, list):
        return [found for number, child in enumerate(value) for found in _find_nul(child, (*path, number))]
    return []
