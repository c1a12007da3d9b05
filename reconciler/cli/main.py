"""The entry point: a group whose commands are imported only when they are called.

`reconciler --help` has to be quick, so the commands' names and one-line helps stand here.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, cast

import click

from reconciler import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "init": ("starting", "Write a first configuration and spec file."),
    "validate": ("validating", "Check the files, without a database."),
    "plan": ("planning", "Show what an apply would change."),
    "apply": ("applying", "Make the target as declared, in one transaction."),
    "drift": ("drifting", "Show what was changed behind the files' back."),
    "reconcile": ("reconciling", "Keep the target as declared, round after round."),
    "history": ("history", "List what was applied, when and by whom."),
    "blame": ("history", "Say who changed a resource last, and from what."),
    "rollback": ("rolling_back", "Make the target as it was after a revision."),
    "restore": ("restoring", "Bring back what the files no longer declare."),
    "release": ("releasing", "Give up jobs, and let their entries stay."),
    "transfer": ("releasing", "Hand resources to another owner."),
    "comment": ("commenting", "Show a plan as one comment on a pull request."),
    "import": ("importing", "Write entries that nobody declared as spec files."),
    "explain": ("explaining", "Say when a schedule or a job runs, in words and in instants."),
    "next": ("upcoming", "List the runs to come."),
    "status": ("status", "Show how every job fares and when it runs next."),
    "calendar": ("calendars", "Show when how many jobs start, and where too many do."),
    "runs": ("runs", "Show what ran."),
    "run": ("running", "Run a job now, or rehearse it."),
    "cancel": ("cancelling", "End runs that go on."),
    "pause": ("pausing", "Let jobs skip their runs for a while."),
    "resume": ("pausing", "Let paused jobs run again."),
    "enqueue": ("enqueuing", "Put a job on a queue."),
    "jobs": ("jobs", "List, show, retry and cancel queued jobs."),
    "queues": ("queues", "Show how deep each queue is, how quick, and what holds it up."),
    "worker": ("worker", "Claim queued jobs and do them here."),
    "serve": ("serving", "Serve the API, the dashboard, the metrics and the run endpoint."),
    "token": ("tokens", "Make, list and revoke tokens that open the service."),
    "alerts": ("alerts", "List, test and deliver alerts."),
    "target": ("targeting", "Show where the target is at home, and claim a copy of it."),
    "migrate": ("applying", "Create or upgrade the schema reconciler on the target."),
    "roles": ("roles", "Make roles that may do one part of the work, and no more."),
    "doctor": ("doctor", "Find the dangers that the target is in, with remedies."),
    "policies": ("policies", "List policies and windows, and judge a saved plan by them."),
    "schema": ("validating", "Print a JSON Schema for editors and other tools."),
    "local": ("local", "Run a private, disposable PostgreSQL with pg_cron."),
}
"""Each command's module and help."""

_ATTRIBUTES = {"import": "import_", "next": "next_"}


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order in which people meet them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"reconciler.cli.{COMMANDS[cmd_name][0]}")
        return cast("click.Command", getattr(module, _ATTRIBUTES.get(cmd_name, cmd_name)))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command when there is none of that name."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in COMMANDS:
            from reconciler.core.names import find_nearest

            nearest = find_nearest(name, COMMANDS)
            ctx.fail(f"No such command {name!r}." + (f" Did you mean {nearest!r}?" if nearest else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """List the commands from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="reconciler")
def cli() -> None:
    """Declare scheduled work in jobs.d/, review the plan, apply it to pg_cron.

    Exit codes: 0 done, 1 error, 2 usage, 3 changes pending, 4 refused, 5 stale plan, 6 locked, 7 drift.
    """


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        args: The arguments; None takes the process's own.

    Raises:
        SystemExit: Always, with the exit code.
    """
    from reconciler.errors import InvalidInputError, ReconcilerError

    try:
        result = cli.main(args=args, prog_name="reconciler", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Aborted: nothing was changed.", err=True)
        sys.exit(1)
    except ReconcilerError as error:
        from reconciler.cli.exits import pick_exit_code

        # Problems begin with their places, which editors and CI jump to.
        label = "" if isinstance(error, InvalidInputError) else click.style("Error: ", fg="red", bold=True)
        click.echo(label + str(error), err=True)
        sys.exit(pick_exit_code(error))
    sys.exit(result if isinstance(result, int) else 0)
