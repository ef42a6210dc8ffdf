"""The gateway as a process of its own on the api cluster; users are service accounts with tokens and roles."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from contract.operator.conftest import free_port
from kubernetes import client

Object = dict[str, Any]
START_SECONDS = 180


class Reply(NamedTuple):
    """An answer over HTTP."""

    status: int
    body: Any
    headers: Any


class Gateway:
    """A gateway process."""

    def __init__(self, kubeconfig: Path, folder: Path, **settings: Any) -> None:
        self.port, self.health = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"gateway-{self.port}.log"
        self._settings = folder / f"gateway-{self.port}.yaml"
        self._settings.write_text(
            yaml.safe_dump(
                {
                    "kubeconfig": str(kubeconfig),
                    "host": "127.0.0.1",
                    "port": self.port,
                    "healthPort": self.health,
                    "drainSeconds": 0,
                    "roots": [{"path": "/data", "uri": "pvc://captures"}],
                    "weightsCache": "pvc://captures/weights",
                    "limits": {"creates": "100000/minute", "requests": "1000000/minute", "previews": "100000/minute"},
                    **settings,
                }
            )
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process and wait until it is ready."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("RFUAV_GATEWAY", "KUBERNETES_"))}
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "rfuav_gateway", "run", "--settings", str(self._settings)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/readyz", timeout=2):
                    pass
                self.call("GET", "/")
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise AssertionError(f"the gateway is not ready after {START_SECONDS} s:\n{self.log.read_text()}")

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 20) -> int:
        """Send a signal and wait for the end; the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def call(
        self, method: str, path: str, body: Any = None, *, token: str = "", timeout: float = 30, **headers: str
    ) -> Reply:
        """One request."""
        request = urllib.request.Request(self.url + path, method=method)
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return Reply(answer.status, _parsed(answer.read()), answer.headers)
        except urllib.error.HTTPError as error:
            return Reply(error.code, _parsed(error.read()), error.headers)


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode(errors="replace")


Serve = Callable[..., Any]


@pytest.fixture(scope="session")
def serve(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """Runs a gateway with these settings for as long as a context lasts."""
    folder = tmp_path_factory.mktemp("gateway")

    @contextmanager
    def serving(**settings: Any) -> Iterator[Gateway]:
        gateway = Gateway(kubeconfig, folder, **settings)
        gateway.start()
        try:
            yield gateway
        finally:
            if gateway.process is not None and gateway.process.poll() is None:
                gateway.stop()

    return serving


@pytest.fixture(scope="session")
def gateway(serve: Serve) -> Iterator[Gateway]:
    """The gateway that most tests share: for callers with tokens."""
    with serve() as running:
        yield running


class User(NamedTuple):
    """A service account in a namespace, with its token."""

    namespace: str
    name: str
    token: str


@pytest.fixture
def may_read_logs(kube: client.ApiClient, namespace: str) -> Callable[[User], None]:
    """Lets a user read the logs of the pods of the test's namespace."""

    def grant(someone: User) -> None:
        api = client.RbacAuthorizationV1Api(kube)
        rules = [{"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}]
        api.create_namespaced_role(namespace, {"metadata": {"name": "logs"}, "rules": rules})
        binding = {
            "metadata": {"name": "logs"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "logs"},
            "subjects": [{"kind": "ServiceAccount", "name": someone.name, "namespace": namespace}],
        }
        api.create_namespaced_role_binding(namespace, binding)

    return grant


@pytest.fixture
def user(kube: client.ApiClient, namespace: str) -> Callable[..., User]:
    """Makes a user of the test's namespace who may do these verbs on jobs there."""

    def make(
        *verbs: str,
        resources: tuple[str, ...] = ("trainingjobs", "inferencejobs"),
        group: str = "rfuav.io",
        home: str = namespace,
    ) -> User:
        name = f"user-{uuid.uuid4().hex[:8]}"
        core, rbac = client.CoreV1Api(kube), client.RbacAuthorizationV1Api(kube)
        core.create_namespaced_service_account(home, {"metadata": {"name": name}})
        if verbs:
            rules = [{"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}]
            rbac.create_namespaced_role(namespace, {"metadata": {"name": name}, "rules": rules})
            binding = {
                "metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": home}],
            }
            rbac.create_namespaced_role_binding(namespace, binding)
        review = core.create_namespaced_service_account_token(name, home, {"spec": {"expirationSeconds": 3600}})
        return User(home, name, review.status.token)

    return make
