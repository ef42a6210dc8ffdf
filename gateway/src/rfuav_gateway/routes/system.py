"""What the service is and whether it is well, for anybody."""

from datetime import UTC
from importlib.metadata import version

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute

from rfuav_kube import clock

router = APIRouter()


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
async def index(request: Request) -> str:
    """A page of the routes."""
    routes = [route for route in request.app.routes if isinstance(route, APIRoute) and route.include_in_schema]
    rows = [
        f"<tr><td>{method}</td><td><code>{route.path}</code></td><td>{route.description.partition(chr(10))[0]}</td></tr>"
        for route in routes
        for method in sorted(route.methods or ())
    ]
    title = f"RFUAV gateway {version('rfuav-gateway')}"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><h1>{title}</h1>"
        f"<p><a href=docs>/docs</a> describes every field.</p><table>{''.join(rows)}</table></html>"
    )


def now() -> str:
    """The time as the old service writes it: UTC without a zone."""
    return clock.now().astimezone(UTC).replace(tzinfo=None).isoformat()
