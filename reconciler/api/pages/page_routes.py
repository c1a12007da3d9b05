"""The dashboard's routes, page by page."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.convertors import StringConvertor, register_url_convertor

from . import (
    alert_pages,
    calendar_pages,
    control_forms,
    drift_pages,
    job_pages,
    login_pages,
    overview_pages,
    queue_pages,
    revision_pages,
    run_pages,
)
from .page_answers import PageRouter, raise_unknown
from .static_files import NAMES, read_static

_ROUTERS: Final = (
    login_pages.router,
    overview_pages.router,
    job_pages.router,
    run_pages.router,
    calendar_pages.router,
    queue_pages.router,
    drift_pages.router,
    revision_pages.router,
    alert_pages.router,
    control_forms.router,
)
_FOREVER: Final = "public, max-age=31536000, immutable"


class _PageConvertor(StringConvertor):
    """Any path but those of the API: what is wrong there is told to programs."""

    regex = r"(?!api(?:/|$)|metrics$).*"


register_url_convertor("page", _PageConvertor())

router: Final = APIRouter(include_in_schema=False)
_others: Final = PageRouter()


@_others.get("/static/{name:path}")
def send_static(request: Request, name: str, v: str = "") -> Response:
    """Send a script, a style or a picture; who asks for this very version may keep it for ever."""
    if name not in NAMES:
        raise_unknown(request)
    file = read_static(name)
    headers = {
        "Cache-Control": _FOREVER if v == file.digest else "no-cache",
        "ETag": f'"{file.digest}"',
        "Vary": "Accept-Encoding",
    }
    if f'"{file.digest}"' in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    is_packed = "gzip" in request.headers.get("accept-encoding", "")
    if is_packed:
        headers["Content-Encoding"] = "gzip"
    return Response(file.packed if is_packed else file.body, media_type=file.type, headers=headers)


@_others.get("/{path:page}")
def show_unknown(request: Request, path: str) -> Response:  # noqa: ARG001 - the framework fills it in
    """Say in a page that there is none."""
    raise_unknown(request)


for each in (*_ROUTERS, _others):
    router.include_router(each)
