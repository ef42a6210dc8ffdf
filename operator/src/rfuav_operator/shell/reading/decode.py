"""API objects into the values of the core: the only place that knows how Kubernetes writes pods, nodes and our kinds.

Bytes of the reflector's watches come in and are decoded partially (msgspec reads only the fields named here); bodies of
our own kinds come in as the plain dicts that kopf hands over. `core.model` values go out.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import Any, TypeVar

import msgspec
import orjson
from msgspec import Struct

from rfuav_crds import unsupported
from rfuav_crds.bounds import EARLIEST, bounded, clean
from rfuav_crds.modes import StopPolicy
from rfuav_operator.core import ranges
from rfuav_operator.core.capacity import gpus, volumes
from rfuav_operator.core.job import podspec
from rfuav_operator.core.job.podspec import CONTAINER
from rfuav_operator.core.model import (
    TOPOLOGY,
    Assignment,
    Beside,
    Claim,
    Job,
    JobSpec,
    JobStatus,
    Kind,
    Landing,
    Namespace,
    Node,
    NodeName,
    NodeTerm,
    Phase,
    Pod,
    PodPhase,
    Pool,
    PoolSpec,
    PriorityClass,
    Quota,
    QuotaSpec,
    ResourceQuota,
    Taint,
    Uid,
    Volume,
    node_label,
)
from rfuav_operator.core.names import (
    API_VERSION,
    LABEL_JOB,
    LABEL_NODE,
    LABEL_POOL,
    LABEL_SCALE_UP,
    OUTPUT_ANNOTATION,
    may_be_pod_of,
)
from rfuav_operator.core.quantity import milli, whole
from rfuav_operator.core.queue.quotas import CPU_KEYS, RESOURCE_KEYS
from rfuav_operator.core.stored import bounds, packing

GPU = "nvidia.com/gpu"
GROUP = "rfuav.io"
_KINDS = frozenset(kind.value for kind in Kind)
_USUAL_WAITS = frozenset({None, "", "ContainerCreating", "PodInitializing"})  # said of every container before it starts
_MAX_BESIDE = 8  # other containers that are told about
_STEP = re.compile(r"[.](\w+)")  # of the path in an error of msgspec
_LEFT_OUT = 16  # fields of one object
_WORDS = 300  # characters
_DIGITS = 9  # of a number in a label; no count of GPUs or of their MiB has more
_POD_PHASES = frozenset(phase.value for phase in PodPhase)


class DecodeError(ValueError):
    """An object of which not even the name can be read."""


class _Wire(Struct, rename="camel", frozen=True):
    pass


class _Owner(_Wire, frozen=True):
    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False


class Meta(_Wire, frozen=True):
    """The metadata that is read of every object."""

    name: str
    uid: str
    resource_version: str
    namespace: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    generation: int = 0
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: tuple[_Owner, ...] | None = None


class Bare(_Wire, frozen=True):
    """Any object reduced to its metadata."""

    metadata: Meta


class _Resources(_Wire, frozen=True):
    requests: dict[str, str] | None = None
    limits: dict[str, str] | None = None


class _Container(_Wire, frozen=True):
    name: str = ""
    resources: _Resources = _Resources()
    restart_policy: str | None = None


class _Requirement(_Wire, frozen=True):
    key: str
    operator: str
    values: tuple[str, ...] | None = None


class _Term(_Wire, frozen=True):
    match_fields: tuple[_Requirement, ...] | None = None


class _Terms(_Wire, frozen=True):
    node_selector_terms: tuple[_Term, ...] | None = None


class _NodeAffinity(_Wire, frozen=True):
    required: _Terms | None = msgspec.field(default=None, name="requiredDuringSchedulingIgnoredDuringExecution")


class _LabelSelector(_Wire, frozen=True):
    match_expressions: tuple[_Requirement, ...] | None = None


class _PodTerm(_Wire, frozen=True):
    label_selector: _LabelSelector | None = None


class _PodAntiAffinity(_Wire, frozen=True):
    required: tuple[_PodTerm, ...] | None = msgspec.field(
        default=None, name="requiredDuringSchedulingIgnoredDuringExecution"
    )


class _Affinity(_Wire, frozen=True):
    node_affinity: _NodeAffinity | None = None
    pod_anti_affinity: _PodAntiAffinity | None = None


class _ClaimSource(_Wire, frozen=True):
    claim_name: str


class _PodVolume(_Wire, frozen=True):
    persistent_volume_claim: _ClaimSource | None = None


class _PodSpec(_Wire, frozen=True):
    containers: tuple[_Container, ...] = ()
    init_containers: tuple[_Container, ...] | None = None
    node_name: str | None = None
    volumes: tuple[_PodVolume, ...] | None = None
    overhead: dict[str, str] | None = None
    resources: _Resources | None = None
    affinity: _Affinity | None = None
    node_selector: dict[str, str] | None = None
    resource_claims: tuple[msgspec.Raw, ...] | None = None


class _Condition(_Wire, frozen=True):
    type: str
    status: str
    last_transition_time: datetime | None = None
    message: str | None = None


class _Waiting(_Wire, frozen=True):
    reason: str | None = None
    message: str | None = None


class _Running(_Wire, frozen=True):
    started_at: datetime | None = None


class _Terminated(_Wire, frozen=True):
    exit_code: int
    reason: str | None = None
    message: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


class _ContainerState(_Wire, frozen=True):
    waiting: _Waiting | None = None
    running: _Running | None = None
    terminated: _Terminated | None = None


class _ContainerStatus(_Wire, frozen=True):
    name: str = ""
    state: _ContainerState = _ContainerState()
    last_state: _ContainerState = _ContainerState()
    started: bool | None = None
    resources: _Resources | None = None
    allocated_resources: dict[str, str] | None = None


class _PodStatus(_Wire, frozen=True):
    phase: str = "Pending"
    reason: str | None = None
    message: str | None = None
    conditions: tuple[_Condition, ...] | None = None
    container_statuses: tuple[_ContainerStatus, ...] | None = None
    init_container_statuses: tuple[_ContainerStatus, ...] | None = None
    resources: _Resources | None = None
    allocated_resources: dict[str, str] | None = None


class PodObject(_Wire, frozen=True):
    """A pod, as much of it as is read."""

    metadata: Meta
    spec: _PodSpec
    status: _PodStatus = _PodStatus()


class _NodeSpec(_Wire, frozen=True):
    unschedulable: bool = False
    taints: tuple[Taint, ...] | None = None


class _NodeStatus(_Wire, frozen=True):
    allocatable: dict[str, str] | None = None
    capacity: dict[str, str] | None = None
    conditions: tuple[_Condition, ...] | None = None


class NodeObject(_Wire, frozen=True):
    """A node, as much of it as is read."""

    metadata: Meta
    spec: _NodeSpec = _NodeSpec()
    status: _NodeStatus = _NodeStatus()


class PriorityClassObject(_Wire, frozen=True):
    """A PriorityClass."""

    metadata: Meta
    value: int = 0


R = TypeVar("R")


@cache
def _decoder(kind: type[R]) -> msgspec.json.Decoder[R]:
    return msgspec.json.Decoder(kind)


def leniently(data: bytes | msgspec.Raw, kind: type[R]) -> tuple[R, str]:
    """The object without the fields that cannot be read, and why they cannot; empty: all was read.

    Raises:
        DecodeError: what is left says too little: no name, UID or version.
    """
    decoder = _decoder(kind)  # type: ignore[arg-type]  # a type is hashable
    try:
        return decoder.decode(data), ""
    except (ValueError, RecursionError) as error:
        why = words(error)
    try:
        body = orjson.loads(bytes(data))
        for _ in range(_LEFT_OUT):
            try:
                return decoder.decode(orjson.dumps(body)), why
            except msgspec.ValidationError as error:
                body = _without(body, _STEP.findall(str(error).rpartition(" - at `$")[2])[:2])
    except (ValueError, TypeError, RecursionError) as error:
        raise DecodeError(words(error)) from error
    raise DecodeError(why)


def _without(body: Any, path: list[str]) -> Any:
    """The object without the field, or part of a field, that is at fault."""
    if not path or not isinstance(body, dict) or path[0] not in body:
        raise DecodeError("it says too little")
    section = body[path[0]]
    rest = {key: value for key, value in body.items() if key != path[0]}
    if len(path) > 1 and isinstance(section, dict) and path[1] in section:
        rest[path[0]] = {key: value for key, value in section.items() if key != path[1]}
    return rest


def words(error: BaseException) -> str:
    """What an error says, for people."""
    return clean(str(error) or type(error).__name__)[:_WORDS]


def version(meta: Meta | Mapping[str, Any]) -> int:
    """The resourceVersion as a number."""
    return int(meta.resource_version if isinstance(meta, Meta) else meta["resourceVersion"])


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
    trainer = next((c for c in status.container_statuses or () if c.name == CONTAINER), _ContainerStatus())
    state = trainer.state
    waiting, running, ended = state.waiting or _Waiting(), state.running or _Running(), state.terminated
    job_uid = _job_of(meta)
    asked = _Requests(spec, status)
    try:
        gpu_slots, cpu, memory = asked.total(GPU, whole), asked.total("cpu", milli), asked.total("memory", whole)
    except ValueError as error:
        gpu_slots = cpu = memory = 0
        unreadable = unreadable or words(error)
    return Pod(
        namespace=meta.namespace,
        name=meta.name,
        uid=Uid(meta.uid),
        kind=_kind_of(meta, labels),
        pool=labels.get(LABEL_POOL) or labels.get(LABEL_SCALE_UP) or "",
        job_name=_made_for(meta) or labels.get(LABEL_JOB, ""),
        output=(meta.annotations or {}).get(OUTPUT_ANNOTATION, ""),
        job_uid=job_uid,
        attempt=_number(labels.get(f"{GROUP}/attempt")),
        index=_number(labels.get(f"{GROUP}/rank") or labels.get(f"{GROUP}/shard")),
        node=NodeName(spec.node_name) if spec.node_name else None,
        wanted_node=_wanted_node(spec.affinity),
        landing=_landing(labels, spec),
        for_new_node=LABEL_SCALE_UP in labels,
        bars=bool(spec.node_name) and bool(labels.keys() & {LABEL_NODE, LABEL_SCALE_UP}),
        alone=node_label(spec.node_name or "") in _kept_off(labels, spec),
        phase=PodPhase(status.phase) if status.phase in _POD_PHASES else PodPhase.UNKNOWN,
        deleting=meta.deletion_timestamp is not None,
        created=_instant(meta),
        bound_at=_at(scheduled.last_transition_time) if scheduled and scheduled.status == "True" else None,
        started_at=_at(running.started_at or (ended.started_at if ended else None)),
        finished_at=_at(ended.finished_at) if ended else None,
        reason=status.reason or "",
        message=status.message or "",
        disrupted=disrupted is not None and disrupted.status == "True",
        unschedulable=(scheduled.message or "") if scheduled and scheduled.status == "False" else "",
        unschedulable_since=_at(scheduled.last_transition_time) if scheduled and scheduled.status == "False" else None,
        setting_up_since=_at(set_up.last_transition_time) if set_up and set_up.status == "False" else None,
        waiting_reason=waiting.reason or "",
        waiting_message=waiting.message or "",
        exit_code=ended.exit_code if ended else None,
        terminated_reason=(ended.reason or "") if ended else "",
        termination_message=(ended.message or "") if ended else "",
        accompanied=job_uid is not None and _accompanied(spec, status),
        beside=() if job_uid is None else tuple(_beside(spec, status))[:_MAX_BESIDE],
        gpus=gpu_slots,
        cpu_milli=cpu,
        memory_bytes=memory,
        claims=tuple(
            sorted({v.persistent_volume_claim.claim_name for v in spec.volumes or () if v.persistent_volume_claim})
        ),
        claims_devices=job_uid is None and bool(spec.resource_claims),
        unreadable=unreadable,
    )


def job_of(body: Mapping[str, Any]) -> Uid | None:
    """The job to which a pod belongs, by all that identifies it."""
    return _job_of(msgspec.convert(body["metadata"], Meta))


def _beside(spec: _PodSpec, status: _PodStatus) -> Iterator[Beside]:
    """The other containers that are in trouble, or that keep the trainer waiting: what is well is left out.

    An init container with `restartPolicy: Always` is a sidecar: it has started up when its startup probe has passed.
    """
    restarted = {c.name for c in spec.init_containers or () if c.restart_policy == "Always"}
    init = [(c, c.name not in restarted) for c in status.init_container_statuses or ()]
    for container, ends in (*init, *((c, False) for c in status.container_statuses or () if c.name != CONTAINER)):
        state = container.state
        waiting = state.waiting or _Waiting()
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


def _accompanied(spec: _PodSpec, status: _PodStatus) -> bool:
    """Whether a container beside the trainer has not ended. The kubelet itself ends those that are init containers."""
    said = {c.name: c.state.terminated is not None for c in status.container_statuses or ()}
    return not all(said.get(name) for name in {*said, *(c.name for c in spec.containers)} - {CONTAINER})


class _Requests:
    """Effective requests: what the scheduler counts for a pod.

    The larger of (a) all containers with all sidecars and (b) each init container with the sidecars started before it;
    pod-level resources replace both, overhead comes on top. Kubernetes, "Resource sharing within containers" of
    the init containers page. Where a container is resized in place, the larger of what it shall have and what it has.
    """

    def __init__(self, spec: _PodSpec, status: _PodStatus) -> None:
        self._spec = spec
        self._status = status
        known = (*(status.container_statuses or ()), *(status.init_container_statuses or ()))
        self._has = {held.name: held for held in known if held.resources or held.allocated_resources}

    def total(self, name: str, number: Callable[[str], int]) -> int:
        spec = self._spec
        overhead = number((spec.overhead or {}).get(name, "0"))
        if _asked(spec.resources, name) is not None:
            return _largest(name, number, spec.resources, self._status) + overhead
        sidecars = peak = 0
        for container in spec.init_containers or ():
            asked = self._of(container, name, number)
            if container.restart_policy == "Always":
                sidecars += asked
                peak = max(peak, sidecars)
            else:
                peak = max(peak, sidecars + asked)
        main = sum(self._of(container, name, number) for container in spec.containers)
        return max(peak, main + sidecars) + overhead

    def _of(self, container: _Container, name: str, number: Callable[[str], int]) -> int:
        return _largest(name, number, container.resources, self._has.get(container.name))


def _largest(
    name: str, number: Callable[[str], int], wanted: _Resources | None, has: _ContainerStatus | _PodStatus | None
) -> int:
    amounts = [_asked(wanted, name)]
    if has is not None:
        amounts += [_asked(has.resources, name), (has.allocated_resources or {}).get(name)]
    return max((number(amount) for amount in amounts if amount is not None), default=0)


def _asked(resources: _Resources | None, name: str) -> str | None:
    if resources is None:
        return None
    requested = (resources.requests or {}).get(name)
    return requested if requested is not None else (resources.limits or {}).get(name)


def _kind_of(meta: Meta, labels: Mapping[str, str]) -> Kind | None:
    """The kind that a pod counts as: that of the job that owns it, whatever its label says; else that of its label."""
    owners = (o for o in meta.owner_references or () if o.controller and o.api_version == API_VERSION)
    named = (*(o.kind for o in owners), labels.get(f"{GROUP}/kind"))
    return next((Kind(kind) for kind in named if kind in _KINDS), None)


def _job_of(meta: Meta) -> Uid | None:
    """The job that the pod says it belongs to, if all that a job gives to its pods agrees: owner, labels and name.

    The owner's namespace is not in the reference; `ClusterState` compares it once the job is known.
    """
    for owner in meta.owner_references or ():
        if owner.controller and owner.api_version == API_VERSION and owner.kind in _KINDS:
            labels = meta.labels or {}
            ours = may_be_pod_of(meta.name, labels, kind=owner.kind, job=owner.name, uid=owner.uid)
            return Uid(owner.uid) if ours else None
    return None


def _made_for(meta: Meta) -> str:
    """The name of the job that it was made for by its owner alone: labels may have been taken off. Empty: none."""
    owners = (o for o in meta.owner_references or () if o.controller and o.api_version == API_VERSION)
    return next((owner.name for owner in owners if owner.kind in _KINDS), "")


def _wanted_node(affinity: _Affinity | None) -> NodeName | None:
    required = affinity.node_affinity.required if affinity and affinity.node_affinity else None
    for term in (required.node_selector_terms if required else None) or ():
        for field in term.match_fields or ():
            if field.key == "metadata.name" and field.operator == "In" and field.values:
                return NodeName(field.values[0])
    return None


def _landing(labels: Mapping[str, str], spec: _PodSpec) -> Landing | None:
    """Where it may land, if it waits for a node to come."""
    pool = labels.get(LABEL_SCALE_UP)
    if pool is None or spec.node_name or _wanted_node(spec.affinity):
        return None
    selector = tuple(sorted((spec.node_selector or {}).items()))
    return Landing(pool=pool, selector=selector, barred=_kept_off(labels, spec))


def _kept_off(labels: Mapping[str, str], spec: _PodSpec) -> frozenset[str]:
    """Labels of the nodes that a pod which waits for a new one keeps off while pods of ours are there."""
    if LABEL_SCALE_UP not in labels or spec.affinity is None or spec.affinity.pod_anti_affinity is None:
        return frozenset()
    return frozenset(
        value
        for term in spec.affinity.pod_anti_affinity.required or ()
        for one in (term.label_selector.match_expressions if term.label_selector else None) or ()
        if one.key == LABEL_NODE and one.operator == "In"
        for value in one.values or ()
    )


def _number(label: str | None) -> int:
    return int(label) if label and label.isdecimal() and len(label) <= _DIGITS else 0


def _at(instant: datetime | None) -> datetime | None:
    return None if instant is None else bounded(instant)


def _instant(meta: Meta) -> datetime:
    return EARLIEST if meta.creation_timestamp is None else bounded(meta.creation_timestamp)


def node(read: NodeObject, unreadable: str = "") -> Node:
    """A node with its GPUs; resources that this operator does not hand out are told in `gpu_problem`.

    One of which something cannot be read stays known, and offers nothing.
    """
    try:
        if not unreadable:
            return _node(read)
    except ValueError as error:
        unreadable = words(error)
    return Node(
        name=NodeName(read.metadata.name),
        labels=read.metadata.labels or {},
        ready=_is_ready(read),
        unschedulable=read.spec.unschedulable,
        deleting=read.metadata.deletion_timestamp is not None,
        taints=read.spec.taints or (),
        pods=0,
        unreadable=unreadable,
    )


def _is_ready(read: NodeObject) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in read.status.conditions or ())


def _node(read: NodeObject) -> Node:
    labels = read.metadata.labels or {}
    room = read.status.allocatable or {}
    slots = whole(room.get(GPU, "0"))
    capacity = max(slots, whole((read.status.capacity or {}).get(GPU, "0")))
    found = gpus.known(labels, slots=slots, capacity=capacity)
    return Node(
        name=NodeName(read.metadata.name),
        labels=labels,
        ready=_is_ready(read),
        unschedulable=read.spec.unschedulable,
        deleting=read.metadata.deletion_timestamp is not None,
        taints=read.spec.taints or (),
        gpu_capacity=capacity,
        gpu_slots=slots,
        gpus=found.healthy,
        gpu_replicas=found.replicas,
        gpu_memory_mib=found.memory_mib,
        gpu_unknown=found.unknown,
        gpu_problem=_gpu_problem(room),
        cpu_milli=milli(room.get("cpu", "0")),
        memory_bytes=whole(room.get("memory", "0")),
        pods=whole(room.get("pods", "0")),
        created=_at(read.metadata.creation_timestamp),
    )


def _gpu_problem(room: Mapping[str, str]) -> str:
    others = sorted(k for k, v in room.items() if k != GPU and k.startswith("nvidia.com/") and whole(v) > 0)
    if not others:
        return ""
    if any("/mig-" in name for name in others):
        return f"it offers MIG devices ({', '.join(others)}); use the device plugin's `single` MIG strategy or no MIG"
    if any(name.startswith(f"{GPU}.") for name in others):
        return (
            f"its GPUs are renamed ({', '.join(others)}); set renameByDefault: false in the time-slicing configuration"
        )
    return ""


def namespace(read: Bare, unreadable: str = "") -> Namespace:
    """A Namespace."""
    return Namespace(name=read.metadata.name, labels=read.metadata.labels or {}, unreadable=unreadable)


def priority_class(read: PriorityClassObject, unreadable: str = "") -> PriorityClass:
    """A PriorityClass."""
    return PriorityClass(name=read.metadata.name, value=read.value, unreadable=unreadable)


def job(kind: Kind, body: Mapping[str, Any], known: JobStatus | None = None) -> Job:
    """A TrainingJob or InferenceJob. What cannot be read of its spec is a problem of the job; else it is set aside.

    Args:
        kind: which of the two.
        body: as the API server shows it.
        known: the status that was just written; it is kept where it is what is stored now, which may be less.

    Raises:
        DecodeError: not even its name, UID and version can be read.
    """
    meta, unreadable = _meta(body)
    spec, problem = _spec(body)
    decoded, problems = _flags_of(spec), [problem]
    if not problem:
        try:
            problems = unsupported(spec, kind.value)
            decoded = msgspec.convert(spec, JobSpec)
            bounds.check_spec(spec, kind)
            orjson.dumps(spec)  # the pod gets it so
            problems += podspec.too_long(spec)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            decoded, problems = _flags_of(spec), [f"spec cannot be read: {words(error)}"]
    status, stored, lost = _status(body.get("status"), known)
    return Job(
        kind=kind,
        namespace=meta.namespace,
        name=meta.name,
        uid=Uid(meta.uid),
        resource_version=meta.resource_version,
        generation=meta.generation,
        created=_instant(meta),
        deleting=meta.deletion_timestamp is not None,
        spec=decoded,
        raw_spec=spec,
        status=status,
        stored=stored,
        problems=tuple(problems),
        claims=volumes.named_in(spec),
        set_aside=unreadable or lost,
    )


def _meta(body: Mapping[str, Any]) -> tuple[Meta, str]:
    try:
        return msgspec.convert(body["metadata"], Meta), ""
    except (ValueError, LookupError):
        try:
            read, why = leniently(orjson.dumps({"metadata": body.get("metadata")}), Bare)
        except TypeError as error:
            raise DecodeError(words(error)) from error
    return read.metadata, why


def _spec(body: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """The spec, and why it is none."""
    spec = body.get("spec") or {}
    return (spec, "") if isinstance(spec, Mapping) else ({}, "spec cannot be read: it is no object")


def _status(written: Any, known: JobStatus | None) -> tuple[JobStatus, Mapping[str, Any] | None, str]:
    """A job's status, what is stored where that is written otherwise, and why not all of it can be read.

    Of one that cannot be read, what can be is kept: the room that is recorded in it is held.
    """
    written = written or {}
    plain = fits = bounds.stored(written)
    try:
        if (plain := packing.unpack(fits)) is not fits:
            plain = bounds.stored(plain)
        status = msgspec.convert(plain, JobStatus)
        if known is not None and plain is not fits and packing.pack(known) == written:
            status = known
        ranges.parse(status.shards.completed if status.shards else "")
    except (ValueError, RecursionError, AttributeError) as error:
        return _readable(plain), None, f"status cannot be read: {words(error)}"
    return status, None if plain is written else written, ""


def _readable(written: Any) -> JobStatus:
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(JobStatus) if isinstance(written, Mapping) else ():
        value = written.get(field.encode_name)
        if field.name == "assignments" and isinstance(value, list):
            found[field.name] = tuple(a for one in value for a in _converted(one, Assignment))
        elif value is not None and field.name != "shards":
            found.update((field.name, read) for read in _converted(value, field.type))
    if found.get("assignments"):
        found.setdefault("phase", Phase.ADMITTED)  # it holds their room
    return JobStatus(**found)


def _converted(value: Any, kind: Any) -> list[Any]:
    """The value in a list; nothing if it cannot be read."""
    try:
        return [msgspec.convert(value, kind)]
    except ValueError:
        return []


def _flags_of(spec: Mapping[str, Any]) -> JobSpec:
    """What a job whose spec cannot be read still obeys."""
    named = str(spec.get("pool") or "default")
    return JobSpec(pool=named, suspend=spec.get("suspend") is True, cancel=spec.get("cancel") is True)


def pool(body: Mapping[str, Any]) -> Pool:
    """A GPUPool. One whose spec cannot be read admits nothing: a limit that is not understood is not ignored.

    Raises:
        DecodeError: not even its name, UID and version can be read.
    """
    meta, _ = _meta(body)
    spec, problem = _spec(body)
    decoded, problems = _nodes_of(spec), [problem]
    if not problem:
        try:
            problems = unsupported(spec, "GPUPool")
            decoded = msgspec.convert(spec, PoolSpec)
            bounds.check_pool(spec)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            problem = f"spec cannot be read: {words(error)}"
            decoded, problems = _nodes_of(spec), [problem]
    return Pool(
        name=meta.name,
        uid=Uid(meta.uid),
        resource_version=meta.resource_version,
        generation=meta.generation,
        spec=decoded,
        status=_object(body.get("status")),
        problems=tuple(problems),
        unreadable=problem,
    )


def _nodes_of(spec: Mapping[str, Any]) -> PoolSpec:
    """What a pool whose spec cannot be read still is: its nodes are no other pool's, and take nothing new."""
    try:
        selector = msgspec.convert(spec.get("nodeSelector") or {}, dict[str, str])
    except msgspec.ValidationError:
        selector = {}
    return PoolSpec(stop_policy=StopPolicy.HOLD, node_selector=selector)


