"""The HTTP edge on a real socket: ids, namespaces, bounds of bodies, heads, times and connections."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from rfuav_gateway.app import edge
from rfuav_gateway.serving import metrics, problems
from rfuav_gateway.serving.problems import Refused
from rfuav_gateway.serving.rates import Rates
from rfuav_gateway.serving.server import Server
from rfuav_gateway.settings import Settings


def application() -> FastAPI:
    app = FastAPI()
    problems.install(app)

    @app.api_route("/echo/{rest:path}", methods=["GET", "POST"])
    async def echo(request: Request, rest: str) -> dict[str, Any]:
        body = await request.body()
        return {"rest": rest, "namespace": request.scope["state"].get("namespace"), "bytes": len(body)}

    @app.get("/refused")
    async def refused() -> None:
        raise Refused(409, "it is taken", {"Retry-After": "3"})

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("with a secret")

    @app.get("/endless")
    async def endless(request: Request) -> StreamingResponse:
        async def lines() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 65536
                    await asyncio.sleep(0)
            finally:
                request.app.state.ended.set()

        return StreamingResponse(lines())

    app.state.ended = asyncio.Event()

    @app.get("/number")
    async def number(n: int) -> int:
        return n

    return app


@contextlib.asynccontextmanager
async def served(**limits: Any) -> AsyncIterator[Server]:
    settings = Settings.model_validate(
        {"host": "127.0.0.1", "port": 0, "drainSeconds": 0, "corsOrigins": ["https://ui.example.org"], "limits": limits}
    )
    app = application()
    server = Server(settings, edge(settings, app), stopping=lambda: None)
    server.ended = app.state.ended  # type: ignore[attr-defined]
    running = asyncio.create_task(server._serve())
    while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield server
    finally:
        server.end()
        await running


async def ask(server: Server, text: str, body: bytes = b"") -> tuple[int, dict[str, str], Any]:
    """Send a request head as it is; the answer's status, headers and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(text.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        data = await reader.readexactly(int(headers.get("content-length", "0")))
        is_json = "json" in headers.get("content-type", "")
        return int(head[0].split()[1]), headers, json.loads(data) if is_json else data
    finally:
        writer.close()


async def test_a_namespace_in_the_path_is_taken_off_it() -> None:
    async with served() as server:
        _, _, body = await ask(server, "GET /ns/team-a/echo/x/y HTTP/1.1\nHost: a")
        assert body == {"rest": "x/y", "namespace": "team-a", "bytes": 0}
        status, _, _ = await ask(server, "GET /ns/NOT_ONE/echo/x HTTP/1.1\nHost: a")
        assert status == 404


async def test_every_answer_has_an_id_and_protecting_headers() -> None:
    async with served() as server:
        _, headers, _ = await ask(server, "GET /echo/ HTTP/1.1\nHost: a\nX-Request-ID: mine-1")
        assert headers["x-request-id"] == "mine-1"
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        _, headers, _ = await ask(server, "GET /echo/ HTTP/1.1\nHost: a\nX-Request-ID: no good; one")
        assert len(headers["x-request-id"]) == 16


async def test_errors_have_the_detail_of_the_old_service_and_the_fields_of_problems() -> None:
    async with served() as server:
        status, headers, body = await ask(server, "GET /refused HTTP/1.1\nHost: a")
        assert (status, headers["retry-after"], headers["content-type"]) == (409, "3", "application/json")
        assert body == {"detail": "it is taken", "type": "about:blank", "title": "Conflict", "status": 409}
        _, headers, _ = await ask(server, "GET /refused HTTP/1.1\nHost: a\nAccept: application/problem+json")
        assert headers["content-type"] == "application/problem+json"
        status, _, body = await ask(server, "GET /number?n=x HTTP/1.1\nHost: a")
        assert status == 422
        assert [sorted(entry) for entry in body["detail"]] == [["loc", "msg", "type"]]
        status, _, body = await ask(server, "GET /nowhere HTTP/1.1\nHost: a")
        assert (status, body["detail"]) == (404, "Not Found")


