"""The list of calls at /, for clients that are no browsers."""

from starlette.requests import Request

from rfuav_gateway.app import routes
from rfuav_gateway.routes.system import index


def test_the_page_lists_every_call():
    app = routes()
    page = index(Request({"type": "http", "app": app})).body.decode()
    paths = app.openapi()["paths"]
    assert len(paths) > 10
    for path, operations in paths.items():
        for method in operations:
            assert f"<td>{method.upper()}<td><code>{path}</code>" in page
