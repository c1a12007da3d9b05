"""Templates to HTML: everything is escaped, and a name that a template misspells is an error."""

from __future__ import annotations

import json
import re
from datetime import UTC, timedelta
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reconciler.core.change_lines import list_parts
from reconciler.core.markdown import reveal
from reconciler.core.names import list_some
from reconciler.core.times.spelling import render_distance, render_instant, render_length, render_local

from .charts import draw_durations
from .drawings import draw_sparkline
from .flow_charts import draw_flow
from .marks import draw_mark
from .static_files import read_static

if TYPE_CHECKING:
    from collections.abc import Sized
    from datetime import datetime

_NOTHING_MORE: Final = re.compile(r" 00[hms]$|\.0(?= s$)")
_FOLDER: Final = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> str:
    """Render a template.

    Args:
        template: Its name.
        **values: What it shows.

    Returns:
        HTML.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        finalize=_reveal,
    )
    environment.filters.update(
        clock=render_local,
        count=_render_count,
        distance=render_distance,
        duration=_render_duration,
        instant=render_instant,
        iso=_render_iso,
        took=_render_length,
        wall=_render_wall,
        part=_quote_part,
        pretty=_render_json,
        some=list_some,
        word=_render_word,
    )
    environment.globals.update(
        mark=draw_mark,
        parts=lambda change: list(list_parts(change)),
        sparkline=draw_sparkline,
        chart=draw_durations,
        flow=draw_flow,
        phrase=lambda status: HTTPStatus(status).phrase,
        static=_find_static,
    )
    return environment


def _reveal(value: Any) -> Any:
    """Write out what nobody could see of a text, such as characters that turn the direction round."""
    return reveal(value) if type(value) is str else value


def _find_static(name: str) -> str:
    """Name a file with its version, so that a browser may keep it for ever."""
    return f"/static/{name}?v={read_static(name).digest}"


def _render_count(number: int | Sized, one: str, many: str = "") -> str:
    found = number if isinstance(number, int) else len(number)
    return f"{found:,} {one if found == 1 else many or one + 's'}"


def _render_iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _render_length(length: timedelta | float) -> str:
    return render_length(length if isinstance(length, timedelta) else timedelta(seconds=length))


def _render_duration(length: timedelta) -> str:
    """Render a length that somebody chose, which is mostly a round one."""
    return _NOTHING_MORE.sub("", render_length(length))


def _render_wall(at: datetime, zone: str) -> str:
    """Render what the clocks of a zone show, where it is said elsewhere which zone that is."""
    local = render_local(at.replace(microsecond=0), zone)
    return local.removesuffix("Z") if local.endswith("Z") else local.rpartition(" ")[0]


def _quote_part(text: object) -> str:
    """Quote one part of a path, so that a name with a slash stays one."""
    return quote(str(text), safe="")


def _render_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)


def _render_word(name: str) -> str:
    """Spell a name of ours as people read it: `timed out`."""
    return name.replace("_", " ")
