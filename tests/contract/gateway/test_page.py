"""The page's files and its session, over HTTP as a browser asks."""

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from contract.gateway.conftest import Gateway, Reply, User
from contract.gateway.test_resources import JOB
from contract.operator.conftest import until
from kubernetes import client

from rfuav_crds.contract import GROUP, PLURALS, VERSION

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


@pytest.fixture
def made(kube: client.ApiClient, namespace: str) -> Callable[..., str]:
    """Makes a job as kubectl would, with a status as the operator would have written it; its address."""
    custom = client.CustomObjectsApi(kube)

    def make(kind: str = "TrainingJob", **status: Any) -> str:
        name = f"job-{uuid.uuid4().hex[:8]}"
        at = GROUP, VERSION, namespace, PLURALS[kind]
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": {"name": name}, "spec": JOB[kind]}
        custom.create_namespaced_custom_object(*at, body)
        if status:
            custom.patch_namespaced_custom_object_status(*at, name, {"status": status})
        return f"/api/v2/jobs/{kind.removesuffix('Job').lower()}/{namespace}/{name}"

    return make


def test_a_job_in_full_with_what_stands_in_its_way(
    gateway: Gateway, user: Callable[..., User], made: Callable[..., str], namespace: str
) -> None:
    owner, reader = user("get", "list", "patch", "create", "delete"), user("get")
    failure = {"attempt": 1, "pod": "p-1", "reason": "OutOfMemory", "finishedAt": "2026-01-01T00:00:00Z"}
    words = {"reason": "WaitingForQuota", "message": "needs 1 GPU; namespace uses 8 of 8"}
    at = made(phase="Queued", failures=[failure], queue={"position": 2, "of": 5}, **words)
    found = gateway.call("GET", at, token=owner.token)
    assert found.status == 200, found
    assert found.body["row"]["position"] == 2
    assert found.body["can"] == {"update": True, "delete": True, "create": True, "logs": False}
    assert found.body["manifest"]["spec"]["model"]["architecture"] == "resnet18"
    assert set(found.body["manifest"]["metadata"]) == {"name", "namespace"}
    assert found.body["status"]["failures"][0]["advice"]
    first = next(step for step in found.body["why"] if step["ok"] is False)
    assert words["message"] in first["detail"]
    assert all(at.rpartition("/")[2] in command and namespace in command for command in found.body["kubectl"])
    assert gateway.call("GET", at, token=reader.token).body["can"]["update"] is False


def test_what_one_may_not_read_or_change(gateway: Gateway, user: Callable[..., User], made: Callable[..., str]) -> None:
    at, stranger, reader = made(), user(home="default"), user("get", "list")
    for method, path in (("GET", at), ("GET", f"{at}/events"), ("POST", f"{at}/suspend"), ("DELETE", at)):
        assert gateway.call(method, path, token=stranger.token).status == 404
        assert gateway.call(method, path).status == 401
    for path in ("suspend", "resume", "cancel"):
        assert gateway.call("POST", f"{at}/{path}", token=reader.token).status == 403
    assert gateway.call("GET", f"{at}/events", token=reader.token).status == 403
    for path in ("/api/v2/jobs/training/NOT_ONE/x", "/api/v2/jobs/training/default/..%2f", "/api/v2/jobs/x/default/x"):
        assert gateway.call("GET", path, token=reader.token).status in (404, 422)


def test_suspend_resume_cancel_delete(gateway: Gateway, user: Callable[..., User], made: Callable[..., str]) -> None:
    owner, at = user("get", "list", "patch", "delete"), made(phase="Queued")
    assert gateway.call("POST", f"{at}/suspend", token=owner.token).body["suspended"] is True
    assert gateway.call("POST", f"{at}/resume", token=owner.token).body["suspended"] is False
    early = gateway.call("DELETE", at, token=owner.token)
    assert (early.status, "cancel it before" in early.body["detail"]) == (409, True)
    assert gateway.call("POST", f"{at}/cancel", token=owner.token).body["status"] == "cancelled"
    late = gateway.call("POST", f"{at}/suspend", token=owner.token, Accept_Language="zh")
    assert (late.status, "已结束" in late.body["detail"]) == (409, True)
    assert gateway.call("DELETE", at, token=owner.token).status == 204
    assert gateway.call("GET", at, token=owner.token).status == 404
    audited = [json.loads(line) for line in gateway.log.read_text().splitlines() if '"audit"' in line]
    did = [one["did"] for one in audited if one["job"] == "/".join(at.split("/")[-2:])]
    assert did == ["suspend", "resume", "cancel", "delete"]
    assert all(one["caller"].endswith(owner.name) for one in audited if one["did"] == "suspend")


