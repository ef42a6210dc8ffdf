"""Callbacks: what may be called, how messages are signed, and receivers that are down, slow, moved or inside."""

import asyncio
import base64
import hmac
import ipaddress
import json
import logging
from collections.abc import AsyncIterator
from hashlib import sha256

import pytest
from aiohttp import web
from gateway.test_manifests import TRAINING
from gateway.test_views import job

from rfuav_gateway.callbacks import post as posting
from rfuav_gateway.callbacks.deliveries import Callbacks as Deliveries
from rfuav_gateway.callbacks.post import Post
from rfuav_gateway.cluster.tasks import Tasks
from rfuav_gateway.settings import Callbacks, signing_key
from rfuav_gateway.tasks import callbacks, manifests
from rfuav_gateway.tasks.bodies import InferenceBatch, TrainingStart
from rfuav_gateway.tasks.callbacks import Target
from rfuav_gateway.tasks.manifests import Terms
from rfuav_gateway.tasks.roots import Places
from rfuav_gateway.tasks.words import ENGLISH, RefusedError

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]
TERMS = Terms(places=Places({"/data": "pvc://captures"}, "/data"), weights_cache="pvc://captures/w", calls_back=())


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1",  # noqa: S104
        "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::", "2001:0:1::", "nonsense", "",
    ],
)  # fmt: skip
def test_addresses_inside_are_not_called_in_whatever_form(address):
    assert not callbacks.permitted(address, [])


def test_the_public_internet_and_networks_that_are_allowed_are_called():
    assert callbacks.permitted("93.184.216.34", [])
    assert callbacks.permitted("2606:2800:220:1::1", [])
    assert callbacks.permitted("10.1.2.3", [ipaddress.ip_network("10.0.0.0/8")])
    assert callbacks.permitted("::ffff:10.1.2.3", [ipaddress.ip_network("10.0.0.0/8")])
    assert not callbacks.permitted("10.1.2.3", [ipaddress.ip_network("fd00::/8")])


@pytest.mark.parametrize(
    "url",
    [
        "", "x", "ftp://example.org", "file:///etc/passwd", "http://", "http://user@example.org", "http://u:p@example.org",
        "http://example.org:0/", "http://example.org:99999/", "http://[::1", "http://example.org/#part", "http://exa mple.org",
        "http://example.org\\@127.0.0.1/", "http://example.org/\r\nX: y", "http://例子.org", "http://127.0.0.1/", "https://[::1]/",
        "http://169.254.169.254/latest", "http://example.org/" + "x" * 2048,
    ],
)  # fmt: skip
def test_what_is_no_url_of_a_receiver_is_refused(url):
    assert not isinstance(callbacks.target(url, []), Target)


def test_a_url_is_taken_as_it_is():
    url = "https://receiver.example.org/hook?token=1"
    assert callbacks.target(url, []) == Target(url, "receiver.example.org:https")


def test_messages_are_signed_as_the_specification_of_standard_webhooks_has_it():
    """Its own example, and a whole message."""
    key = signing_key(SECRET)
    example = b'msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{"test": 2432232314}'
    assert base64.b64encode(hmac.new(key, example, sha256).digest()) == b"g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    one = job(status={"phase": "Succeeded", "finishedAt": "2026-01-31T13:00:00Z"})
    body = callbacks.message(one, ENGLISH)
    found = callbacks.headers(one, body, key, 1614265330)
    assert (found["webhook-id"], found["webhook-timestamp"]) == ("u-1", "1614265330")
    signed = base64.b64encode(hmac.new(key, b"u-1.1614265330." + body, sha256).digest()).decode()
    assert found["webhook-signature"] == f"v1,{signed}"
    told = json.loads(body)
    assert (told["type"], told["timestamp"]) == ("task.completed", "2026-01-31T13:00:00Z")
    assert (told["data"]["task_id"], told["data"]["status"], told["data"]["progress"]) == ("my task", "completed", 100)


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_c2hvcnQ=", "whsec_%%%", "plain words", "whsec_" + "QUFB" * 30])
def test_a_secret_that_is_none_is_refused_and_not_shown(text, tmp_path):
    file = tmp_path / "secret"
    file.write_text(text)
    with pytest.raises(ValueError, match="24 to 64 random bytes") as refused:
        Callbacks(secret_file=file)
    assert "%%%" not in str(refused.value)
    assert "plain words" not in str(refused.value)


