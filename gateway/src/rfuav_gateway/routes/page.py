"""The page for browsers, and its files. There are no data in them: anybody may read them."""

from http import HTTPStatus

from fastapi import APIRouter, Request, Response

from rfuav_gateway.routes import system
from rfuav_gateway.serving import files
from rfuav_gateway.serving.problems import Refused

router = APIRouter()

FILES = files.files()
POLICY = files.policy(FILES[files.INDEX].content)
_READS = ["GET", "HEAD"]


@router.api_route("/", methods=_READS, include_in_schema=False)
async def index(request: Request) -> Response:
    """The page for a browser; a list of the routes for others."""
    if "text/html" in request.headers.get("accept", ""):
        return files.answer(FILES[files.INDEX], request.headers, POLICY)
    return system.index(request)


@router.api_route("/page/{path:path}", methods=_READS, include_in_schema=False)
async def file(path: str, request: Request) -> Response:
    """One of its files."""
    found = FILES.get(path)
    if found is None:
        raise Refused(HTTPStatus.NOT_FOUND, "the page has no such file")
    return files.answer(found, request.headers, POLICY)