async def test_a_fault_of_the_gateway_is_told_without_its_words() -> None:
    async with served() as server:
        with structlog.testing.capture_logs() as logs:
            status, _, body = await ask(server, "GET /broken HTTP/1.1\nHost: a")
    assert status == 500
    failed = [(one["event"], one.get("path")) for one in logs if one["log_level"] == "error"]
    assert failed == [("request failed", "/broken")]
    assert "secret" not in json.dumps(body)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_beyond_its_bound_is_refused(chunked: bool) -> None:
    async with served(bodyKib=1) as server:
        data = b"x" * 3000
        if chunked:
            head, data = "Transfer-Encoding: chunked", b"bb8\r\n" + data + b"\r\n0\r\n\r\n"
        else:
            head = f"Content-Length: {len(data)}"
        status, _, body = await ask(server, f"POST /echo/ HTTP/1.1\nHost: a\n{head}", data)
        assert (status, body["detail"]) == (413, "write a body of at most 1 KiB")
        _, _, body = await ask(server, "POST /echo/ HTTP/1.1\nHost: a\nContent-Length: 1000", b"x" * 1000)
        assert body["bytes"] == 1000


async def closed(reader: asyncio.StreamReader) -> bool:
    with contextlib.suppress(ConnectionResetError):
        return await asyncio.wait_for(reader.read(), 5) == b""
    return True


