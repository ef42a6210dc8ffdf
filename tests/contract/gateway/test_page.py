"""The page's files and its session, over HTTP as a browser asks."""

from collections.abc import Callable

import pytest
from contract.gateway.conftest import Gateway, Reply, User

pytestmark = pytest.mark.contract

OWN = {"Sec_Fetch_Site": "same-origin"}


def signed_in(gateway: Gateway, token: str, **headers: str) -> Reply:
    return gateway.call("POST", "/api/v2/session", {"token": token}, **{**OWN, "Origin": gateway.url, **headers})


def cookie(answer: Reply) -> str:
    return str(answer.headers["Set-Cookie"]).partition(";")[0]


def test_a_token_becomes_a_cookie_that_scripts_cannot_read_and_the_page_acts_with_it(
    gateway: Gateway, user: Callable[..., User], namespace: str
) -> None:
    owner = user("get", "list", "create", resources=("trainingjobs",))
    answer = signed_in(gateway, owner.token)
    assert answer.status == 204, answer
    attributes = {part.strip() for part in answer.headers["Set-Cookie"].split(";")[1:]}
    assert attributes == {"HttpOnly", "Path=/", "SameSite=strict"}  # without TLS, on this machine
    held = {"Cookie": cookie(answer), **OWN}
    session = gateway.call("GET", "/api/v2/session", **held).body
    assert session["user"] == f"system:serviceaccount:{namespace}:{owner.name}"
    assert session["signIn"] == "token"
    rights = {"name": namespace, "create": True, "creates": ["training"], "update": False, "delete": False}
    assert session["namespaces"] == [{**rights, "logs": False}]
    assert gateway.call("GET", "/api/v2/tasks", **held).status == 200
    out = gateway.call("DELETE", "/api/v2/session", **held)
    assert (out.status, cookie(out)) == (204, 'rfuav_session=""')
    nobody = gateway.call("GET", "/api/v2/session", Cookie=cookie(out), **OWN).body
    assert (nobody["user"], nobody["namespaces"]) == (None, [])
