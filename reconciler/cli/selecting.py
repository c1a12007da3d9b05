"""The options `--only`, `--label` and `--path`, by which some of the declared resources are planned."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from reconciler.core.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Callable

    from reconciler.core.config import Config

_Function = TypeVar("_Function", bound="Callable[..., object]")


def _read_labels(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    labels = []
    for value in values:
        key, sign, pattern = value.partition("=")
        if not (key and sign):
            raise click.BadParameter(f"{value!r} is not KEY=VALUE, such as team=data", ctx=ctx, param=param)
        labels.append((key, pattern))
    return tuple(labels)


def selection_options(function: _Function) -> _Function:
    """Add the options that select.

    Args:
        function: The command; it gets `only`, `labels` and `paths`.

    Returns:
        The same command.
    """
    options = (
        click.option(
            "--only", multiple=True, metavar="NAME", help="Plan these alone; * stands for any characters."
        ),
        click.option(
            "--label",
            "labels",
            multiple=True,
            metavar="KEY=VALUE",
            callback=_read_labels,
            help="Plan those with this label alone; * stands for any characters.",
        ),
        click.option(
            "--path",
            "paths",
            multiple=True,
            metavar="PATH",
            help="Plan what this file or folder declares alone.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def make_selection(
    only: tuple[str, ...], labels: tuple[tuple[str, str], ...], paths: tuple[str, ...]
) -> Selection:
    """Make a selection of what was given on the command line.

    Args:
        only: Patterns of names.
        labels: Names of labels with patterns.
        paths: Files and folders, seen from the working directory.

    Returns:
        The selection, with paths as places spell them.
    """
    return Selection(names=only, labels=labels, paths=tuple(_spell(Path(path)) for path in paths))


def store_paths(selection: Selection, config: Config) -> Selection:
    """Make the paths of a selection hold wherever the checkout lies.

    Args:
        selection: With paths as places spell them.
        config: Whose folder they are to be seen from.

    Returns:
        The selection for a saved plan.
    """
    folder = Path(config.path).parent
    return Selection(
        names=selection.names,
        labels=selection.labels,
        paths=tuple(Path(os.path.relpath(path, folder)).as_posix() for path in selection.paths),
    )


def load_paths(selection: Selection, config: Config) -> Selection:
    """Undo `store_paths`, perhaps in another working directory.

    Args:
        selection: Of a saved plan.
        config: Whose folder its paths are seen from.

    Returns:
        The selection, with paths as places spell them.
    """
    folder = Path(config.path).parent
    return make_selection(
        selection.names, selection.labels, tuple(str(folder / path) for path in selection.paths)
    )


def _spell(path: Path) -> str:
    from reconciler.loader.sources import name_path

    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute() keeps the dots
    return "." if absolute == Path.cwd() else name_path(absolute)
