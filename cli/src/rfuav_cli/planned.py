"""When a job would start, by the operator's own planner, on a snapshot that is read with the user's rights."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import structlog
from msgspec.structs import replace

from rfuav_cli import jobs
from rfuav_cli.failures import NOT_THERE, USAGE, Failure, Refused
from rfuav_cli.session import Session
from rfuav_crds.contract import API_VERSION
from rfuav_kube import paths
from rfuav_operator.core.guidance import previews
from rfuav_operator.core.guidance.previews import Preview
from rfuav_operator.core.model import Defaults, Job, Kind, Snapshot
from rfuav_operator.shell.kinds import POOL, QUOTA
from rfuav_operator.shell.reading import once, ours

_LIVE = f"{paths.PODS}?fieldSelector=status.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed"
_NEEDED = {paths.NODES: "nodes", paths.PODS: "pods"}
_DEFAULTS = Defaults(image="the-operators-own")  # nothing is created from what is planned
_OF_NAMESPACE = (*Kind, QUOTA)
_OURS = (*Kind, POOL, QUOTA)
_OTHERS = (
    paths.NODES,
    paths.PODS,
    paths.NAMESPACES,
    paths.RESOURCE_QUOTAS,
    paths.CLAIMS,
    paths.VOLUMES,
    paths.PRIORITY_CLASSES,
)
_IN_NAMESPACE = {paths.RESOURCE_QUOTAS: "resourcequotas", paths.CLAIMS: "persistentvolumeclaims"}


def preview(session: Session, manifest: Mapping[str, Any]) -> tuple[Preview, list[str]]:
    """What would become of a job that was created now, and what could not be read for it.

    Args:
        session: the way to the cluster.
        manifest: the job, checked.

    Raises:
        Failure: nodes, pods or pools cannot be read, or the API server would not take the job.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    ours_found, others, notes = _read(session)
    body, checked = _checked(session, manifest)
    notes += checked
    snapshot = once.snapshot(ours_found, others, _DEFAULTS)
    job = ours.job(Kind(body["kind"]), body)
    snapshot, job = _known_alone(snapshot, job, others)
    return previews.preview(snapshot, job, now=session.now, names=True), notes


def _read(session: Session) -> tuple[dict[str, list[Any]], dict[str, list[Any]], list[str]]:
    """Everything that may be read: our kinds, the others, and a line for each that is left out."""
    asked = [jobs.path(kind) for kind in _OURS] + [_LIVE if path == paths.PODS else path for path in _OTHERS]
    answers = dict(zip((*_OURS, *_OTHERS), session.lists(asked), strict=True))
    notes = []
    for what, again in _again(answers, session.namespace):
        answers[what] = session.lists([again])[0]
        if not isinstance(answers[what], Refused):
            notes.append(f"{_title(what)} of other namespaces")
    needed = [_title(what) for what in (POOL, *_NEEDED) if isinstance(answers[what], Refused)]
    if needed:
        text = f"a preview needs the {' and '.join(needed)} of the cluster, which you may not read"
        raise Failure(f"{text}: ask a gateway with --gateway URL", NOT_THERE)
    notes += [_title(what) for what, answer in answers.items() if isinstance(answer, Refused)]
    found = {what: answer for what, answer in answers.items() if not isinstance(answer, Refused)}
    ours_found = {kind: [{**b, "kind": kind} for b in found[kind] if _lives(b)] for kind in _OURS if kind in found}
    return ours_found, {path: found[path] for path in _OTHERS if path in found}, notes


def _again(answers: Mapping[str, Any], namespace: str) -> Iterable[tuple[str, str]]:
    """What is asked for again in the one namespace."""
    for what in (*_OF_NAMESPACE, *_IN_NAMESPACE):
        if isinstance(answers[what], Refused):
            at = f"/api/v1/namespaces/{namespace}/{_IN_NAMESPACE[what]}" if what in _IN_NAMESPACE else ""
            yield what, at or jobs.path(what, namespace)


def _title(what: str) -> str:
    return what if what in _OURS else what.rpartition("/")[2]


def _lives(body: Mapping[str, Any]) -> bool:
    return (body.get("status") or {}).get("phase") not in jobs.ENDED


def _checked(session: Session, manifest: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The job as the API server would have it (a dry run); by a user who may not create it, with our own defaults."""
    kind = manifest["kind"]
    metadata = {**manifest.get("metadata", {}), "namespace": session.namespace}
    name = f"{str(metadata['name'])[:30].strip('-')}-preview"
    body = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name, "namespace": session.namespace}}
    body["spec"] = manifest.get("spec")
    notes: list[str] = []
    try:
        body = session.send("POST", jobs.path(kind, session.namespace), body, dryRun="All", fieldValidation="Strict")
    except Refused as refused:
        if refused.code != NOT_THERE:
            raise Failure(str(refused), USAGE) from None
        from rfuav_crds.load import load_job  # noqa: PLC0415

        body = load_job(body).model_dump(mode="json", by_alias=True, exclude_none=True)
        notes.append("the cluster's own check of the job")
    created = session.now.strftime("%Y-%m-%dT%H:%M:%SZ")
    fresh = {"uid": "preview", "resourceVersion": "0", "generation": 1, "creationTimestamp": created}
    return {**body, "kind": kind, "metadata": {**body["metadata"], **fresh}}, notes


def _known_alone(snapshot: Snapshot, job: Job, others: Mapping[str, Any]) -> tuple[Snapshot, Job]:
    """Both without what could not be read: it would count as absent."""
    if paths.CLAIMS not in others:
        job = replace(job, claims=())
    elif paths.VOLUMES not in others:
        snapshot = replace(snapshot, claims={key: replace(claim, volume="") for key, claim in snapshot.claims.items()})
    if paths.PRIORITY_CLASSES not in others:
        job = replace(job, spec=replace(job.spec, priority_class_name=""))
    return snapshot, job
