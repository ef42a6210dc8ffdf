"""Pods, ours or foreign, as the core's values: the owner, the node or possible nodes, and the containers."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from rfuav_crds import contract
from rfuav_kube.objects import Meta, Owner, words
from rfuav_kube.pods import Affinity, ContainerStatus, PodObject, PodSpec, PodStatus, Requests, Running, Waiting
from rfuav_operator.core.model import Beside, Kind, Landing, NodeName, Pod, PodPhase, Uid, node_label
from rfuav_operator.core.names import may_be_pod_of
from rfuav_operator.core.quantity import Amounts, milli, whole
from rfuav_operator.shell.reading import instants

_KINDS = {kind.value: kind for kind in Kind}
_USUAL_WAITS = frozenset({None, "", "ContainerCreating", "PodInitializing"})  # said of every container before it starts
_LONGEST_URI = 1024  # characters, more than the CRD allows: an annotation may have 256 KiB
_MAX_BESIDE = 8  # other containers that are reported
_DIGITS = 9  # of a number in a label; no count of GPUs or of their MiB has more
_POD_PHASES = {phase.value: phase for phase in PodPhase}


def pod(read: PodObject, unreadable: str = "") -> Pod:
    """A pod, ours or foreign.

    Args:
        read: the pod.
        unreadable: why something of it was left out.
    """
    meta, spec, status = read.metadata, read.spec, read.status
    labels = meta.labels or {}
    conditions = {c.type: c for c in status.conditions or ()}
    scheduled = conditions.get("PodScheduled")
    disrupted = conditions.get("DisruptionTarget")
    set_up = conditions.get("PodReadyToStartContainers")
    trainer = next((c for c in status.container_statuses or () if c.name == contract.CONTAINER), ContainerStatus())
    state = trainer.state
    waiting, running, ended = state.waiting or Waiting(), state.running or Running(), state.terminated
    made = instants.created(meta)
    owner = _owner_of(meta)
    job_uid = _job_of(meta, owner)
    wanted, kept_off = _wanted_node(spec.affinity), _kept_off(labels, spec)
    asked = Requests(spec, status)
    try:
        requests = Amounts(
            slots=asked.total(contract.GPU, whole),
            cpu_milli=asked.total("cpu", milli),
            memory=asked.total("memory", whole),
            pods=1,
        )
    except ValueError as error:
        requests = Amounts(pods=1)
        unreadable = unreadable or words(error)
    return Pod(
        namespace=meta.namespace,
        name=meta.name,
        uid=Uid(meta.uid),
        kind=_KINDS.get(owner.kind if owner is not None else labels.get(contract.LABEL_KIND, "")),
        pool=labels.get(contract.LABEL_POOL) or labels.get(contract.LABEL_SCALE_UP) or "",
        job_name=(owner.name if owner is not None else "") or labels.get(contract.LABEL_JOB, ""),
        output=(meta.annotations or {}).get(contract.ANNOTATION_OUTPUT, "")[:_LONGEST_URI],
        job_uid=job_uid,
        attempt=_number(labels.get(contract.LABEL_ATTEMPT)),
        index=_number(labels.get(contract.LABEL_RANK) or labels.get(contract.LABEL_SHARD)),
        node=NodeName(spec.node_name) if spec.node_name else None,
        wanted_node=wanted,
        landing=None if wanted else _landing(labels, spec, kept_off),
        for_new_node=contract.LABEL_SCALE_UP in labels,
        bars=bool(spec.node_name) and bool(labels.keys() & {contract.LABEL_NODE, contract.LABEL_SCALE_UP}),
        alone=bool(kept_off) and node_label(spec.node_name or "") in kept_off,
        phase=_POD_PHASES.get(status.phase, PodPhase.UNKNOWN),
        deleting=meta.deletion_timestamp is not None,
        created=made,
        bound_at=instants.since(made, scheduled.last_transition_time)
        if scheduled and scheduled.status == "True"
        else None,
        started_at=instants.since(made, running.started_at or (ended.started_at if ended else None)),
        finished_at=instants.since(made, ended.finished_at) if ended else None,
        reason=status.reason or "",
        message=status.message or "",
        disrupted=disrupted is not None and disrupted.status == "True",
        unschedulable=(scheduled.message or "") if scheduled and scheduled.status == "False" else "",
        unschedulable_since=instants.since(made, scheduled.last_transition_time)
        if scheduled and scheduled.status == "False"
        else None,
        setting_up_since=instants.since(made, set_up.last_transition_time)
        if set_up and set_up.status == "False"
        else None,
        waiting_reason=waiting.reason or "",
        waiting_message=waiting.message or "",
        exit_code=ended.exit_code if ended else None,
        terminated_reason=(ended.reason or "") if ended else "",
        termination_message=(ended.message or "") if ended else "",
        accompanied=job_uid is not None and _accompanied(spec, status),
        beside=() if job_uid is None else tuple(_beside(spec, status))[:_MAX_BESIDE],
        requests=requests,
        claims=tuple(
            sorted({v.persistent_volume_claim.claim_name for v in spec.volumes or () if v.persistent_volume_claim})
        ),
        claims_devices=job_uid is None and bool(spec.resource_claims),
        unreadable=unreadable,
    )


def job_of(body: Mapping[str, Any]) -> Uid | None:
    """The job to which a pod belongs, by all that identifies it."""
    meta = msgspec.convert(body["metadata"], Meta)
    return _job_of(meta, _owner_of(meta))


def _beside(spec: PodSpec, status: PodStatus) -> Iterator[Beside]:
    """The other containers that fail or keep the trainer waiting; healthy ones are left out.

    An init container with `restartPolicy: Always` is a sidecar: it has started up when its startup probe has passed.
    """
    restarted = {c.name for c in spec.init_containers or () if c.restart_policy == "Always"}
    init = [(c, c.name not in restarted) for c in status.init_container_statuses or ()]
    for container, ends in (
        *init,
        *((c, False) for c in status.container_statuses or () if c.name != contract.CONTAINER),
    ):
        state = container.state
        waiting = state.waiting or Waiting()
        ended = state.terminated or (container.last_state.terminated if state.running is None else None)
        failed = ended is not None and ended.exit_code != 0
        blocks = state.running is not None and (ends or (container.name in restarted and not container.started))
        if failed or blocks or waiting.reason not in _USUAL_WAITS:
            yield Beside(
                name=container.name,
                init=ends,
                waiting_reason=waiting.reason or "",
                waiting_message=waiting.message or "",
                running=blocks,
                exit_code=ended.exit_code if ended is not None and failed else None,
                reason=(ended.reason or "") if ended is not None and failed else "",
                message=(ended.message or "") if ended is not None and failed else "",
            )


def _accompanied(spec: PodSpec, status: PodStatus) -> bool:
    """Whether a container beside the trainer has not ended. The kubelet itself ends those that are init containers."""
    said = {c.name: c.state.terminated is not None for c in status.container_statuses or ()}
    return not all(said.get(name) for name in {*said, *(c.name for c in spec.containers)} - {contract.CONTAINER})


def _owner_of(meta: Meta) -> Owner | None:
    """The job that owns the pod, by the reference alone: labels may have been taken off."""
    for owner in meta.owner_references or ():
        if owner.controller and owner.api_version == contract.API_VERSION and owner.kind in _KINDS:
            return owner
    return None


def _job_of(meta: Meta, owner: Owner | None) -> Uid | None:
    """The job that the pod says it belongs to, if all that a job gives to its pods agrees: owner, labels and name.

    The owner's namespace is not in the reference; `ClusterState` compares it once the job is known.
    """
    if owner is None:
        return None
    ours = may_be_pod_of(meta.name, meta.labels or {}, kind=owner.kind, job=owner.name, uid=owner.uid)
    return Uid(owner.uid) if ours else None


def _wanted_node(affinity: Affinity | None) -> NodeName | None:
    required = affinity.node_affinity.required if affinity and affinity.node_affinity else None
    for term in (required.node_selector_terms if required else None) or ():
        for field in term.match_fields or ():
            if field.key == "metadata.name" and field.operator == "In" and field.values:
                return NodeName(field.values[0])
    return None


def _landing(labels: Mapping[str, str], spec: PodSpec, kept_off: frozenset[str]) -> Landing | None:
    """Where it may land, if it waits for a node to come."""
    pool = labels.get(contract.LABEL_SCALE_UP)
    if pool is None or spec.node_name:
        return None
    selector = tuple(sorted((spec.node_selector or {}).items()))
    return Landing(pool=pool, selector=selector, barred=kept_off)


def _kept_off(labels: Mapping[str, str], spec: PodSpec) -> frozenset[str]:
    """Labels of the nodes that a pod for a new node avoids while our pods are there."""
    if contract.LABEL_SCALE_UP not in labels or spec.affinity is None or spec.affinity.pod_anti_affinity is None:
        return frozenset()
    return frozenset(
        value
        for term in spec.affinity.pod_anti_affinity.required or ()
        for one in (term.label_selector.match_expressions if term.label_selector else None) or ()
        if one.key == contract.LABEL_NODE and one.operator == "In"
        for value in one.values or ()
    )


def _number(label: str | None) -> int:
    return int(label) if label and label.isdecimal() and len(label) <= _DIGITS else 0
