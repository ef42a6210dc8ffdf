"""One job in full: its manifest as one would apply it, its status with advice, and what to type to see the same.

In: a job as the API server has it. Out: plain values.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from rfuav_crds import contract
from rfuav_crds.contract import API_VERSION
from rfuav_gateway.tasks.bodies import TaskType
from rfuav_gateway.tasks.identity import KINDS
from rfuav_operator.core.guidance.advice import advice

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
OWN = frozenset(
    (
        LAST_APPLIED,
        contract.ANNOTATION_TASK_ID,
        contract.ANNOTATION_TASK_DIGEST,
        contract.ANNOTATION_CREATED_BY,
        contract.ANNOTATION_CANCELLED_BY,
    )
)
"""Annotations that say what happened to one job: a copy does not have them."""
MOST_EVENTS = 100
MOST_PODS = 8  # whose events are asked for
_RESULTS = "results"  # they have a call of their own


def manifest(kind: TaskType, body: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a job, without what the cluster added."""
    found = body.get("metadata") or {}
    metadata: dict[str, Any] = {"name": found.get("name"), "namespace": found.get("namespace")}
    annotations = {name: text for name, text in (found.get("annotations") or {}).items() if name not in OWN}
    if labels := found.get("labels"):
        metadata["labels"] = labels
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": API_VERSION, "kind": KINDS[kind], "metadata": metadata, "spec": body.get("spec") or {}}


def status(body: Mapping[str, Any]) -> dict[str, Any]:
    """The status as it is stored; each failure says what to do about it."""
    found = {name: value for name, value in (body.get("status") or {}).items() if name != _RESULTS}
    if failures := found.get("failures"):
        found["failures"] = [{**one, "advice": advice(str(one.get("reason") or ""))} for one in failures]
    if found.get("phase") == "Failed":
        found["advice"] = advice(str(found.get("reason") or ""))
    return found


def kubectl(kind: TaskType, namespace: str, name: str) -> list[str]:
    """Commands that show the same, for those who have the rights of the caller."""
    of = KINDS[kind].lower()
    return [
        f"kubectl get {of} {name} -n {namespace} -o yaml",
        f"kubectl describe {of} {name} -n {namespace}",
        f"kubectl logs -n {namespace} -l {contract.LABEL_JOB}={name},{contract.LABEL_KIND}={KINDS[kind]} --prefix",
        f"kubectl rfuav why {kind}/{name} -n {namespace}",
    ]


def pods(body: Mapping[str, Any]) -> list[str]:
    """Pods of the job that may have events: those it has now, then those that failed last."""
    found = body.get("status") or {}
    named = [one.get("pod") for one in (*(found.get("assignments") or ()), *reversed(found.get("failures") or ()))]
    return [str(name) for name in dict.fromkeys(named) if name][:MOST_PODS]


def events(found: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Events as the page shows them, the newest first; those that cannot be read are left out."""
    shown = [_event(one) for one in found if isinstance(one, Mapping)]
    return sorted(shown, key=lambda one: str(one["time"] or ""), reverse=True)[:MOST_EVENTS]


def _event(one: Mapping[str, Any]) -> dict[str, Any]:
    about, series = one.get("involvedObject") or {}, one.get("series") or {}
    at = series.get("lastObservedTime") or one.get("lastTimestamp") or one.get("eventTime")
    return {
        "time": at or (one.get("metadata") or {}).get("creationTimestamp"),
        "type": str(one.get("type") or "Normal"),
        "reason": str(one.get("reason") or ""),
        "message": str(one.get("message") or ""),
        "object": f"{about.get('kind', '')}/{about.get('name', '')}",
        "count": int(series.get("count") or one.get("count") or 1),
    }
