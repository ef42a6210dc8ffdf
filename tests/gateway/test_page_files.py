"""The page's files: read once, with tags, compression and a policy; nothing else can be reached."""

import asyncio
import base64
import contextlib
import gzip
import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rfuav_gateway.app import edge, routes
from rfuav_gateway.routes.page import FILES
from rfuav_gateway.serving import files
from rfuav_gateway.serving.server import Server
from rfuav_gateway.settings import Settings


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[Server]:
    settings = Settings.model_validate({"host": "127.0.0.1", "port": 0, "drainSeconds": 0})
    server = Server(settings, edge(settings, routes()), stopping=lambda: None)
    running = asyncio.create_task(server._serve())
    while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield server
    finally:
        server.end()
        await running


async def ask(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    sent = {"Host": "a", "Connection": "close", **{name.replace("_", "-"): text for name, text in headers.items()}}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {text}" for name, text in sent.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    return int(first.split()[1]), {k.lower(): v for k, v in (line.split(": ", 1) for line in rest)}, body


async def test_browsers_get_the_page_and_others_the_list_of_calls() -> None:
    async with served() as server:
        for path in ("/", "/ns/team-a/"):
            status, headers, body = await ask(server, path, Accept="text/html,application/xhtml+xml")
            assert (status, headers["content-type"], body) == (
                200,
                "text/html; charset=utf-8",
                FILES["index.html"].content,
            )
        _, _, body = await ask(server, "/", Accept="*/*")
        assert b"/api/v2/tasks" in body
        status, headers, body = await ask(server, "/", "HEAD", Accept="text/html")
        assert (status, headers["content-length"], body) == (200, str(len(FILES["index.html"].content)), b"")


async def test_each_file_has_a_tag_and_a_compressed_form() -> None:
    name = max(FILES, key=lambda one: len(FILES[one].content))
    async with served() as server:
        _, plain, whole = await ask(server, f"/page/{name}")
        assert whole == FILES[name].content
        _, packed, small = await ask(server, f"/page/{name}", Accept_Encoding="gzip, br")
        assert (packed["content-encoding"], gzip.decompress(small)) == ("gzip", whole)
        assert packed["etag"] != plain["etag"]
        for tag, accepted in ((plain["etag"], "identity"), (f'"x", W/{packed["etag"]}', "gzip")):
            status, headers, body = await ask(server, f"/page/{name}", If_None_Match=tag, Accept_Encoding=accepted)
            assert (status, body, headers["etag"] in tag) == (304, b"", True)
        assert (await ask(server, f"/page/{name}", If_None_Match='"old"'))[0] == 200
        assert plain["vary"] == "Accept, Accept-Encoding"


async def test_the_policy_of_the_page_allows_its_own_scripts_and_its_import_map_alone() -> None:
    async with served() as server:
        _, headers, body = await ask(server, "/", Accept="text/html")
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    (text,) = re.findall(rb'<script type="importmap">(.*?)</script>', body, re.DOTALL)
    own = base64.b64encode(hashlib.sha256(text).digest()).decode()
    assert policy == {
        "default-src": "'none'",
        "script-src": f"'self' 'sha256-{own}'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "font-src": "'self'",
        "connect-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-cache")


@pytest.mark.parametrize(
    "path",
    [
        "../app.py",
        "..%2fapp.py",
        "%2e%2e/app.py",
        "/etc/passwd",
        "js/../../app.py",
        "",
        "js",
        ".hidden",
        "index.html%00",
        "..\\app.py",
    ],
)
async def test_nothing_else_can_be_reached(path: str) -> None:
    async with served() as server:
        assert (await ask(server, f"/page/{path}"))[0] == 404


def test_hidden_files_are_left_out_and_vendored_ones_never_change(tmp_path: Path) -> None:
    for name in ("index.html", ".secret", "vendor/one-1.0/one.js", "__pycache__/x.js"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    found = files.files(tmp_path)
    assert {name: "immutable" in one.cache_control for name, one in found.items()} == {
        "index.html": False,
        "vendor/one-1.0/one.js": True,
    }
