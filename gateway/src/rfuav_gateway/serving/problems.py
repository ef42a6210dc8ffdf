"""Errors as answers: `detail` as the old service has it, with the fields of RFC 9457 (Problem Details) beside it."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Literal

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

PROBLEM = "application/problem+json"
_TITLES = {status.value: status.phrase for status in HTTPStatus}


class ErrorEntry(BaseModel):
    """One problem of a request."""

    loc: list[str | int] = Field(description="Where: body, query, path or header, then the field.")
    msg: str = Field(description="What is wrong, and what to write instead.")
    type: str = Field(description="Kind of the problem.")


class Error(BaseModel):
    """Any answer from 400 on, after RFC 9457."""

    detail: str | list[ErrorEntry] = Field(description="What is wrong; for 422 a list of problems.")
    type: Literal["about:blank"] = Field(description="Always about:blank.")
    title: str = Field(description="Name of the status.")
    status: int = Field(description="Status of HTTP.")


def declared(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """These errors, for the OpenAPI document."""
    reference = {"schema": {"$ref": "#/components/schemas/Error"}}
    return {
        status.value: {"model": Error, "description": status.phrase, "content": {PROBLEM: reference}}
        for status in statuses
    }


ANYWHERE = declared(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.CONFLICT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
"""The errors that any call may answer with."""


class Refused(Exception):  # noqa: N818  an answer, not a fault
    """A request that is not carried out.

    Args:
        status: of HTTP.
        detail: what is wrong, and what to write instead; for 422 a list of entries with loc, msg and type.
        headers: of the answer.
    """

    def __init__(
        self, status: int, detail: str | list[dict[str, Any]], headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(str(detail))
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})


def answer(
    status: int, detail: str | list[dict[str, Any]], *, accept: str = "", headers: Mapping[str, str] | None = None
) -> Response:
    """The answer of an error."""
    title = _TITLES.get(status, "Error")
    body = {"detail": detail, "type": "about:blank", "title": title, "status": status}
    return Response(
        orjson.dumps(body, default=str),
        status,
        headers=dict(headers or {}),
        media_type=PROBLEM if PROBLEM in accept else "application/json",
    )


def of(request: Request, error: Refused) -> Response:
    """The answer of a refusal."""
    return answer(error.status, error.detail, accept=_accept(request), headers=error.headers)


def install(app: FastAPI) -> None:
    """Answer every error of a route in this form."""

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return of(request, error)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        return answer(error.status_code, error.detail, accept=_accept(request), headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        entries = [
            {"loc": entry["loc"], "msg": entry["msg"], "type": entry["type"]}
            for entry in jsonable_encoder(error.errors())
        ]
        return answer(HTTPStatus.UNPROCESSABLE_ENTITY, entries, accept=_accept(request))

    @app.exception_handler(Exception)
    async def failed(request: Request, _error: Exception) -> Response:  # the edge logs it
        return answer(HTTPStatus.INTERNAL_SERVER_ERROR, "the gateway failed; its log says why", accept=_accept(request))


def _accept(request: Request) -> str:
    return request.headers.get("accept", "")
