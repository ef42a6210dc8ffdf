"""The stream of the page on a real API server: what changes arrives, and only what the reader may see."""

import contextlib
import http.client
import json
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from contract.gateway.conftest import Gateway, User
from contract.gateway.test_resources import JOB
from kubernetes import client

from rfuav_crds.contract import GROUP, PLURALS, VERSION

pytestmark = pytest.mark.contract

READER = ("get", "list", "watch")
PATIENCE = 30.0


class Reader:
    """An open page: the events of a stream, as they come."""

    def __init__(self, gateway: Gateway, token: str = "", path: str = "/api/v2/live", **headers: str) -> None:
        address = urlsplit(gateway.url)
        self.connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=PATIENCE)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request("GET", path, headers={"Authorization": f"Bearer {token}", **sent} if token else sent)
        self.answer = self.connection.getresponse()
        self.status = self.answer.status
        self.rows: dict[str, Any] = {}
        self.last: dict[str, Any] = {}
        self._packed = zlib.decompressobj(31) if self.answer.headers["Content-Encoding"] == "gzip" else None
        self._data = b""

    def event(self) -> tuple[str, Any]:
        """The next event; empty: the stream has ended."""
        while True:
            while b"\n\n" not in self._data:
                more = self.answer.read1(65_536)
                if not more:
                    return "", None
                self._data += self._packed.decompress(more) if self._packed else more
            text, _, self._data = self._data.partition(b"\n\n")
            fields = dict(line.split(": ", 1) for line in text.decode().split("\n") if not line.startswith(":"))
            if "event" in fields:
                body = json.loads(fields["data"])
                self._take(fields["event"], body)
                return fields["event"], body

    def _take(self, event: str, body: Any) -> None:
        self.last[event] = body
        if event == "jobs":
            self.rows.update({row["key"]: row for row in body["rows"]})
            for key in body["gone"]:
                self.rows.pop(key, None)

    def until(self, holds: Callable[["Reader"], Any]) -> None:
        """Read on until this holds."""
        deadline = time.monotonic() + PATIENCE
        while not holds(self):
            assert time.monotonic() < deadline, (self.rows, self.last)
            assert self.event()[0], f"the stream has ended: {self.last}"

    def names(self) -> set[str]:
        return {row["name"] for row in self.rows.values()}


@pytest.fixture
def read(gateway: Gateway) -> Iterator[Callable[..., Reader]]:
    """Opens a page, which has its first picture."""
    with contextlib.ExitStack() as opened:

        def opening(token: str = "", of: Gateway = gateway, **more: str) -> Reader:
            reader = Reader(of, token, **more)
            opened.callback(reader.connection.close)
            assert reader.status == 200, reader.answer.read()
            reader.until(lambda one: one.last.get("jobs", {}).get("more") is False)
            return reader

        yield opening


@pytest.fixture
def make(kube: client.ApiClient, namespace: str) -> Callable[..., str]:
    """Makes a job, with a status as the operator would have written it."""
    custom = client.CustomObjectsApi(kube)

    def make(kind: str = "TrainingJob", *, home: str = namespace, **status: Any) -> str:
        name = f"job-{uuid.uuid4().hex[:8]}"
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": {"name": name}, "spec": JOB[kind]}
        at = GROUP, VERSION, home, PLURALS[kind]
        custom.create_namespaced_custom_object(*at, body)
        custom.patch_namespaced_custom_object_status(*at, name, {"status": {"phase": "Queued", **status}})
        return name

    return make


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_what_changes_arrives(  # noqa: PLR0917
    encoding: str,
    read: Callable[..., Reader],
    make: Callable[..., str],
    user: Callable[..., User],
    kube: client.ApiClient,
    namespace: str,
) -> None:
    custom, owner = client.CustomObjectsApi(kube), user(*READER)
    first = make(queue={"position": 3, "of": 7})
    page = read(owner.token, Accept_Encoding=encoding)
    assert page.answer.headers["Content-Encoding"] == (encoding if encoding == "gzip" else None)
    assert page.last["start"]["scope"] == [namespace]
    row = page.rows[f"training/{namespace}/{first}"]
    assert (row["status"], row["position"], row["of"], row["gpus"], row["model"]) == ("queued", 3, 7, 1, "resnet18")
    second = make("InferenceJob", reason="WaitingForQuota")
    page.until(lambda one: second in one.names())
    at = GROUP, VERSION, namespace, PLURALS["TrainingJob"], first
    custom.patch_namespaced_custom_object_status(
        *at, {"status": {"phase": "Running", "progress": {"percent": 40, "remainingSeconds": 90}}}
    )
    page.until(lambda one: one.rows[f"training/{namespace}/{first}"]["percent"] == 40)
    custom.delete_namespaced_custom_object(*at)
    page.until(lambda one: one.names() == {second})


def test_a_script_gets_the_picture_at_once(
    gateway: Gateway, make: Callable[..., str], user: Callable[..., User], namespace: str
) -> None:
    owner, name = user(*READER), make()
    found = gateway.call("GET", "/api/v2/live", token=owner.token, Accept="application/json").body
    assert found["scope"] == [namespace]
    assert [row["name"] for row in found["rows"]] == [name]
    assert (found["pools"], found["quotas"]) == ([], [])