def test_a_job_is_created_from_its_manifest_once(gateway: Gateway, user: Callable[..., User], namespace: str) -> None:
    owner, reader = user("get", "create"), user("get", "list")
    metadata = {"name": "mine", "namespace": namespace, "annotations": {"team": "a", "rfuav.io/created-by": "forged"}}
    job = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "TrainingJob", "metadata": metadata, "spec": JOB["TrainingJob"]}
    dry = gateway.call("POST", "/api/v2/jobs?dryRun=true", {"manifest": job}, token=owner.token)
    assert (dry.status, dry.body["row"]) == (200, None)
    assert dry.body["manifest"]["spec"]["backoffLimit"] == 3  # the defaults are there
    assert gateway.call("GET", f"/api/v2/jobs/training/{namespace}/mine", token=owner.token).status == 404
    refused = gateway.call("POST", "/api/v2/jobs", {"manifest": job}, token=reader.token)
    assert refused.status == 403
    created = gateway.call("POST", "/api/v2/jobs", {"manifest": job}, token=owner.token)
    assert (created.status, created.body["row"]["name"]) == (201, "mine")
    assert created.body["row"]["user"].endswith(owner.name)
    assert gateway.call("POST", "/api/v2/jobs", {"manifest": job}, token=owner.token).status == 200
    other = {**job, "spec": {**job["spec"], "pool": "other"}}
    taken = gateway.call("POST", "/api/v2/jobs", {"manifest": other}, token=owner.token)
    assert (taken.status, "write another name" in taken.body["detail"]) == (409, True)
    for wrong in ({}, {**job, "metadata": {"namespace": namespace}}, {**job, "kind": "Pod"}):
        assert gateway.call("POST", "/api/v2/jobs", {"manifest": wrong}, token=owner.token).status == 422
    bad = {**job, "metadata": {**metadata, "name": "bad"}, "spec": {**job["spec"], "suspend": "perhaps"}}
    assert gateway.call("POST", "/api/v2/jobs", {"manifest": bad}, token=owner.token).status in (400, 422)


def test_events_of_a_job_and_its_pods(
    gateway: Gateway, user: Callable[..., User], made: Callable[..., str], kube: client.ApiClient, namespace: str
) -> None:
    at = made(phase="Running", assignments=[{"pod": "p-1", "node": "n"}])
    name = at.rpartition("/")[2]
    core, reader = client.CoreV1Api(kube), user("list", resources=("events",), group="")
    for kind, about, reason, hour in (
        ("TrainingJob", name, "Admitted", 1),
        ("Pod", "p-1", "Pulled", 2),
        ("Pod", "x", "No", 3),
    ):
        core.create_namespaced_event(
            namespace,
            {
                "metadata": {"name": f"{about}.{hour}"},
                "involvedObject": {"kind": kind, "name": about, "namespace": namespace},
                "reason": reason,
                "message": "m",
                "type": "Normal",
                "lastTimestamp": f"2026-01-01T0{hour}:00:00Z",
            },
        )
    assert gateway.call("GET", f"{at}/events", token=reader.token).status == 404
    client.RbacAuthorizationV1Api(kube).patch_namespaced_role(
        reader.name,
        namespace,
        {
            "rules": [
                {"apiGroups": [""], "resources": ["events"], "verbs": ["list"]},
                {"apiGroups": ["rfuav.io"], "resources": ["trainingjobs"], "verbs": ["get"]},
            ]
        },
    )
    until(lambda: gateway.call("GET", f"{at}/events", token=reader.token).status == 200, 20)
    found = gateway.call("GET", f"{at}/events", token=reader.token).body
    assert [(one["reason"], one["object"]) for one in found["events"]] == [
        ("Pulled", "Pod/p-1"),
        ("Admitted", f"TrainingJob/{name}"),
    ]
