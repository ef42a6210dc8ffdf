"""The reference operator as a process of its own, on the api cluster with simulated GPU nodes.

One operator serves all tests of the session; each test has a namespace, a pool and nodes of its own.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster.observer import Observer, observing
from kubernetes import client
from kubernetes.client.rest import ApiException

from localcluster.gpus import Gpus
from localcluster.simulation import ANNOTATION_PREFIX, create_nodes
from rfuav_crds.contract import GROUP, PLURALS, VERSION

NAMESPACE = "rfuav-operator-test"
LEASE_SECONDS = 10  # a busy machine renews late; a restart under the same identity need not wait for it
Object = dict[str, Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These tests come last: their operator would write into the objects of the others."""
    items.sort(key=lambda item: item.path.parent == Path(__file__).parent)


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Operator:
    """An operator process."""

    def __init__(self, kubeconfig: Path, folder: Path, identity: str, **sections: Object) -> None:
        self.port, self.health = free_port(), free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.log = folder / f"{identity}.log"
        self._settings = folder / f"{identity}.yaml"
        settings: Object = {
            "namespace": NAMESPACE,
            "kubeconfig": str(kubeconfig),
            "jobs": {"image": "example.com/trainer:1"},
            "retries": {"backoffBaseSeconds": 1, "backoffCapSeconds": 2},
            "progress": {"host": "127.0.0.1", "port": self.port, "url": self.url},
            "health": {"host": "127.0.0.1", "port": self.health},
            "leader": {"leaseSeconds": LEASE_SECONDS, "identity": identity},
            "resyncSeconds": 5,
        }
        for section, values in sections.items():
            settings[section] = {**settings.get(section, {}), **values}
        self._settings.write_text(yaml.safe_dump(settings))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process, if it does not run."""
        if self.running:
            return
        environment = {
            k: v for k, v in os.environ.items() if not k.startswith(("POD_", "RFUAV_OPERATOR", "KUBERNETES_"))
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rfuav_operator", "run", "--settings", str(self._settings)],
                stdout=log,
                stderr=log,
                env=environment,
            )

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def metric(self, name: str) -> float | None:
        """A metric of it without labels; None when it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/metrics", timeout=2) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return None
        return next((float(line.split()[1]) for line in lines if line.startswith(f"{name} ")), None)

    def end(self, number: signal.Signals, seconds: float = 10) -> int:
        """Send a signal and wait for the end; the exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(seconds)

    def kill(self) -> None:
        """Kill it as a crash would."""
        self.end(signal.SIGKILL)

    def stop(self) -> int:
        """Stop it cleanly."""
        return self.end(signal.SIGTERM)


@pytest.fixture(scope="session")
def operator_settings(
    kubeconfig: Path, kube: client.ApiClient, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Operator]:
    """Makes operators that are not started yet."""
    with contextlib.suppress(ApiException):
        client.CoreV1Api(kube).create_namespace({"metadata": {"name": NAMESPACE}})
    folder = tmp_path_factory.mktemp("operator")
    return lambda identity, **sections: Operator(kubeconfig, folder, identity, **sections)


@pytest.fixture(scope="session")
def session_operator(operator_settings: Callable[..., Operator]) -> Iterator[Operator]:
    """The operator of the session."""
    made = operator_settings("first")
    made.start()
    yield made
    if made.running:
        assert made.stop() == 0


@pytest.fixture
def operator(session_operator: Operator) -> Operator:
    """The operator, leading."""
    session_operator.start()
    until(lambda: session_operator.metric("rfuav_leader") == 1, 60)
    return session_operator


def until(condition: Callable[[], Any], seconds: float) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)


class World:
    """A namespace with a pool and nodes of its own, and short words for what tests do."""

    def __init__(self, kube: client.ApiClient, namespace: str, nodes: list[str], operator: Operator) -> None:
        self.core = client.CoreV1Api(kube)
        self.custom = client.CustomObjectsApi(kube)
        self.namespace = namespace
        self.nodes = nodes
        self.operator = operator

    def submit(
        self,
        name: str,
        kind: str = "TrainingJob",
        *,
        run: str | None = "1s",
        annotations: Object | None = None,
        **spec: Any,
    ) -> Object:
        """Create a job whose pods run for `run` (None: until deleted)."""
        notes = {**({"run-for": run} if run else {}), **(annotations or {})}
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": kind,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                **_base(kind),
                "pool": self.namespace,
                "podTemplate": {
                    "metadata": {"annotations": {f"{ANNOTATION_PREFIX}{k}": v for k, v in notes.items()}},
                    "volumes": [{"name": "out", "emptyDir": {}}],
                    "volumeMounts": [{"name": "out", "mountPath": "/out"}],
                },
                **spec,
            },
        }
        made: Object = self.custom.create_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURALS[kind], body)
        return made

    def job(self, name: str, kind: str = "TrainingJob") -> Object:
        """A job as it is now."""
        read: Object = self.custom.get_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURALS[kind], name)
        return read

    def status(self, name: str, kind: str = "TrainingJob") -> Object:
        """Its status."""
        return dict(self.job(name, kind).get("status") or {})

    def patch(self, name: str, spec: Object, kind: str = "TrainingJob") -> None:
        """Change the spec of a job."""
        self.custom.patch_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURALS[kind], name, {"spec": spec})

    def delete(self, name: str, kind: str = "TrainingJob") -> None:
        """Delete a job."""
        self.custom.delete_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURALS[kind], name)

    def exists(self, name: str, kind: str = "TrainingJob") -> bool:
        """Whether the job is still there."""
        try:
            self.job(name, kind)
        except ApiException as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return False
        return True

    def until(
        self, name: str, condition: Callable[[Object], Any], kind: str = "TrainingJob", seconds: float = 15
    ) -> Object:
        """Wait until the job's status meets a condition; the status."""
        end = time.monotonic() + seconds
        while True:
            status = self.status(name, kind)
            if condition(status):
                return status
            assert time.monotonic() < end, f"{kind} {name} did not get there: {status}"
            time.sleep(0.05)

    def phase(self, name: str, phase: str, kind: str = "TrainingJob", seconds: float = 15) -> Object:
        """Wait until a job is in a phase; its status."""
        return self.until(name, lambda status: status.get("phase") == phase, kind, seconds)

    def reason(self, name: str, reason: str, kind: str = "TrainingJob", seconds: float = 15) -> Object:
        """Wait until a job gives a reason; its status."""
        return self.until(name, lambda status: status.get("reason") == reason, kind, seconds)

    def pods(self, name: str | None = None) -> list[Any]:
        """The pods of a job, or all."""
        selector = f"rfuav.io/job={name}" if name else ""
        return list(self.core.list_namespaced_pod(self.namespace, label_selector=selector).items)

    def wait(self, condition: Callable[[], Any], seconds: float = 15) -> None:
        """Wait for anything else."""
        until(condition, seconds)


