"""The stream of the page on a real API server: what changes arrives, and only what the reader may see."""

import contextlib
import http.client
import json
import signal
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from contract.gateway.conftest import Gateway, Serve, User
from contract.gateway.test_resources import JOB
from kubernetes import client

from localcluster.gpus import Gpus
from localcluster.simulation import create_nodes
from rfuav_crds.contract import GROUP, PLURALS, VERSION

pytestmark = pytest.mark.contract

READER = ("get", "list", "watch")
PATIENCE = 60.0


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

    def pool(self, name: str) -> dict[str, Any]:
        return next((one for one in self.last.get("pools", {}).get("pools", ()) if one["name"] == name), {})

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

    def make(kind: str = "TrainingJob", *, home: str = namespace, pool: str = "default", **status: Any) -> str:
        name = f"job-{uuid.uuid4().hex[:8]}"
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": {"name": name}}
        body["spec"] = {**JOB[kind], "pool": pool}
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
    page.until(lambda one: one.rows.get(f"training/{namespace}/{first}", {}).get("position"))
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
    deadline, found = time.monotonic() + PATIENCE, {}
    while not found.get("rows") and time.monotonic() < deadline:  # the gateway's watch may be behind
        found = gateway.call("GET", "/api/v2/live", token=owner.token, Accept="application/json").body
    assert found["scope"] == [namespace]
    assert [row["name"] for row in found["rows"]] == [name]
    assert (found["pools"], found["quotas"]) == ([], [])


@pytest.fixture
def elsewhere(kube: client.ApiClient) -> Iterator[str]:
    """A namespace of other people."""
    core, name = client.CoreV1Api(kube), f"other-{uuid.uuid4().hex[:8]}"
    core.create_namespace({"metadata": {"name": name}})
    yield name
    core.delete_namespace(name)


@pytest.fixture
def node(kube: client.ApiClient, kubeconfig: Any) -> Iterator[str]:
    """A node with two GPUs, in a pool of its own that has its name."""
    custom, name = client.CustomObjectsApi(kube), f"live-{uuid.uuid4().hex[:8]}"
    spec = {"nodeSelector": {"test": name}, "perGPU": [{"minMemory": "22Gi", "training": 1, "inference": 3}]}
    pool = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "GPUPool", "metadata": {"name": name}, "spec": spec}
    custom.create_cluster_custom_object(GROUP, VERSION, "gpupools", pool)
    (made,) = create_nodes(kubeconfig, 1, prefix=name, gpus=Gpus(), labels={"test": name})
    yield made
    client.CoreV1Api(kube).delete_node(made)
    custom.delete_cluster_custom_object(GROUP, VERSION, "gpupools", name)


def bind(kube: client.ApiClient, user: User, role: str, resource: str, namespace: str = "") -> None:
    """Let a user list a resource, in a namespace or in all."""
    rbac, name = client.RbacAuthorizationV1Api(kube), f"{user.name}-{role}"
    rules = [{"apiGroups": [GROUP], "resources": [resource], "verbs": ["list"]}]
    kind = "Role" if namespace else "ClusterRole"
    subject = {"kind": "ServiceAccount", "name": user.name, "namespace": user.namespace}
    to = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
    binding = {"metadata": {"name": name}, "roleRef": to, "subjects": [subject]}
    if namespace:
        rbac.create_namespaced_role(namespace, {"metadata": {"name": name}, "rules": rules})
        rbac.create_namespaced_role_binding(namespace, binding)
    else:
        rbac.create_cluster_role({"metadata": {"name": name}, "rules": rules})
        rbac.create_cluster_role_binding(binding)


def test_a_viewer_sees_nothing_of_other_namespaces(  # noqa: PLR0917
    read: Callable[..., Reader],
    make: Callable[..., str],
    user: Callable[..., User],
    kube: client.ApiClient,
    namespace: str,
    elsewhere: str,
    node: str,
) -> None:
    custom, pool = client.CustomObjectsApi(kube), node.rpartition("-")[0]
    viewer = user(*READER)
    bind(kube, viewer, "pools", "gpupools")
    bind(kube, viewer, "quotas", "gpuquotas", namespace)
    for home in (namespace, elsewhere):
        quota = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "GPUQuota", "metadata": {"name": "default"}}
        spec = {"pools": [{"name": pool, "gpus": {"nominal": 2}}]}
        custom.create_namespaced_custom_object(GROUP, VERSION, home, "gpuquotas", {**quota, "spec": spec})
    running = {"phase": "Running", "assignments": [{"pod": "p", "node": node, "gpus": 1}]}
    mine, theirs = make(pool=pool, **running), make(pool=pool, home=elsewhere, **running)
    page = read(viewer.token)
    page.until(lambda one: "quotas" in one.last and one.pool(pool).get("held") == {"training": 2, "inference": 0})
    assert page.names() == {mine}
    assert page.last["start"]["scope"] == [namespace]
    (shown,) = page.pool(pool)["nodes"]
    assert (shown["gpus"], shown["heldGpus"], page.pool(pool)["heldGpus"]) == (2, 2.0, 2.0)
    hidden = {"type": "training", "hidden": True}
    assert sorted(shown["jobs"], key=str) == [f"training/{namespace}/{mine}", hidden]
    assert {(one["namespace"], one["used"], one["nominal"]) for one in page.last["quotas"]["quotas"]} == {
        (namespace, 1, 2)
    }
    make(home=elsewhere)
    again = make()
    page.until(lambda one: again in one.names())
    for what in (elsewhere, theirs):
        assert what not in json.dumps([page.rows, page.last])
    stranger = read(user(home="default").token, path=f"/ns/{namespace}/api/v2/live")
    assert (stranger.rows, stranger.last["start"]["scope"]) == ({}, [])


def test_a_new_namespace_appears_and_the_stream_ends_with_its_token(
    read: Callable[..., Reader],
    make: Callable[..., str],
    user: Callable[..., User],
    kube: client.ApiClient,
    elsewhere: str,
) -> None:
    owner = user(*READER)
    page, theirs = read(owner.token), make(home=elsewhere)
    bind(kube, owner, "jobs", "trainingjobs", elsewhere)
    page.until(lambda one: theirs in one.names())
    assert elsewhere in page.last["scope"]["scope"]
    client.CoreV1Api(kube).delete_namespaced_service_account(owner.name, owner.namespace)
    page.until(lambda one: "bye" in one.last)
    assert page.last["bye"] == {"why": "signed-out"}
    assert page.event() == ("", None)


def test_a_foreign_page_gets_no_stream_with_the_cookie(gateway: Gateway, user: Callable[..., User]) -> None:
    cookie = f"rfuav_session={user(*READER).token}"
    assert Reader(gateway, Cookie=cookie, Sec_Fetch_Site="same-origin").status == 200
    assert Reader(gateway, Cookie=cookie, Origin=gateway.url).status == 200
    for foreign in (
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "http://evil.example"},
    ):
        assert Reader(gateway, Cookie=cookie, **foreign).status == 401


def test_the_gateway_tells_its_readers_that_it_stops(serve: Serve, user: Callable[..., User]) -> None:
    with serve() as one:
        page = Reader(one, user(*READER).token)
        page.until(lambda read: "start" in read.last)
        one.process.send_signal(signal.SIGTERM)
        page.until(lambda read: "bye" in read.last)
        assert page.last["bye"] == {"why": "stopping"}
        assert one.process.wait(20) == 0
