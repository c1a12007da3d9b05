"""Ask before something is done; and the options that say not to ask, or not to do it."""

from __future__ import annotations

import sys

import click

yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Only show the plan.")


def ask(question: str, *, otherwise: str) -> None:
    """Ask a person for a yes.

    Args:
        question: What is asked.
        otherwise: What --yes would do, for who has no terminal.

    Raises:
        click.UsageError: There is no terminal to ask on.
        click.Abort: The answer was no.
    """
    if not sys.stdin.isatty():
        raise click.UsageError(f"there is no terminal to ask on; give --yes to {otherwise}")
    click.confirm(question, abort=True)