def _base(kind: str) -> Object:
    if kind == "TrainingJob":
        return {
            "model": {"architecture": "resnet18", "weights": "none", "numClasses": 3},
            "dataset": {"train": {"uri": "file:///data/train"}, "validation": {"fraction": 0.2}},
            "output": {"uri": "file:///out/model"},
        }
    return {
        "model": {"weights": "file:///data/best.safetensors"},
        "input": {"uri": "file:///data/in"},
        "output": {"uri": "file:///out/predictions"},
    }


def condition(status: Object, kind: str) -> Object:
    """A condition of a status; empty when there is none."""
    return next((c for c in status.get("conditions") or () if c["type"] == kind), {})


@pytest.fixture(scope="session")
def litter() -> Iterator[list[Callable[[], Any]]]:
    """What is to be called at the very end: nodes outlive the pods on them."""
    calls: list[Callable[[], Any]] = []
    yield calls
    for call in calls:
        call()


@pytest.fixture
def world(
    kube: client.ApiClient, kubeconfig: Path, namespace: str, operator: Operator, litter: list[Callable[[], Any]]
) -> Iterator[World]:
    """A namespace, a pool of its name, and one simulated node of 2 x 24 GB GPUs, sliced by four."""
    custom, core = client.CustomObjectsApi(kube), client.CoreV1Api(kube)
    pool = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "GPUPool",
        "metadata": {"name": namespace},
        "spec": {"nodeSelector": {"test": namespace}},
    }
    custom.create_cluster_custom_object(GROUP, VERSION, "gpupools", pool)
    litter.append(lambda: custom.delete_cluster_custom_object(GROUP, VERSION, "gpupools", namespace))
    (node,) = create_nodes(kubeconfig, 1, prefix=namespace, gpus=Gpus(), labels={"test": namespace})
    litter.append(lambda: core.delete_node(node))
    accounts = core.list_namespaced_service_account
    until(lambda: "default" in {account.metadata.name for account in accounts(namespace).items}, 15)
    until(
        lambda: any(c.type == "Ready" and c.status == "True" for c in core.read_node(node).status.conditions or ()), 15
    )
    yield World(kube, namespace, [node], operator)
    for kind in (PLURALS["TrainingJob"], PLURALS["InferenceJob"]):
        custom.delete_collection_namespaced_custom_object(GROUP, VERSION, namespace, kind)


@pytest.fixture(scope="session")
def observer(kube: client.ApiClient) -> Iterator[Observer]:
    """One observer for the whole session, so that it sees every object from its beginning."""
    with observing(kube) as made:
        yield made


@pytest.fixture
def audited(observer: Observer) -> Iterator[None]:
    """An independent observer watches through the test: limits, records before pods, nothing doubled, nothing back."""
    before, known = observer.audit.seen.total(), set(observer.audit.violations())
    yield
    time.sleep(0.2)  # the last events
    assert observer.watching
    assert observer.audit.seen.total() > before
    assert [broken for broken in observer.audit.violations() if broken not in known] == []