def quota(body: Mapping[str, Any]) -> Quota:
    """A GPUQuota. One that cannot be read holds its namespace: a limit that is not understood is not ignored.

    Raises:
        DecodeError: not even its name, UID and version can be read.
    """
    meta, _ = _meta(body)
    spec, problem = _spec(body)
    decoded = QuotaSpec(stop_policy=StopPolicy.HOLD)
    if not problem:
        try:
            decoded = msgspec.convert(spec, QuotaSpec)
            bounds.check_quota(spec)
        except ValueError as error:
            problem, decoded = f"spec cannot be read: {words(error)}", QuotaSpec(stop_policy=StopPolicy.HOLD)
    return Quota(
        namespace=meta.namespace,
        uid=Uid(meta.uid),
        resource_version=meta.resource_version,
        generation=meta.generation,
        spec=decoded,
        status=_object(body.get("status")),
        unreadable=problem,
    )


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


class _ResourceQuotaSpec(_Wire, frozen=True):
    hard: dict[str, str] = {}
    scopes: tuple[str, ...] | None = None
    scope_selector: msgspec.Raw | None = None


class _ResourceQuotaStatus(_Wire, frozen=True):
    hard: dict[str, str] = {}
    used: dict[str, str] = {}


class ResourceQuotaObject(_Wire, frozen=True):
    """What is read of a ResourceQuota."""

    metadata: Meta
    spec: _ResourceQuotaSpec = _ResourceQuotaSpec()
    status: _ResourceQuotaStatus = _ResourceQuotaStatus()