async def test_half_a_request_is_not_waited_for() -> None:
    async with served(headerSeconds=0.2, idleSeconds=0.2) as server:
        for sent in (
            b"",
            b"GET / HT",
            b"GET /echo/ HTTP/1.1\r\nHost: a\r\n",
            b"POST /echo/ HTTP/1.1\r\nContent-Length: 9\r\n\r\nab",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(sent)
            assert await closed(reader)
            writer.close()


async def test_a_slow_answer_is_not_cut_by_the_time_for_requests() -> None:
    async with served(headerSeconds=0.2) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for _ in range(3):
            writer.write(b"GET /echo/ HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"200 OK" in await reader.readuntil(b"}")
            await asyncio.sleep(0.3)
        writer.close()


async def test_a_client_that_leaves_unread_what_it_is_sent_is_let_go() -> None:
    """Its stream ends, and with it what the stream keeps; one that reads is not cut."""
    async with served(writeSeconds=1) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        loop = asyncio.get_running_loop()
        until = loop.time() + 2
        while loop.time() < until:
            assert await reader.readexactly(500_000)
        assert not server.ended.is_set()
        await asyncio.wait_for(server.ended.wait(), 10)
        assert server.open_ones.count == 0
        writer.close()


async def test_a_head_beyond_its_bound_closes_the_connection() -> None:
    async with served() as server:
        for end in (b"", b"\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000 + end)
            assert await closed(reader)
            writer.close()


async def test_a_connection_may_send_any_number_of_requests() -> None:
    async with served() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for _ in range(100):
            writer.write(b"GET /echo/ HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 2000 + b"\r\n\r\n")
            assert b"200 OK" in await reader.readuntil(b"}")
        writer.close()


async def test_connections_are_counted_and_let_in_again_when_others_leave() -> None:
    async with served(connectionsPerPeer=2) as server:
        held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        assert await closed(reader)
        writer.close()
        for _, one in held:
            one.close()
            await one.wait_closed()
        await asyncio.sleep(0.1)
        assert (await ask(server, "GET /echo/ HTTP/1.1\nHost: a"))[0] == 200
        assert server.open_ones.refused == 1


async def test_pages_of_other_origins_get_no_permission() -> None:
    async with served() as server:
        asked = "OPTIONS /echo/ HTTP/1.1\nHost: a\nAccess-Control-Request-Method: GET\nOrigin: "
        _, headers, _ = await ask(server, f"{asked}https://ui.example.org")
        assert headers["access-control-allow-origin"] == "https://ui.example.org"
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write((f"{asked}https://evil.example.org".replace("\n", "\r\n") + "\r\n\r\n").encode())
        assert b"access-control-allow-origin" not in await reader.readuntil(b"\r\n\r\n")
        writer.close()


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", "Sec-Fetch-Site: cross-site\nOrigin: https://evil.example.org", 403),
        ("POST", "Sec-Fetch-Site: same-site\nOrigin: https://evil.example.org", 403),
        ("POST", "Sec-Fetch-Site: cross-site", 403),
        ("POST", "Sec-Fetch-Site: cross-site\nOrigin: https://ui.example.org", 200),
        ("POST", "Sec-Fetch-Site: same-origin", 200),
        ("POST", "X-A: b", 200),
        ("POST", "Origin: http://a", 200),
        ("POST", "Origin: https://ui.example.org", 200),
        ("POST", "Origin: http://evil.example.org", 403),
        ("POST", "Origin: null", 403),
        ("GET", "Sec-Fetch-Site: cross-site", 200),
    ],
)
async def test_a_page_of_another_origin_changes_nothing(method: str, headers: str, status: int) -> None:
    async with served() as server:
        assert (await ask(server, f"{method} /echo/ HTTP/1.1\nHost: a\nContent-Length: 0\n{headers}"))[0] == status


async def test_rates_are_counted_for_each_caller_and_say_when_to_come_back() -> None:
    rates = Rates(Settings.model_validate({"limits": {"creates": "2/minute"}}))
    await rates.spend("create", "ann")
    await rates.spend("create", "ann")
    with pytest.raises(Refused) as refused:
        await rates.spend("create", "ann")
    assert refused.value.status == 429
    assert 1 <= int(refused.value.headers["Retry-After"]) <= 60
    assert refused.value.headers["RateLimit"].startswith('"create";r=0;t=')
    assert refused.value.headers["RateLimit-Policy"] == '"create";q=2;w=60'
    await rates.spend("create", "bob")
    await rates.spend("request", "ann")


async def test_compat_has_a_burst_within_its_rate() -> None:
    settings = Settings.model_validate({"compat": {"enabled": True, "namespace": "lab", "burst": 3}})
    rates = Rates(settings)
    for _ in range(3):
        await rates.spend("create", "10.0.0.1")
    with pytest.raises(Refused):
        await rates.spend("create", "10.0.0.1")


async def test_an_error_of_its_own_is_counted_by_its_route():
    def answered(code: str) -> float:
        labels = {"method": "GET", "route": "/broken", "code": code}
        return metrics.registry.get_sample_value("rfuav_gateway_requests_total", labels) or 0

    before = answered("500")
    async with served() as server:
        assert (await ask(server, "GET /broken HTTP/1.1\nHost: x"))[0] == 500
    assert answered("500") == before + 1


async def test_a_caller_reads_so_many_streams_at_a_time() -> None:
    rates = Rates(Settings.model_validate({"limits": {"streams": 2}}))
    with rates.stream("ann"), rates.stream("bob"):
        with rates.stream("ann"), pytest.raises(Refused) as refused, rates.stream("ann"):
            pass
        assert refused.value.status == 429
        with rates.stream("ann"):
            pass
    assert not rates._streams


async def test_each_task_of_a_batch_counts() -> None:
    rates = Rates(Settings.model_validate({"limits": {"batched": "10/minute"}}))
    await rates.spend("batched", "ann", cost=7)
    with pytest.raises(Refused, match="try again in"):
        await rates.spend("batched", "ann", cost=7)
    await rates.spend("batched", "ann", cost=3)
    with pytest.raises(Refused, match="in parts"):
        await rates.spend("batched", "bob", cost=11)


async def test_what_is_logged_for_a_request_has_its_id():
    def keep(_logger: Any, _name: str, event: Any) -> Any:
        lines.append(dict(event))
        raise structlog.DropEvent

    lines: list[dict[str, Any]] = []
    configured = structlog.get_config()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, keep], cache_logger_on_first_use=False)
    try:
        async with served() as server:
            await ask(server, "GET /broken HTTP/1.1\nHost: x\nX-Request-Id: mine-7")
    finally:
        structlog.configure(**configured)
    (failed,) = (line for line in lines if line["event"] == "request failed")
    assert failed["id"] == "mine-7"
