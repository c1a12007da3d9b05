"""What the Scheduler declares: its queue and its recurring jobs, as spec files would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reconciler.core.canonical import render_canonical
from reconciler.core.specs import Place, QueueSpec
from reconciler.database import scheduled
from reconciler.database.runs import has_runtime

from .registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import psycopg

    from reconciler.core.scheduler_jobs import SchedulerConfig

_PLACE = Place(path="Scheduler", line=1, column=1)


class Declarations(Registry):
    """The registry of a scheduler."""

    def declare_queue(self, name: str, config: SchedulerConfig) -> bool:
        """Declare the queue of a scheduler.

        Args:
            name: Of the queue.
            config: How its jobs are treated.

        Returns:
            Whether anything was changed.

        Raises:
            RefusedError: The name belongs to another owner.
            DatabaseError: It could not be applied.
        """
        spec = QueueSpec(name=name, place=_PLACE, document=render_canonical(config.declare_queue()))
        return self._jobs.apply(spec).revision is not None

    def declare_job(
        self,
        job_id: str,
        function: Callable[..., Any],
        handler: str,
        *,
        trigger: Mapping[str, Any],
        **policies: Any,
    ) -> None:
        """Declare a recurring job.

        Args:
            job_id: Its name.
            function: What is called.
            handler: The name of that.
            trigger: As in a spec file, with its zone.
            **policies: Other keys of a job.

        Raises:
            InvalidInputError: It is no valid job.
            RefusedError: The name belongs to another owner, or to an entry that nobody declared.
            DatabaseError: It could not be applied.
        """
        rest = {key: value for key, value in trigger.items() if key != "schedule"}
        schedule = trigger.get("schedule", "")
        self.register_job(job_id, schedule, function, handler=handler, **rest, **policies)


def is_declared(conn: psycopg.Connection[Any], owner: str, queue: str, config: SchedulerConfig) -> bool:
    """Tell whether the queue of a scheduler is declared as it is wanted.

    Args:
        conn: To the target, whatever there is.
        owner: Whose.
        queue: Its name.
        config: How its jobs are to be treated.
    """
    wanted = render_canonical(config.declare_queue())
    return has_runtime(conn) and scheduled.read_queue(conn, owner, queue) == wanted
