"""Answers that hold for a moment, and callers by their credentials."""

import asyncio

import pytest
from starlette.datastructures import Headers

from rfuav_gateway.access.callers import Caller, Callers, Unauthenticated, Unavailable
from rfuav_gateway.access.remembered import Remembered
from rfuav_gateway.access.rights import Rights
from rfuav_gateway.access.sights import Sights
from rfuav_gateway.serving.problems import Refused
from rfuav_gateway.serving.rates import Rates
from rfuav_gateway.settings import Settings
from rfuav_gateway.tasks.sight import Sight
from rfuav_kube import clock
from rfuav_kube.connection import Answer, NotSent

SELF = {"status": {"userInfo": {"username": "system:serviceaccount:team-a:alice"}}}


class Server:
    """Answers reviews."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers = list(answers)
        self.sent = []

    async def request(self, method, path, body, *, credential):
        self.sent.append((method, path, body, credential))
        await asyncio.sleep(0)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_an_answer_is_asked_for_once_and_holds_for_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    remembered, asked = Remembered[str, int](10, 2), []

    async def ask() -> int:
        asked.append(now)
        await asyncio.sleep(0)
        return len(asked)

    assert await asyncio.gather(*(remembered.get("a", ask) for _ in range(5))) == [1] * 5
    now = 9.9
    assert await remembered.get("a", ask) == 1
    now = 10.0
    assert await remembered.get("a", ask) == 2
    await remembered.get("b", ask)
    await remembered.get("c", ask)  # a goes: two are kept
    assert await remembered.get("a", ask) == 5


async def test_a_failure_is_not_remembered_and_a_caller_who_leaves_does_not_end_the_question() -> None:
    remembered = Remembered[str, int](10, 10)
    gate = asyncio.Event()

    async def fails() -> int:
        raise ValueError

    async def slow() -> int:
        await gate.wait()
        return 7

    with pytest.raises(ValueError, match="^$"):
        await remembered.get("a", fails)
    first = asyncio.create_task(remembered.get("a", slow))
    second = asyncio.create_task(remembered.get("a", slow))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    gate.set()
    assert await second == 7


async def test_a_token_is_shown_to_the_api_server_once_and_never_kept() -> None:
    server = Server(Answer(201, SELF))
    callers = Callers(Settings(), server, Rates(Settings()))
    headers = Headers({"authorization": "Bearer the-token"})
    for _ in range(3):
        caller = await callers.of(headers, "10.0.0.1")
    assert (caller.name, caller.namespace) == ("system:serviceaccount:team-a:alice", "team-a")
    assert caller.credential.headers == (("Authorization", "Bearer the-token"),)
    assert not caller.credential.impersonates
    assert "the-token" not in caller.key
    assert len(server.sent) == 1
    assert "the-token" not in repr(callers._known._held)


@pytest.mark.parametrize(
    "header",
    ["", "Basic abc", "Bearer", "Bearer  ", "Bearer " + "x" * 20_000, "Bearer \u00e9"],
    ids=lambda text: text[:12],
)
async def test_what_is_no_token_is_not_even_shown(header: str) -> None:
    server = Server()
    with pytest.raises(Unauthenticated):
        await Callers(Settings(), server, Rates(Settings())).of(Headers({"authorization": header}), "10.0.0.1")
    assert server.sent == []


async def test_an_address_that_guesses_tokens_is_not_asked_about_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others at its address, as behind an Ingress, go on; those at other addresses notice nothing."""
    now = 0.0
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    settings = Settings.model_validate({"limits": {"failures": "3/minute"}})
    nobody = Answer(401, {})
    server = Server(Answer(201, SELF), nobody, nobody, nobody, Answer(201, SELF), Answer(201, SELF))
    callers = Callers(settings, server, Rates(settings))

    async def come(token: str, peer: str = "10.0.0.1") -> str:
        return (await callers.of(Headers({"authorization": f"Bearer {token}"}), peer)).name

    assert await come("alice")
    for guess in range(3):
        with pytest.raises(Unauthenticated):
            await come(f"guess-{guess}")
    for guess in range(3, 50):
        with pytest.raises(Refused) as refused:
            await come(f"guess-{guess}")
        assert refused.value.status == 429
        assert "Retry-After" in refused.value.headers
    assert len(server.sent) == 4
    now += 11  # what is known of alice has to be asked again
    assert await come("alice")
    assert await come("bob", "10.0.0.2")
    with pytest.raises(Refused):
        await come("carol")


async def test_an_api_server_that_is_away_is_no_refusal() -> None:
    server = Server(NotSent("no route"), Answer(500, {"message": "etcd"}), Answer(201, SELF))
    callers, headers = Callers(Settings(), server, Rates(Settings())), Headers({"authorization": "Bearer t"})
    for _ in range(2):
        with pytest.raises(Unavailable):
            await callers.of(headers, "")
    assert (await callers.of(headers, "")).name.endswith("alice")


