"""Certificates that pods can check with the CA alone; tokens that only the cluster's own keys make."""

import asyncio
import base64
import json
import ssl
import time
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from unit.kube.fake_api import FakeApi, answer, serving

from rfuav_crds import contract
from rfuav_kube import clock
from rfuav_kube.connection import ConnectionProblem
from rfuav_operator.shell.serving import tls
from rfuav_operator.shell.serving.tokens import Sender, Tokens, Unauthorized

ISSUER, AUDIENCE = "https://cluster", contract.TOKEN_AUDIENCE
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)


async def served_by(leaf: tls.Leaf, authority: tls.Authority, name: str) -> int:
    """The status of a request to a server with this leaf, as a client sees it that trusts the CA alone."""
    runner = web.AppRunner(web.Application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=leaf.context).start()
    trusts = ssl.create_default_context(cadata=authority.pem)
    try:
        async with aiohttp.ClientSession() as session:
            url = f"https://127.0.0.1:{runner.addresses[0][1]}/"
            async with session.get(url, ssl=trusts, server_hostname=name) as response:
                return response.status
    finally:
        await runner.cleanup()


async def test_a_pod_that_trusts_the_ca_reaches_every_name_even_after_a_renewal():
    authority = tls.new_authority()
    leaf = tls.Leaf(authority, tls.names("ns", "svc", "https://127.0.0.1:9"))
    for name in ("svc.ns.svc", "svc.ns.svc.cluster.local", "127.0.0.1"):
        assert await served_by(leaf, authority, name) == 404
    leaf.renew()
    assert await served_by(leaf, authority, "svc.ns.svc") == 404


async def test_another_name_or_another_ca_is_refused():
    authority = tls.new_authority()
    leaf = tls.Leaf(authority, tls.names("ns", "svc", ""))
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await served_by(leaf, authority, "elsewhere.ns.svc")
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await served_by(leaf, tls.new_authority(), "svc.ns.svc")


async def test_replicas_share_one_ca(tmp_path: Path):
    async with serving(tmp_path) as (api, connection):
        stored: list[Any] = []

        async def secrets(request: web.Request, body: Any) -> web.StreamResponse:
            if request.method == "POST":
                if stored:
                    return answer(409, {"reason": "AlreadyExists"})
                await asyncio.sleep(0.05)
                stored.append(body)
                return answer(201, body)
            return answer(200, stored[0]) if stored else answer(404, {})

        api.handle = secrets
        found = [await tls.shared_authority(connection, "ns", "ca") for _ in range(2)]
        assert found[0].pem == found[1].pem
        assert len(stored) == 1
        stored[0]["data"] = {"tls.crt": "eA=="}
        with pytest.raises(ConnectionProblem, match="delete it"):
            await tls.shared_authority(connection, "ns", "ca")


class Keys:
    """An API server that publishes token keys."""

    def __init__(self, api: FakeApi) -> None:
        self.keys = {"k1": KEY}
        self.issuer = ISSUER
        self.reads = 0
        api.handle = self.serve

    async def serve(self, request: web.Request, body: Any) -> web.StreamResponse:
        if request.path == "/.well-known/openid-configuration":
            return answer(200, {"issuer": self.issuer})
        if request.headers["Accept"] != "application/jwk-set+json":
            return answer(406, {})
        self.reads += 1
        found = [
            json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(k.public_key())) | {"kid": n, "alg": "RS256"}
            for n, k in self.keys.items()
        ]
        return answer(200, {"keys": found})


def token(*, key: Any = KEY, kid: str = "k1", algorithm: str = "RS256", **changes: Any) -> str:
    bound = {"namespace": "ns", "pod": {"name": "p", "uid": "u"}}
    claims = {"iss": ISSUER, "aud": [AUDIENCE], "exp": time.time() + 60, "kubernetes.io": bound, **changes}
    return jwt.encode(
        {k: v for k, v in claims.items() if v is not None}, key, algorithm=algorithm, headers={"kid": kid}
    )


async def test_the_pod_of_a_good_token(tmp_path: Path):
    async with serving(tmp_path) as (api, connection):
        keys = Keys(api)
        tokens = Tokens(connection, AUDIENCE)
        good = token()
        for _ in range(3):
            assert await tokens.sender(good) == Sender("ns", "p", "u")
        assert keys.reads == 1


@pytest.mark.parametrize("off", [-300.0, 300.0])
async def test_tokens_and_certificates_hold_by_the_servers_clock(tmp_path: Path, monkeypatch, off: float):
    """This machine's clock is five minutes off: what the server has just issued is valid, what has expired is not."""
    async with serving(tmp_path) as (api, connection):
        Keys(api)
        monkeypatch.setattr(clock, "wall", lambda: time.time() + off)
        monkeypatch.setattr(clock, "_ahead", None)
        tokens = Tokens(connection, AUDIENCE)
        fresh = {"iat": time.time(), "nbf": time.time()}
        assert await tokens.sender(token(**fresh)) == Sender("ns", "p", "u")
        with pytest.raises(Unauthorized, match="expired"):
            await tokens.sender(token(exp=time.time() - 60))
        with pytest.raises(Unauthorized, match="not valid yet"):
            await tokens.sender(token(nbf=time.time() + 60))
        authority = tls.new_authority()
        assert await served_by(tls.Leaf(authority, tls.names("ns", "svc", "")), authority, "svc.ns.svc") == 404


