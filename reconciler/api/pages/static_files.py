"""The dashboard's scripts, styles and pictures: a fixed list of files, so that no path leads elsewhere."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Final

_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
NAMES: Final = (
    "dashboard.css",
    "dashboard.js",
    "icon.svg",
    "theme.js",
    "vendor/htmx.min.js",
    "vendor/idiomorph-ext.min.js",
)
"""Every file that is served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticFile:
    """One file.

    Attributes:
        body: Its bytes.
        packed: The same, compressed by gzip.
        digest: Of the bytes: another one for another release.
        type: For the header Content-Type.
    """

    body: bytes
    packed: bytes
    digest: str
    type: str


@cache
def read_static(name: str) -> StaticFile:
    """Read a file, once in the life of a process.

    Args:
        name: One of `NAMES`.
    """
    body = files(__package__).joinpath("static", *name.split("/")).read_bytes()
    return StaticFile(
        body=body,
        packed=gzip.compress(body, mtime=0),
        digest=sha256(body).hexdigest()[:12],
        type=_TYPES[name.rpartition(".")[2]],
    )
