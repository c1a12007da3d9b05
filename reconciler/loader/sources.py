"""Find spec files and read them into text and values; knows nothing of what they declare."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler.core.specs import Place
from reconciler.loader.problems import Problem, pick_line
from reconciler.loader.yaml_places import Places
from reconciler.loader.yaml_reader import YamlFault, read_yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.loader.yaml_reader import Names

_ENDINGS = (".yaml", ".yml")
_BYTE_LIMIT = 32 * 1024 * 1024


@dataclass(slots=True, kw_only=True)
class Source:
    """One file that was read.

    Attributes:
        path: The file as the person names it.
        text: Its text, without a byte order mark.
        value: What it holds; None when it is empty or has faults.
        names: Places of the keys of the second level.
        problems: Why it could not be read.
        faulty: Section and name of what does not fit the schema; a section alone stands for all of it.
    """

    path: str
    text: str = ""
    value: Any = None
    names: Names = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    faulty: set[tuple[str | int, ...]] = field(default_factory=set)
    _places: Places | None = None

    def places(self) -> Places:
        """Walk the text for all of its places, once."""
        if self._places is None:
            self._places = Places(self.text)
        return self._places

    def place_of(self, path: Sequence[str | int], *, at_key: bool = False) -> Place:
        """Give the place of a value, or of its key.

        Args:
            path: Keys and numbers from 0, from the top.
            at_key: Point at the key instead of the value.

        Returns:
            The place; of the nearest value around it when there is no such value.
        """
        places = self.places()
        line, column = places.find_key(path) if at_key else places.find(path)
        return Place(path=self.path, line=line, column=column)

    def make_problem(self, place: Place, message: str) -> Problem:
        """Make a problem of this file, with its line."""
        return Problem(place=place, message=message, line_text=pick_line(self.text, place.line))


def name_path(path: Path) -> str:
    """Name a file as a person would.

    Args:
        path: The file.

    Returns:
        Seen from the working directory where the file is below it, else absolute.
    """
    absolute = os.path.abspath(path)  # noqa: PTH100 - Path.absolute() keeps the dots
    folder = os.path.join(os.getcwd(), "")  # noqa: PTH109, PTH118 - strings, as below
    return absolute.removeprefix(folder)


def find_files(folder: Path, pattern: str) -> tuple[list[Path], str]:
    """Find the spec files that one entry of `jobs` names.

    Args:
        folder: What a relative pattern starts from.
        pattern: A file, a folder (read with everything below it) or a pattern with `*`.

    Returns:
        The files, and why there are none ("" when there are). Hidden files and folders are left out.
    """
    whole = folder / pattern
    if whole.exists():
        found = [whole]
    else:
        found = [Path(name) for name in glob.glob(str(whole), recursive=True)]  # noqa: PTH207 - patterns may be absolute
        if not found:
            return [], f"there is no {pattern!r}: make the folder, or mend jobs"
    files: list[Path] = []
    for path in found:
        if path.is_dir():
            files.extend(_walk(path))
        elif path == whole or path.suffix in _ENDINGS:
            files.append(path)
    return files, "" if files else f"{pattern!r} holds no *.yaml or *.yml file, so nothing is declared"


def _walk(folder: Path) -> list[Path]:
    files: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files.extend(
            Path(parent, name)
            for name in names
            if name.endswith(_ENDINGS) and not name.startswith(".") and Path(parent, name).suffix in _ENDINGS
        )
    return files


def read_source(path: Path) -> Source:
    """Read one file.

    Args:
        path: The file.

    Returns:
        Its value, or its problems; nothing is raised for what a file holds.
    """
    source = Source(path=name_path(path))
    start = Place(path=source.path, line=1, column=1)
    try:
        source.text = _read_text(path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        source.problems.append(Problem(place=start, message=f"the file cannot be read: {reason}"))
        return source
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8-sig", "replace")) + 1
        place = Place(path=source.path, line=line, column=column)
        message = f"the byte 0x{error.object[error.start]:02x} is not UTF-8: save the file as UTF-8"
        source.problems.append(Problem(place=place, message=message))
        return source
    except ValueError as error:
        source.problems.append(Problem(place=start, message=str(error)))
        return source
    reading = read_yaml(source.text)
    faults = list(reading.faults)
    if reading.has_duplicates:
        faults += [
            YamlFault(
                line=second.line,
                column=second.column,
                message=f"the key {second.key!r} comes twice, first on line {second.first_line}: keep one",
            )
            for second in source.places().duplicates
        ]
    for fault in faults:
        place = Place(path=source.path, line=fault.line, column=fault.column)
        source.problems.append(source.make_problem(place, fault.message))
    if not faults:
        source.value, source.names = reading.value, reading.names
    return source


def _read_text(path: Path) -> str:
    if path.is_dir():
        raise ValueError("this is a folder, not a file")
    if path.exists() and not path.is_file():
        raise ValueError("this is no ordinary file")
    with path.open("rb") as stream:
        data = stream.read(_BYTE_LIMIT + 1)
    if len(data) > _BYTE_LIMIT:
        raise ValueError(f"the file is larger than {_BYTE_LIMIT // 1024 // 1024} MiB: split it")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("the file is UTF-16: save it as UTF-8")
    return data.decode("utf-8-sig")
