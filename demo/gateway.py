"""The REST gateway of the demo, reached from this machine as clients of the old service reach theirs.

In: the cluster. Out: the gateway's address, or a DemoError if it does not have the demo's jobs as tasks.
"""

import http.client
import json
import time
import urllib.request
from typing import Any

from demo.errors import DemoError
from demo.kube import Kube

PORT = 30080  # of every node; demo/values.yaml says the same
WAIT_SECONDS = 30.0
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the node is on this machine


def address(kube: Kube) -> str:
    """Where the gateway is, as a URL."""
    addresses = kube.kubectl(
        "get", "nodes", "-o", 'jsonpath={.items[*].status.addresses[?(@.type=="InternalIP")].address}'
    )
    return f"http://{addresses.split()[0]}:{PORT}"


def check(url: str, *, trainings: int, inferences: int) -> None:
    """Wait until the gateway shows so many completed tasks; it learns of changes by a watch, moments later."""
    wanted, seen = (trainings, inferences), "no answer"
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        try:
            answer = _get(f"{url}/api/v2/tasks?status=completed")
        except (OSError, http.client.HTTPException, ValueError) as error:
            seen = f"{type(error).__name__}: {error}"
        else:
            found = answer.get("total_training"), answer.get("total_inference")
            if found == wanted:
                return
            seen = f"{found[0]} trainings and {found[1]} inferences"
        time.sleep(0.5)
    raise DemoError(
        f"the REST gateway at {url} does not show {trainings} completed trainings and {inferences} inferences: {seen}"
    )


def _get(url: str) -> dict[str, Any]:
    with _DIRECT.open(url, timeout=5) as answer:
        content: dict[str, Any] = json.loads(answer.read())
    return content
