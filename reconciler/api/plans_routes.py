"""Plan and drift: what an apply would change, and what was changed behind the files' back."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query
from pydantic import ConfigDict, RootModel
from starlette.responses import Response

from reconciler.core.pull_comment import Subject, render_comment
from reconciler.runtime.plan_schema import load_plan_schema

from .context import ServiceDep
from .plan_reading import PlanReading, read_plan
from .problems import PROBLEMS, ProblemError
from .security import Reader

router: Final = APIRouter(prefix="/api/v1", tags=["plans"])


class PlanDocument(RootModel[dict[str, Any]]):
    """A plan, as `reconciler plan --format json` prints it."""

    model_config = ConfigDict(json_schema_extra=load_plan_schema())


Form = Annotated[
    Literal["json", "markdown"], Query(alias="format", description="markdown: as a comment on a pull request")
]

_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "model": PlanDocument,
        "content": {"text/markdown": {"schema": {"type": "string"}}},
        "headers": {"Age": {"description": "Seconds since it was found", "schema": {"type": "integer"}}},
    },
    404: PROBLEMS[404],
    409: PROBLEMS[409],
}


@router.get(
    "/plan",
    responses=_RESPONSES,
    response_class=Response,
    summary="Show what an apply of the files would change",
)
def show_plan(_: Reader, service: ServiceDep, form: Form = "json") -> Response:
    """Show what an apply of the files would change now.

    It is made at most every five seconds, however many ask. SQL is not checked: it is as `reconciler plan
    --no-check` has it. 409 where the files hold problems.
    """
    return _answer(read_plan(service), form, is_drift=False)


@router.get(
    "/drift",
    responses=_RESPONSES,
    response_class=Response,
    summary="Show what was changed behind the files' back",
)
def show_drift(_: Reader, service: ServiceDep, form: Form = "json") -> Response:
    """Show what was changed on the target behind the files' back.

    It is looked for at most every five seconds, however many ask. 409 where the files hold problems.
    """
    return _answer(read_plan(service), form, is_drift=True)


def _answer(reading: PlanReading, form: str, *, is_drift: bool) -> Response:
    value = reading.drift if is_drift else reading.value
    if value is None:
        raise ProblemError(
            409,
            "the spec files hold problems: " + "; ".join(" ".join(one.split()) for one in reading.problems),
            "mend the files; reconciler validate shows the same",
        )
    headers = {"Age": str(int(reading.age))}
    if form == "markdown":
        text = render_comment(value, Subject(target=value["target"], is_drift=is_drift))
        return Response(text, media_type="text/markdown", headers=headers)
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Response(body.encode("utf-8", "replace"), media_type="application/json", headers=headers)
