"""Progress reports over TLS with the tokens of real pods, and what comes of them in status."""

import base64
import json
import ssl
import urllib.error
import urllib.request

import pytest

from rfuav_crds import contract

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("audited")]

AUDIENCE = contract.TOKEN_AUDIENCE


def token(world, pod, audience=AUDIENCE):
    reference = {"apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid} if pod else None
    spec = {"audiences": [audience], "expirationSeconds": 600} | ({"boundObjectRef": reference} if reference else {})
    return world.core.create_namespaced_service_account_token("default", world.namespace, {"spec": spec}).status.token


def ca(world):
    secret = world.core.read_namespaced_secret("rfuav-operator-progress-ca", "rfuav-operator-test")
    return base64.b64decode(secret.data["tls.crt"]).decode()


def post(world, bearer, body, *, name="a", plural="trainingjobs", namespace=None):
    """The HTTP status and the answer."""
    url = (
        f"{world.operator.url}/apis/rfuav.io/v1alpha1/namespaces/{namespace or world.namespace}/{plural}/{name}/status"
    )
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {bearer}"} if bearer else {})
    request = urllib.request.Request(url, data=data, headers=headers, method="POST")
    try:
        with urllib.request.urlopen(
            request, context=ssl.create_default_context(cadata=ca(world)), timeout=10
        ) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def report(percent, sequence=None, **ours):
    own = {**ours, **({"sequence": sequence} if sequence is not None else {})}
    status = {"progressPercentage": percent, "estimatedRemainingSeconds": 60, "lastUpdatedTime": "2020-01-01T00:00:00Z"}
    metrics = [{"name": "valLoss", "value": "0.123456"}, {"name": "mine", "value": "x"}]
    return {"trainerStatus": {**status, "metrics": metrics, **({"rfuav": own} if own else {})}}


def running(world, name="a", **more):
    world.submit(name, run=None, **more)
    world.phase(name, "Running")
    (pod,) = world.pods(name)
    return pod


def test_a_report_reaches_status(world):
    pod = running(world)
    bearer = token(world, pod)
    assert post(world, bearer, report(41, 1, epoch=41, totalEpochs=100))[0] == 200
    status = world.until("a", lambda s: (s.get("progress") or {}).get("percent") == 41)
    assert status["progress"]["epoch"] == 41
    assert status["progress"]["remainingSeconds"] == 60
    assert status["progress"]["updatedAt"] > "2026"  # the operator's own clock
    assert status["metrics"] == {"valLoss": 0.1235}
    assert status["customMetrics"] == [{"name": "mine", "value": "x"}]
    code, body = post(world, bearer, report(30, 1))
    assert (code, body["reason"]) == (409, "Conflict")


def test_results_outlive_later_writes_and_a_restart_and_new_ones_replace_them_whole(world):
    pod = running(world)
    bearer = token(world, pod)
    full = {
        "history": {"epochs": [1, 2], "trainLoss": [0.5, 0.25]},
        "classes": ["noise", "video"],
        "confusion": [[0, 0, 7], [1, 0, 2]],
        "bySNR": [[-10, 9, 0.7778]],
        "truncated": False,
    }
    assert post(world, bearer, report(10, 1, results=full))[0] == 200
    assert world.until("a", lambda s: s.get("results"))["results"] == full
    assert post(world, bearer, report(20, 2, results={"confusion": [[0, 0, 1]]}))[0] == 200  # no such class
    status = world.until("a", lambda s: s["progress"]["percent"] == 20)
    assert status["results"] == full
    world.operator.kill()
    world.operator.start()

    def reported():
        return post(world, bearer, report(30, 3))[0] == 200

    world.wait(lambda: _answers(reported), 120)
    assert world.until("a", lambda s: s["progress"]["percent"] == 30)["results"] == full
    newer = {"history": {"epochs": [3], "valLoss": [0.1]}, "truncated": True}
    assert post(world, bearer, report(40, 4, results=newer))[0] == 200
    assert world.until("a", lambda s: s["progress"]["percent"] == 40)["results"] == newer


def _answers(ask):
    """What `ask` says, once there is somebody to answer."""
    try:
        return ask()
    except OSError:
        return False


def test_who_is_not_believed(world):
    pod, other = running(world), running(world, "b")
    good = token(world, pod)
    assert post(world, None, report(1))[0] == 401
    assert post(world, "nonsense", report(1))[0] == 401
    assert post(world, token(world, pod, "https://kubernetes.default.svc"), report(1))[0] == 401
    assert post(world, token(world, None), report(1))[0] == 401  # bound to no pod
    header, payload, signature = good.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    forged = base64.urlsafe_b64encode(json.dumps({**claims, "exp": claims["exp"] + 9999}).encode()).decode().rstrip("=")
    assert post(world, f"{header}.{forged}.{signature}", report(1))[0] == 401
    assert post(world, token(world, other), report(1))[0] == 403  # another job's pod
    assert post(world, good, report(1), namespace="default")[0] == 403
    assert post(world, good, report(1), name="nobody")[0] == 404
    assert post(world, good, report(1), plural="sweeps")[0] == 404
    assert "progress" not in world.status("a")


def test_bad_bodies(world):
    bearer = token(world, running(world))
    assert post(world, bearer, b"{")[0] == 422
    code, body = post(world, bearer, {"trainerStatus": {"progressPercentage": 101}})
    assert code == 422
    assert "0 to 100" in body["message"]
    assert post(world, bearer, b"x" * 70_000)[0] == 413


def test_too_many_reports_are_slowed_down(world):
    bearer = token(world, running(world))
    codes = [post(world, bearer, report(1, n))[0] for n in range(1, 12)]
    assert codes[0] == 200
    assert 429 in codes