def resource_quota(read: ResourceQuotaObject, unreadable: str = "") -> ResourceQuota:
    """A ResourceQuota, with what admission honours of it; one with scopes is left to the API server."""
    scoped = bool(read.spec.scopes) or read.spec.scope_selector is not None
    try:
        wanted, known = _amounts(read.spec.hard), _amounts(read.status.hard)  # the same, but for a moment
        hard = {} if scoped else {key: min(wanted.get(key, most), most) for key, most in (wanted | known).items()}
        used = {key: amount for key, amount in _amounts(read.status.used).items() if key in hard}
    except ValueError as error:
        hard = used = {}
        unreadable = unreadable or words(error)
    return ResourceQuota(
        namespace=read.metadata.namespace, name=read.metadata.name, hard=hard, used=used, unreadable=unreadable
    )


class _ClaimSpec(_Wire, frozen=True):
    volume_name: str | None = None
    access_modes: tuple[str, ...] | None = None


class _ClaimStatus(_Wire, frozen=True):
    phase: str = "Pending"
    access_modes: tuple[str, ...] | None = None


class ClaimObject(_Wire, frozen=True):
    """What is read of a PersistentVolumeClaim."""

    metadata: Meta
    spec: _ClaimSpec = _ClaimSpec()
    status: _ClaimStatus = _ClaimStatus()