def test_the_url_of_a_body_is_an_annotation_of_each_job():
    url = "https://receiver.example.org/hook"
    body = TrainingStart.model_validate(TRAINING | {"callback_url": url})
    built = manifests.training(body, namespace="a", task_id="x", terms=TERMS)
    assert built.annotations["rfuav.io/callback-url"] == url
    many = InferenceBatch(
        cfg_path="/data/c", weight_path="/data/w", source_paths=["/data/1", "/data/2"], callback_url=url
    )
    for one in manifests.batch(many, namespace="a", task_ids=["x", "y"], terms=TERMS):
        assert one.annotations["rfuav.io/callback-url"] == url
    for terms, said in ((Terms(places=TERMS.places, weights_cache="pvc://w"), "not configured"), (TERMS, "no address")):
        body = TrainingStart.model_validate(TRAINING | {"callback_url": "http://10.0.0.1/"})
        with pytest.raises(RefusedError, match=said):
            manifests.training(body, namespace="a", task_id="x", terms=terms)


class Receiver:
    """A server on the loopback that notes what comes."""

    def __init__(self) -> None:
        self.came: list[tuple[str, bytes]] = []

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.came.append((request.path, await request.read()))
        match request.path:
            case "/moved":
                raise web.HTTPTemporaryRedirect("/taken")
            case "/broken":
                return web.Response(status=500)
            case "/slow":
                await asyncio.sleep(30)
            case "/endless":
                answer = web.StreamResponse()
                await answer.prepare(request)
                try:
                    while True:
                        await answer.write(b"x" * 65536)
                except OSError:
                    return answer
        return web.Response()


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[Receiver, int]]:
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    made, app = Receiver(), web.Application()
    app.router.add_route("*", "/{path:.*}", made.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield made, site._server.sockets[0].getsockname()[1]
    await runner.cleanup()


async def test_an_answer_of_200_takes_a_message_and_others_do_not(receiver, monkeypatch):
    monkeypatch.setattr(posting, "SECONDS", 0.5)
    made, port = receiver
    async with Post(LOOPBACK) as post:
        told = {
            path: await post.send(f"http://127.0.0.1:{port}/{path}", b"{}", {})
            for path in ("taken", "moved", "broken", "slow", "endless")
        }
    assert (told["taken"], told["moved"], told["broken"]) == ("", "answered 307", "answered 500")
    assert "Timeout" in told["slow"]
    assert told["endless"] == ""  # its head is the answer; nothing more is read
    assert [path for path, _ in made.came] == ["/taken", "/moved", "/broken", "/slow", "/endless"]  # not redirected
    async with Post(LOOPBACK) as post:
        assert "Connect" in await post.send("http://127.0.0.1:1/", b"{}", {})


async def test_a_name_that_leads_inside_is_not_called(receiver, monkeypatch):
    """The address counts that the connection would go to, whatever the name said before."""
    made, port = receiver
    async with Post([]) as post:
        for host in ("127.0.0.1", "localhost"):
            assert "not an address" in await post.send(f"http://{host}:{port}/", b"{}", {})

        async def rebound(*_args, **_named):
            return [(2, 1, 6, "", ("127.0.0.1", port))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", rebound, raising=False)
        assert "not an address" in await post.send(f"http://receiver.example.org:{port}/", b"{}", {})
    assert made.came == []


async def test_a_message_that_cannot_be_made_is_set_aside_and_the_others_are_sent(receiver, monkeypatch):
    made, port = receiver
    real = callbacks.message

    def message(one, phrases):
        if one.uid == "bad":
            raise ValueError("nobody thought of this")
        return real(one, phrases)

    monkeypatch.setattr(callbacks, "message", message)
    own = Deliveries(None, Tasks(), namespace="a", name="b", key=b"k" * 32, allowed=LOOPBACK)
    async with Post(LOOPBACK) as post, asyncio.TaskGroup() as term:
        for uid in ("bad", "good"):
            annotations = {"rfuav.io/callback-url": f"http://127.0.0.1:{port}/{uid}"}
            status = {"phase": "Succeeded", "finishedAt": "2150-01-01T00:00:00Z"}
            own._consider(job(uid=uid, annotations=annotations, status=status), post, term)
    assert [path for path, _ in made.came] == ["/good"]
    assert own.waiting == 0
