"""Who may do what through the gateway: what the API server says of them, and nothing more."""

from collections.abc import Callable

import pytest
from contract.gateway.conftest import Gateway, Serve, User
from contract.gateway.test_tasks import INFERENCE, TRAINING
from contract.operator.conftest import until
from kubernetes import client

pytestmark = pytest.mark.contract

ALL = ("get", "list", "watch", "create", "patch", "delete")


def test_without_a_token_or_with_a_forged_one_nobody_is_answered(gateway: Gateway) -> None:
    for token in ("", "forged", "a.b.c", "x" * 20_000):
        answer = gateway.call("GET", "/api/v2/tasks", token=token)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_what_a_user_may_not_see_does_not_exist(
    gateway: Gateway, user: Callable[..., User], kube: client.ApiClient, namespace: str
) -> None:
    owner, stranger = user(*ALL), user(home="default")
    made = gateway.call("POST", "/api/v2/training/start", TRAINING, token=owner.token).body
    at = f"/ns/{namespace}/api/v2/tasks"
    assert gateway.call("GET", f"{at}/{made['task_id']}", token=owner.token).status == 200
    for method, path in (
        ("GET", f"{at}/{made['task_id']}"),
        ("POST", f"{at}/{made['task_id']}/cancel"),
        ("DELETE", f"{at}/{made['task_id']}"),
        ("GET", f"/ns/{namespace}/api/v2/training/{made['task_id']}"),
        ("POST", f"/ns/{namespace}/api/v2/training/{made['task_id']}/stop"),
    ):
        answer = gateway.call(method, path, token=stranger.token)
        assert (method, path, answer.status) == (method, path, 404)
    assert gateway.call("GET", at, token=stranger.token).body["total_training"] == 0


def test_a_reader_may_not_create_cancel_or_delete(gateway: Gateway, user: Callable[..., User]) -> None:
    owner, reader = user(*ALL), user("get", "list", "watch")
    made = gateway.call("POST", "/api/v2/training/start", TRAINING, token=owner.token).body
    refused = gateway.call("POST", "/api/v2/training/start", TRAINING, token=reader.token)
    assert refused.status == 403
    assert reader.name in refused.body["detail"]
    assert gateway.call("POST", f"/api/v2/tasks/{made['task_id']}/cancel", token=reader.token).status == 403
    assert gateway.call("GET", f"/api/v2/tasks/{made['task_id']}", token=reader.token).body["status"] == "pending"


def test_who_sees_one_kind_sees_nothing_of_the_other(gateway: Gateway, user: Callable[..., User]) -> None:
    owner, half = user(*ALL), user("get", "list", resources=("inferencejobs",))
    training = gateway.call("POST", "/api/v2/training/start", TRAINING, token=owner.token).body
    inference = gateway.call("POST", "/api/v2/inference/start", INFERENCE, token=owner.token).body
    listed = gateway.call("GET", "/api/v2/tasks", token=half.token).body
    assert (listed["total_training"], listed["total_inference"]) == (0, 1)
    assert gateway.call("GET", f"/api/v2/tasks/{training['task_id']}", token=half.token).status == 404
    assert gateway.call("GET", f"/api/v2/tasks/{inference['task_id']}", token=half.token).status == 200


def test_a_right_that_is_withdrawn_ends_within_seconds(
    gateway: Gateway, user: Callable[..., User], kube: client.ApiClient, namespace: str
) -> None:
    owner, guest = user(*ALL), user("get")
    made = gateway.call("POST", "/api/v2/training/start", TRAINING, token=owner.token).body
    assert gateway.call("GET", f"/api/v2/tasks/{made['task_id']}", token=guest.token).status == 200
    client.RbacAuthorizationV1Api(kube).delete_namespaced_role_binding(guest.name, namespace)
    until(lambda: gateway.call("GET", f"/api/v2/tasks/{made['task_id']}", token=guest.token).status == 404, 30)


