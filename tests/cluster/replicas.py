"""The operator's replicas, as the end-to-end tests count, harm and heal them.

In: the installed operator. Out: its pods; which of them leads, by the Lease and by the label that sends reports to it.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from cluster.kube import Kube, container_processes

Object = dict[str, Any]
SYSTEM, DEPLOYMENT = "rfuav-system", "rfuav-operator"
SELECTOR = "app.kubernetes.io/name=rfuav-operator"


def pods(kube: Kube) -> dict[str, Object]:
    """The operator's pods that are not being deleted, by name."""
    found = kube.pods(SELECTOR, SYSTEM)
    return {pod["metadata"]["name"]: pod for pod in found if "deletionTimestamp" not in pod["metadata"]}


def scale(kube: Kube, count: int) -> None:
    """Have so many, all of them ready."""
    kube.kubectl("--namespace", SYSTEM, "scale", "deployment", DEPLOYMENT, f"--replicas={count}")
    kube.wait_for(lambda: len(ready(kube)) == len(pods(kube)) == count, timeout=60, what=f"{count} ready replicas")


def ready(kube: Kube) -> set[str]:
    """Those that are ready."""
    return {
        name
        for name, pod in pods(kube).items()
        if any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
    }


def leader(kube: Kube) -> str:
    """The name of the pod that the Lease names; empty: none."""
    return kube.kubectl("--namespace", SYSTEM, "get", "lease", DEPLOYMENT, "-o", "jsonpath={.spec.holderIdentity}")


def labelled(kube: Kube) -> list[str]:
    """The pods to which progress reports are sent."""
    return [name for name, pod in pods(kube).items() if pod["metadata"]["labels"].get("rfuav.io/leader") == "true"]


def restarts(pod: Object) -> int:
    """How often its container was started again."""
    return sum(int(container["restartCount"]) for container in pod["status"]["containerStatuses"])


def age(pod: Object) -> float:
    """Seconds since it was made."""
    made = datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
    return (datetime.now(UTC) - made).total_seconds()


@contextmanager
def stopped(pod: Object) -> Iterator[None]:
    """Its process stands still, as under a debugger or on a machine that swaps."""
    processes = container_processes(pod)
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


@contextmanager
def cut_off(kube: Kube, pod: Object) -> Iterator[None]:
    """It reaches the API server no more; the kubelet still reaches it."""
    address = kube.core.read_namespaced_service("kubernetes", "default").spec.cluster_ip
    process = container_processes(pod)[0]

    def route(verb: str) -> None:
        command = ["nsenter", "--target", str(process), "--net", "ip", "route", verb, "blackhole", f"{address}/32"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.fail(f"{' '.join(command)}: {done.stderr}")

    route("add")
    try:
        yield
    finally:
        route("del")
