"""What a person does at the prompt, for tests: apply, look, wait, kill.

In: a running cluster's kubeconfig. Out: objects as plain dictionaries; whatever is waited for in vain fails with the job's whole story.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster.audit import TERMINAL_JOB
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from rfuav_crds import contract
from rfuav_crds.contract import GROUP, PLURALS, VERSION

Object = dict[str, Any]
NAMESPACE = "e2e"


class Kube:
    """One cluster, seen from outside."""

    def __init__(self, kubeconfig: Path, kubectl: Path | str = "kubectl") -> None:
        self.kubeconfig = kubeconfig
        self._kubectl = str(kubectl)
        self.api = config.new_client_from_config(str(kubeconfig))
        self.core = client.CoreV1Api(self.api)
        self._custom = client.CustomObjectsApi(self.api)

    # --- as a person

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True, timeout: float = 120) -> str:
        """Run kubectl in the tests' namespace and return what it printed; fails the test with its error."""
        command = [self._kubectl, "--kubeconfig", str(self.kubeconfig), "--namespace", NAMESPACE, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=timeout)
        if check and done.returncode:
            pytest.fail(f"kubectl {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout if check else done.stdout + done.stderr

    def apply(self, *objects: Object) -> None:
        """`kubectl apply` of objects."""
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def try_apply(self, *objects: Object) -> str:
        """`kubectl apply` that may fail; returns what it said."""
        return self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects), check=False)

    def exec(self, pod: str, *command: str, timeout: float = 120) -> str:
        """What a command in a pod prints."""
        return self.kubectl("exec", pod, "--", *command, timeout=timeout)

    # --- looking

    def job(self, kind: str, name: str) -> Object:
        """A job as it is now; {} when it is not there."""
        try:
            found: Object = self._custom.get_namespaced_custom_object(GROUP, VERSION, NAMESPACE, PLURALS[kind], name)
        except ApiException as error:
            if error.status != 404:
                raise
            return {}
        return found

    def items(self, resource: str) -> list[Object]:
        """All objects of a resource in the tests' namespace."""
        return list(json.loads(self.kubectl("get", resource, "-o", "json"))["items"])

    def status(self, kind: str, name: str) -> Object:
        """A job's status; {} before the operator has written one."""
        return dict(self.job(kind, name).get("status") or {})

    def pods(self, selector: str, namespace: str = NAMESPACE) -> list[Object]:
        """Pods by label, as plain dictionaries."""
        found = self.core.list_namespaced_pod(namespace, label_selector=selector)
        return list(self.api.sanitize_for_serialization(found)["items"])

    def pods_of(self, job: str) -> list[Object]:
        """The pods of a job, the oldest attempt first."""
        pods = self.pods(f"rfuav.io/job={job}")
        return sorted(pods, key=lambda pod: int(pod["metadata"]["labels"][contract.LABEL_ATTEMPT]))

    def line(self, kind: str, name: str) -> dict[str, str]:
        """What `kubectl get` shows of a job: column -> text."""
        head, row = self.kubectl("get", PLURALS[kind], name).splitlines()
        starts = [i for i, c in enumerate(head) if c != " " and (i == 0 or head[i - 1] == " ")]
        ends = [*starts[1:], None]
        return {head[a:b].strip(): row[a:b].strip() for a, b in zip(starts, ends, strict=True)}

    # --- waiting

    def wait(self, kind: str, name: str, until: Callable[[Object], bool], *, timeout: float, what: str) -> Object:
        """The job's status once it satisfies `until`."""
        end = time.monotonic() + timeout
        while not until(status := self.status(kind, name)):
            if time.monotonic() > end:
                pytest.fail(f"{kind} {name}: {what} did not come in {timeout:.0f} s\n{self.story(kind, name)}")
            time.sleep(0.2)
        return status

    def wait_finished(self, kind: str, name: str, *, timeout: float = 180) -> Object:
        """The status of a job once it moves no more."""
        return self.wait(kind, name, lambda s: s.get("phase") in TERMINAL_JOB, timeout=timeout, what="its end")

    def wait_for(self, until: Callable[[], Any], *, timeout: float, what: str) -> Any:
        """What `until` returns once that is true."""
        end = time.monotonic() + timeout
        while not (found := until()):
            if time.monotonic() > end:
                pytest.fail(f"{what} did not come in {timeout:.0f} s")
            time.sleep(0.2)
        return found

    def story(self, kind: str, name: str) -> str:
        """All that can be said of a job: what a person would look at next."""
        parts = [
            yaml.safe_dump(self.status(kind, name)),
            self.kubectl("get", "pods", "-l", f"rfuav.io/job={name}", "-o", "wide", check=False),
            self.kubectl("get", "events", "--field-selector", f"involvedObject.name={name}", check=False),
        ]
        for pod in self.pods_of(name)[-2:]:
            parts.append(json.dumps(pod["status"].get("containerStatuses") or pod["status"], indent=1))
            parts.append(self.kubectl("logs", pod["metadata"]["name"], "--tail=15", check=False))
        operator = ("--namespace", "rfuav-system", "logs", "-l", "app.kubernetes.io/name=rfuav-operator", "--tail=20")
        return "\n".join([*parts, self.kubectl(*operator, check=False)])

    # --- harm

    def evict(self, pod: str) -> None:
        """Through the Eviction API, as a drain or an autoscaler does it."""
        eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name=pod, namespace=NAMESPACE))
        self.core.create_namespaced_pod_eviction(pod, NAMESPACE, eviction)

    def kill(self, pod: Object) -> None:
        """SIGKILL for the first process of a pod's container, which ends the container: from the host, as the kernel would."""
        for process in container_processes(pod):
            os.kill(process, signal.SIGKILL)


def container_processes(pod: Object) -> list[int]:
    """The first processes of a pod's containers, as this host counts them: those with number 1 in the container's own count.

    They are found by the container's control group alone, so that nothing else can be hit.
    """
    containers = {
        c["containerID"].rpartition("/")[2] for c in pod["status"]["containerStatuses"] if c.get("containerID")
    }
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            groups = (folder / "cgroup").read_text()
            status = (folder / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):  # gone since it was listed
            continue
        own = next((line.split()[-1] for line in status.splitlines() if line.startswith("NSpid:")), "")
        if own == "1" and any(container in groups for container in containers):
            found.append(int(folder.name))
    if not found:
        pytest.fail(f"no process of pod {pod['metadata']['name']} on this machine")
    return found