@pytest.mark.parametrize(
    ("peer", "user", "known"),
    [
        ("10.1.2.3", "ann", True),
        ("::ffff:10.1.2.3", "ann", False),
        ("10.2.0.1", "ann", False),
        ("10.1.2.3", "system:admin", False),
        ("10.1.2.3", "", False),
        ("unix", "ann", False),
    ],
)
async def test_a_proxy_is_believed_by_its_address_and_only_about_people(peer: str, user: str, known: bool) -> None:
    settings = Settings.model_validate({"proxy": {"addresses": ["10.1.0.0/16"]}})
    headers = Headers({"x-forwarded-user": user, "x-forwarded-groups": "ml, system:masters,ops"})
    callers = Callers(settings, Server(), Rates(settings))
    if not known:
        with pytest.raises(Unauthenticated):
            await callers.of(headers, peer)
        return
    caller = await callers.of(headers, peer)
    assert caller.credential.headers == (
        ("Impersonate-User", "ann"),
        ("Impersonate-Group", "ml"),
        ("Impersonate-Group", "ops"),
    )
    assert caller.credential.impersonates


async def test_rights_are_asked_as_the_caller_and_by_namespace() -> None:
    allowed = Answer(201, {"status": {"allowed": True}})
    server = Server(Answer(201, SELF), allowed, Answer(201, {"status": {"allowed": False}}), Answer(403, {}))
    caller = await Callers(Settings(), server, Rates(Settings())).of(Headers({"authorization": "Bearer t"}), "")
    rights = Rights(server)
    assert await rights.may(caller, "get", "trainingjobs", "a")
    assert not await rights.may(caller, "get", "trainingjobs", "b")
    assert not await rights.may(caller, "get", "inferencejobs", "a")
    assert await rights.may(caller, "get", "trainingjobs", "a")  # remembered
    assert [body["spec"]["resourceAttributes"] for _, _, body, _ in server.sent[1:]] == [
        {"verb": "get", "group": "rfuav.io", "resource": "trainingjobs", "namespace": "a"},
        {"verb": "get", "group": "rfuav.io", "resource": "trainingjobs", "namespace": "b"},
        {"verb": "get", "group": "rfuav.io", "resource": "inferencejobs", "namespace": "a"},
    ]
    assert all(credential is caller.credential for *_, credential in server.sent[1:])


async def test_without_credentials_one_namespace_is_open_and_no_other() -> None:
    settings = Settings.model_validate({"compat": {"enabled": True, "namespace": "lab"}})
    caller = await Callers(settings, Server(), Rates(settings)).of(Headers({}), "10.0.0.1")
    rights = Rights(Server(), everything_in="lab")
    assert (caller.namespace, caller.credential) == ("lab", None)
    assert await rights.may(caller, "get", "trainingjobs", "lab")
    assert not await rights.may(caller, "get", "trainingjobs", "kube-system")


@pytest.mark.parametrize(
    ("method", "headers", "known"),
    [
        ("GET", {"sec-fetch-site": "same-origin"}, True),
        ("GET", {"sec-fetch-site": "none"}, True),
        ("GET", {"sec-fetch-site": "same-site"}, False),
        ("GET", {"sec-fetch-site": "cross-site"}, False),
        ("GET", {}, True),
        ("GET", {"origin": "https://evil.example.org"}, False),
        ("POST", {"sec-fetch-site": "same-origin"}, True),
        ("POST", {"sec-fetch-site": "none"}, False),
        ("POST", {"sec-fetch-site": "same-site"}, False),
        ("POST", {}, False),
        ("POST", {"origin": "http://rfuav.example.org"}, True),
        ("POST", {"origin": "http://evil.example.org"}, False),
        ("DELETE", {"origin": "null"}, False),
    ],
)
async def test_the_cookie_counts_in_requests_of_the_page_alone(
    method: str, headers: dict[str, str], known: bool
) -> None:
    server = Server(Answer(201, SELF))
    sent = {"host": "rfuav.example.org", "cookie": "other=1; rfuav_session=the-token", **headers}
    if not known:
        with pytest.raises(Unauthenticated):
            await Callers(Settings(), server, Rates(Settings())).of(Headers(sent), "10.0.0.1", method)
        assert server.sent == []
        return
    caller = await Callers(Settings(), server, Rates(Settings())).of(Headers(sent), "10.0.0.1", method)
    assert caller.credential.headers == (("Authorization", "Bearer the-token"),)
    own = Headers({**sent, "authorization": "Basic x"})  # a request's own credentials come first
    with pytest.raises(Unauthenticated):
        await Callers(Settings(), server, Rates(Settings())).of(own, "10.0.0.1", method)


async def test_sights_ask_for_all_namespaces_first_and_then_for_each() -> None:
    class Rights:
        def __init__(self, *allowed: tuple[str, str]) -> None:
            self.allowed, self.asked = set(allowed), []

        async def may(self, caller, verb, resource, namespace=""):
            self.asked.append((resource, namespace))
            return (resource, namespace) in self.allowed

        async def may_see_pools(self, caller):
            return False

    caller = Caller("ann", "key", None, "")
    rights = Rights(("trainingjobs", ""), ("inferencejobs", "a"), ("gpuquotas", "b"))
    seen = await Sights(rights).of(caller, ["a", "b"])
    assert seen == Sight(
        everywhere=frozenset({"training"}), jobs=frozenset({("inference", "a")}), quotas=frozenset("b")
    )
    assert ("trainingjobs", "a") not in rights.asked
    many, rights = [f"n{number}" for number in range(100)], Rights()
    sights = Sights(rights)
    await sights.of(caller, many)
    first, rights.asked = len(rights.asked), []
    await sights.of(caller, many)
    assert len(rights.asked) < first / 2  # most of what was refused is not asked again so soon
    rights.allowed.add(("trainingjobs", "n0"))
    assert (await sights.of(caller, many)).namespaces() == ["n0"]
