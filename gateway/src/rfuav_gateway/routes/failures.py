"""What the parts below the routes raise, as answers: the same for every route."""

from http import HTTPStatus

from fastapi import FastAPI, Request, Response

from rfuav_gateway.access.callers import Unavailable
from rfuav_gateway.cluster.writes import NotDone
from rfuav_gateway.serving import problems
from rfuav_gateway.serving.problems import Refused
from rfuav_gateway.tasks.words import ENGLISH, RefusedError


def install(app: FastAPI) -> None:
    """Answer for the cluster and for bodies that cannot become a job."""

    @app.exception_handler(NotDone)
    async def not_done(request: Request, error: NotDone) -> Response:
        return problems.of(request, refused(error))

    @app.exception_handler(Unavailable)
    async def unavailable(request: Request, error: Unavailable) -> Response:
        words = f"the API server does not answer: {error}"
        return problems.of(request, Refused(HTTPStatus.SERVICE_UNAVAILABLE, words, {"Retry-After": "2"}))

    @app.exception_handler(RefusedError)
    async def invalid(request: Request, error: RefusedError) -> Response:
        phrases = request.scope["state"].get("phrases", ENGLISH)
        detail = [problem.detail(phrases) for problem in error.problems]
        return problems.of(request, Refused(HTTPStatus.UNPROCESSABLE_ENTITY, detail))


def refused(error: NotDone) -> Refused:
    """The API server's refusal as that of the gateway."""
    headers = {} if error.retry_after is None else {"Retry-After": str(max(1, round(error.retry_after)))}
    return Refused(error.status, error.message, headers)
