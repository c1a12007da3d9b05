"""Bodies of requests: read when it is known who sends them, and by one reader of JSON for all.

The framework would read and parse a body before anything else, whoever sent it. So routes take `RawBody`,
after the caller, and give it to one of these functions.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeVar

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from reconciler.core.endpoint_requests import parse_json

from .problems import ProblemError

_Model = TypeVar("_Model", bound=BaseModel)
_REMEDY: Final = "send one JSON object in UTF-8"


async def _read_body(request: Request) -> bytes:
    try:
        return await request.body()
    except ClientDisconnect:
        raise ProblemError(400, "the body ended before its end", "send it again") from None


RawBody = Annotated[bytes, Depends(_read_body)]
"""The body as it came; it stands after the caller in a route's signature: it is read for callers alone."""


def describe_body(*schemas: dict[str, Any], required: bool = True) -> dict[str, Any]:
    """Describe a body for the OpenAPI document.

    Args:
        *schemas: JSON Schemas without references; it is as one of them says.
        required: Whether there has to be one; else it may be null, too.

    Returns:
        What a route's `openapi_extra` takes.
    """
    alternatives = [*schemas, *([] if required else [{"type": "null"}])]
    schema = alternatives[0] if len(alternatives) == 1 else {"oneOf": alternatives}
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a body that is a JSON object.

    Args:
        body: As it came.

    Raises:
        ProblemError: 400; it is none.
    """
    try:
        values = parse_json(body)
    except ValueError as error:
        raise ProblemError(400, f"the body is no JSON: {error}", _REMEDY) from None
    if not isinstance(values, dict):
        raise ProblemError(400, "the body is no JSON object", _REMEDY)
    return values


def parse_optional(body: bytes, model: type[_Model]) -> _Model:
    """Parse a body that may be left out, or be null: then it has no keys.

    Args:
        body: As it came.
        model: What it has to be.

    Raises:
        ProblemError: 400; it is no JSON object.
        RequestValidationError: It is one, and not such a model.
    """
    values = {} if body in {b"", b"null"} else parse_object(body)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        found = [{**one, "loc": ("body", *one["loc"])} for one in error.errors(include_url=False)]
        raise RequestValidationError(found) from None