def test_headers_of_a_proxy_are_believed_from_its_address_alone(
    gateway: Gateway, serve: Serve, user: Callable[..., User], namespace: str
) -> None:
    owner = user(*ALL)
    name = f"system:serviceaccount:{namespace}:{owner.name}"
    headers = {"X_Forwarded_User": name, "X_Namespace": namespace}
    assert gateway.call("GET", "/api/v2/tasks", **headers).status == 401
    with serve(proxy={"addresses": ["127.0.0.1"]}) as behind:
        # The names of the cluster's own parts are not for people: a proxy cannot name them.
        assert behind.call("GET", "/api/v2/tasks", **headers).status == 401
        answer = behind.call("POST", "/api/v2/training/start", TRAINING, **headers | {"X_Forwarded_User": "mallory"})
        assert (answer.status, "mallory" in answer.body["detail"]) == (403, True)
    with serve(proxy={"addresses": ["10.9.8.7"]}) as elsewhere:
        assert elsewhere.call("GET", "/api/v2/tasks", **headers).status == 401


def test_compat_answers_without_credentials_in_one_namespace(serve: Serve, namespace: str) -> None:
    with serve(compat={"enabled": True, "namespace": namespace, "root": "/data"}) as compat:
        body = TRAINING | {"train_path": "train", "val_path": "val", "save_path": "models/output_3"}
        made = compat.call("POST", "/api/v2/training/start", body)
        assert made.status == 200, made
        assert compat.call("GET", f"/api/v2/training/{made.body['task_id']}").body == made.body
        assert compat.call("GET", "/ns/default/api/v2/tasks").status == 404
        assert "without credentials" in compat.log.read_text()


def test_bodies_and_heads_are_bounded(gateway: Gateway, user: Callable[..., User]) -> None:
    owner = user(*ALL)
    large = gateway.call("POST", "/api/v2/training/start", b'{"model": "' + b"x" * 2_000_000 + b'"}', token=owner.token)
    assert large.status == 413
    with pytest.raises(OSError):
        gateway.call("GET", "/api/v2/tasks", token=owner.token, X_Large="x" * 100_000)


def test_more_creates_than_allowed_are_told_to_wait(serve: Serve, user: Callable[..., User]) -> None:
    owner = user(*ALL)
    with serve(limits={"creates": "3/minute", "requests": "1000/minute"}) as strict:
        replies = [strict.call("POST", "/api/v2/training/start", TRAINING, token=owner.token) for _ in range(4)]
    assert [reply.status for reply in replies] == [200, 200, 200, 429]
    assert 1 <= int(replies[3].headers["Retry-After"]) <= 60
    assert "3" in replies[3].body["detail"]


def test_names_that_lead_elsewhere_reach_nothing(gateway: Gateway, user: Callable[..., User], namespace: str) -> None:
    owner = user(*ALL)
    up = "../../../../api/v1/namespaces"
    for wrong in (f"{up}/{namespace}/pods/x/log?a=", f"{namespace}/trainingjobs?x=", f"{namespace}#", "..", "a b"):
        answer = gateway.call("POST", "/api/v2/training/start", TRAINING, token=owner.token, X_Namespace=wrong)
        assert (wrong, answer.status) == (wrong, 400)
        answer = gateway.call("POST", "/api/v2/preview", {"training": TRAINING}, token=owner.token, X_Namespace=wrong)
        assert (wrong, answer.status) == (wrong, 400)
    for wrong in ("..%2f..%2f..%2fapi%2fv1%2fpods", "x%3fwatch=true", "x%23", "..", "%2e%2e%2fpods"):
        answer = gateway.call("GET", f"/api/v2/tasks/{namespace}%2f{wrong}", token=owner.token)
        assert (wrong, answer.status) == (wrong, 404)


def test_a_list_needs_the_right_to_list(gateway: Gateway, user: Callable[..., User]) -> None:
    owner, getter = user(*ALL), user("get")
    made = gateway.call("POST", "/api/v2/training/start", TRAINING, token=owner.token).body
    assert gateway.call("GET", f"/api/v2/tasks/{made['task_id']}", token=getter.token).status == 200
    assert gateway.call("GET", "/api/v2/tasks", token=getter.token).body["total_training"] == 0