def claim(read: ClaimObject, unreadable: str = "") -> Claim:
    """A PersistentVolumeClaim. Its modes are those of the volume that it is bound to, else those that it asks for."""
    asked = read.spec.access_modes or ()
    modes = asked if "ReadWriteOncePod" in asked else read.status.access_modes or asked
    return Claim(
        namespace=read.metadata.namespace,
        name=read.metadata.name,
        volume=read.spec.volume_name or "",
        phase=read.status.phase,
        modes=frozenset(modes),
        deleting=read.metadata.deletion_timestamp is not None,
        unreadable=unreadable,
    )


class _VolumeTerms(_Wire, frozen=True):
    node_selector_terms: tuple[NodeTerm, ...] = ()


class _VolumeAffinity(_Wire, frozen=True):
    required: _VolumeTerms | None = None


class _VolumeSpec(_Wire, frozen=True):
    node_affinity: _VolumeAffinity | None = None


class VolumeObject(_Wire, frozen=True):
    """What is read of a PersistentVolume."""

    metadata: Meta
    spec: _VolumeSpec = _VolumeSpec()


def volume(read: VolumeObject, unreadable: str = "") -> Volume:
    """A PersistentVolume, with its node affinity and its zone labels: `a__b` means either."""
    labels, affinity = read.metadata.labels or {}, read.spec.node_affinity
    required = affinity.required if affinity is not None else None
    zones = {key: labels.get(key) or labels.get(old) for key, old in TOPOLOGY.items()}
    return Volume(
        name=read.metadata.name,
        terms=None if required is None else required.node_selector_terms,
        zones=tuple((key, frozenset(value.split("__"))) for key, value in zones.items() if value),
        unreadable=unreadable,
    )


def _amounts(quantities: Mapping[str, str]) -> dict[str, int]:
    return {
        key: milli(text) if key in CPU_KEYS else whole(text) for key, text in quantities.items() if key in RESOURCE_KEYS
    }


def keys(items: Iterable[Bare]) -> list[tuple[str, str]]:
    """(namespace, name) of objects of which only the metadata was read."""
    return [(item.metadata.namespace, item.metadata.name) for item in items]