@pytest.mark.parametrize(
    "bad",
    [
        "nonsense",
        token(key=OTHER),
        token(kid="unknown"),
        token(aud=["https://kubernetes.default.svc"]),
        token(iss="https://elsewhere"),
        token(exp=time.time() - 60),
        token(exp=None),
        token(exp="soon"),
        token(nbf=time.time() + 3600, exp=time.time() + 7200),
        token(nbf=[]),
        token(**{"kubernetes.io": {"namespace": "ns", "serviceaccount": {"name": "x"}}}),
        token(**{"kubernetes.io": None}),
        token(key="0" * 32, algorithm="HS256"),
        jwt.encode(
            {"iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 60}, None, algorithm="none", headers={"kid": "k1"}
        ),
        base64.urlsafe_b64encode(b"[" * 6000).decode().rstrip("=") + ".e30.c2ln",
    ],
)
async def test_a_bad_token_proves_nothing(tmp_path: Path, bad: str):
    async with serving(tmp_path) as (api, connection):
        Keys(api)
        with pytest.raises(Unauthorized):
            await Tokens(connection, AUDIENCE).sender(bad)


async def test_an_expired_token_is_not_believed_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with serving(tmp_path) as (api, connection):
        Keys(api)
        tokens = Tokens(connection, AUDIENCE)
        good = token(exp=time.time() + 1)
        await tokens.sender(good)
        now = time.time()
        monkeypatch.setattr("rfuav_operator.shell.serving.tokens.LEEWAY", 0)
        monkeypatch.setattr("rfuav_operator.shell.serving.tokens.time.time", lambda: now + 2)
        await asyncio.sleep(1.1)
        with pytest.raises(Unauthorized):
            await tokens.sender(good)


async def test_rotated_keys_are_read_again_but_not_at_every_forged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with serving(tmp_path) as (api, connection):
        keys = Keys(api)
        tokens = Tokens(connection, AUDIENCE)
        await tokens.sender(token())
        keys.keys = {"k2": OTHER}
        for kid in ("x", "y", "z"):
            with pytest.raises(Unauthorized):
                await tokens.sender(token(kid=kid))
        assert keys.reads == 1
        monkeypatch.setattr("rfuav_operator.shell.serving.tokens.REFRESH_AT_MOST_EVERY", 0)
        assert await tokens.sender(token(key=OTHER, kid="k2")) == Sender("ns", "p", "u")
        assert keys.reads == 2


async def test_a_changed_issuer_is_read_again_but_not_at_every_forged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with serving(tmp_path) as (api, connection):
        keys = Keys(api)
        tokens = Tokens(connection, AUDIENCE)
        await tokens.sender(token())
        for _ in range(3):
            with pytest.raises(Unauthorized):
                await tokens.sender(token(iss="https://elsewhere"))
        assert keys.reads == 1
        monkeypatch.setattr("rfuav_operator.shell.serving.tokens.REFRESH_AT_MOST_EVERY", 0)
        keys.issuer = "https://new"
        assert await tokens.sender(token(iss="https://new")) == Sender("ns", "p", "u")
        assert await tokens.sender(token(exp=time.time() + 61)) == Sender("ns", "p", "u")  # of before: until it expires
        with pytest.raises(Unauthorized):
            await tokens.sender(token(iss="https://elsewhere"))


async def test_keys_that_cannot_be_read_are_not_asked_for_at_every_token(tmp_path: Path, monkeypatch):
    async with serving(tmp_path) as (api, connection):

        async def slow(_request: web.Request, _body: Any) -> web.StreamResponse:
            await asyncio.sleep(0.2)
            return answer(503, {"message": "not now"})

        api.handle = slow
        tokens = Tokens(connection, AUDIENCE)
        came = await asyncio.gather(*(tokens.sender(token(kid=f"k{i}")) for i in range(20)), return_exceptions=True)
        assert {type(error) for error in came} == {ConnectionProblem}
        assert [path for _, path, _ in api.seen].count("/.well-known/openid-configuration") == 1
        keys = Keys(api)
        monkeypatch.setattr("rfuav_operator.shell.serving.tokens.RETRY_AT_MOST_EVERY", 0)
        assert await tokens.sender(token()) == Sender("ns", "p", "u")
        assert keys.reads == 1


async def test_a_key_that_was_replaced_under_its_name_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with serving(tmp_path) as (api, connection):
        keys = Keys(api)
        tokens = Tokens(connection, AUDIENCE)
        await tokens.sender(token())
        keys.keys = {"k1": OTHER}
        monkeypatch.setattr("rfuav_operator.shell.serving.tokens.REFRESH_AT_MOST_EVERY", 0)
        assert await tokens.sender(token(key=OTHER)) == Sender("ns", "p", "u")


@pytest.mark.parametrize("said", [{}, [], {"issuer": ISSUER, "keys": []}])
async def test_keys_that_cannot_be_read_are_the_cluster_s_fault(tmp_path: Path, said: Any):
    async with serving(tmp_path) as (api, connection):

        async def garbage(request: web.Request, body: Any) -> web.StreamResponse:
            return answer(200, said)

        api.handle = garbage
        with pytest.raises(ConnectionProblem):
            await Tokens(connection, AUDIENCE).sender(token())
