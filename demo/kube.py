"""The cluster at the prompt: kubectl and helm as a person would call them, and lists of jobs for the live table.

In: a running cluster's kubeconfig and programs. Out: what they printed, or a DemoError with their own words.
"""

import subprocess
from pathlib import Path
from typing import Any

from kubernetes import client, config

from demo.errors import DemoError
from rfuav_crds.contract import GROUP, PLURALS, VERSION

Object = dict[str, Any]


class Kube:
    """One cluster and the namespace of the demo's jobs."""

    def __init__(self, kubeconfig: Path, namespace: str, *, kubectl: Path, helm: Path) -> None:
        self.kubeconfig = kubeconfig
        self.namespace = namespace
        self._kubectl, self._helm = str(kubectl), str(helm)
        self._custom = client.CustomObjectsApi(config.new_client_from_config(str(kubeconfig)))  # type: ignore[no-untyped-call]

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        """Run kubectl in the jobs' namespace and return what it printed."""
        command = [self._kubectl, "--kubeconfig", str(self.kubeconfig), "--namespace", self.namespace, *arguments]
        return _run(command, stdin, timeout)

    def helm(self, *arguments: str, timeout: float = 300) -> str:
        """Run helm and return what it printed."""
        return _run([self._helm, "--kubeconfig", str(self.kubeconfig), *arguments], None, timeout)

    def read(self, path: str, pod: str) -> bytes:
        """The content of a file that a pod sees."""
        arguments = ("--namespace", self.namespace, "exec", pod, "--", "cat", path)
        done = subprocess.run(
            [self._kubectl, "--kubeconfig", str(self.kubeconfig), *arguments],
            capture_output=True,
            check=False,
            timeout=60,
        )
        if done.returncode:
            raise DemoError(f"{path} cannot be read: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout

    def jobs(self) -> list[Object]:
        """The TrainingJobs and InferenceJobs of the namespace, trainings first, each kind by name."""
        found: list[Object] = []
        for kind in ("TrainingJob", "InferenceJob"):
            listed: Any = self._custom.list_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURALS[kind], _request_timeout=30
            )
            found += [{**item, "kind": kind} for item in sorted(listed["items"], key=lambda i: i["metadata"]["name"])]
        return found


def _run(command: list[str], stdin: str | None, timeout: float) -> str:
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise DemoError(f"`{_short(command)}` did not end within {timeout:.0f} s") from error
    if done.returncode:
        raise DemoError(f"`{_short(command)}` failed: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def _short(command: list[str]) -> str:
    """The command without folder and kubeconfig."""
    return " ".join([Path(command[0]).name, *command[3:]])
