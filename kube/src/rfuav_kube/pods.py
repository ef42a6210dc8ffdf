"""Pods as the API server has them, as much of them as is read, and what the scheduler counts for one."""

from collections.abc import Callable
from datetime import datetime

import msgspec

from rfuav_kube.objects import Condition, Meta, Wire


class Resources(Wire, frozen=True):
    """What a container asks for, or has."""

    requests: dict[str, str] | None = None
    limits: dict[str, str] | None = None


class Container(Wire, frozen=True):
    """A container as it is wanted."""

    name: str = ""
    resources: Resources = Resources()
    restart_policy: str | None = None


class _Requirement(Wire, frozen=True):
    key: str
    operator: str
    values: tuple[str, ...] | None = None


class _Term(Wire, frozen=True):
    match_fields: tuple[_Requirement, ...] | None = None


class _Terms(Wire, frozen=True):
    node_selector_terms: tuple[_Term, ...] | None = None


class _NodeAffinity(Wire, frozen=True):
    required: _Terms | None = msgspec.field(default=None, name="requiredDuringSchedulingIgnoredDuringExecution")


class _LabelSelector(Wire, frozen=True):
    match_expressions: tuple[_Requirement, ...] | None = None


class _PodTerm(Wire, frozen=True):
    label_selector: _LabelSelector | None = None


class _PodAntiAffinity(Wire, frozen=True):
    required: tuple[_PodTerm, ...] | None = msgspec.field(
        default=None, name="requiredDuringSchedulingIgnoredDuringExecution"
    )


class Affinity(Wire, frozen=True):
    """Where a pod must go, and what it keeps off."""

    node_affinity: _NodeAffinity | None = None
    pod_anti_affinity: _PodAntiAffinity | None = None


class _ClaimSource(Wire, frozen=True):
    claim_name: str


class _PodVolume(Wire, frozen=True):
    persistent_volume_claim: _ClaimSource | None = None


class PodSpec(Wire, frozen=True):
    """A pod as it is wanted."""

    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] | None = None
    node_name: str | None = None
    volumes: tuple[_PodVolume, ...] | None = None
    overhead: dict[str, str] | None = None
    resources: Resources | None = None
    affinity: Affinity | None = None
    node_selector: dict[str, str] | None = None
    resource_claims: tuple[msgspec.Raw, ...] | None = None


class Waiting(Wire, frozen=True):
    """Why a container does not run yet."""

    reason: str | None = None
    message: str | None = None


class Running(Wire, frozen=True):
    """A container that runs."""

    started_at: datetime | None = None


class _Terminated(Wire, frozen=True):
    exit_code: int
    reason: str | None = None
    message: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


class _ContainerState(Wire, frozen=True):
    waiting: Waiting | None = None
    running: Running | None = None
    terminated: _Terminated | None = None


class ContainerStatus(Wire, frozen=True):
    """A container as it is."""

    name: str = ""
    state: _ContainerState = _ContainerState()
    last_state: _ContainerState = _ContainerState()
    started: bool | None = None
    resources: Resources | None = None
    allocated_resources: dict[str, str] | None = None


class PodStatus(Wire, frozen=True):
    """A pod as it is."""

    phase: str = "Pending"
    reason: str | None = None
    message: str | None = None
    conditions: tuple[Condition, ...] | None = None
    container_statuses: tuple[ContainerStatus, ...] | None = None
    init_container_statuses: tuple[ContainerStatus, ...] | None = None
    resources: Resources | None = None
    allocated_resources: dict[str, str] | None = None


class PodObject(Wire, frozen=True):
    """A pod, as much of it as is read."""

    metadata: Meta
    spec: PodSpec
    status: PodStatus = PodStatus()


class Requests:
    """Effective requests: what the scheduler counts for a pod.

    The larger of (a) all containers with all sidecars and (b) each init container with the sidecars started before it;
    pod-level resources replace both, overhead comes on top. Kubernetes, "Resource sharing within containers" of
    the init containers page. For a container that is resized in place, the larger of the desired and the current value.
    """

    def __init__(self, spec: PodSpec, status: PodStatus) -> None:
        self._spec = spec
        self._status = status
        known = (*(status.container_statuses or ()), *(status.init_container_statuses or ()))
        self._has = {held.name: held for held in known if held.resources or held.allocated_resources}

    def total(self, name: str, number: Callable[[str], int]) -> int:
        """How much of a resource it is; `number` reads a quantity."""
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

    def _of(self, container: Container, name: str, number: Callable[[str], int]) -> int:
        return _largest(name, number, container.resources, self._has.get(container.name))


def _largest(
    name: str, number: Callable[[str], int], wanted: Resources | None, has: ContainerStatus | PodStatus | None
) -> int:
    asked = _asked(wanted, name)
    if has is None:
        return 0 if asked is None else number(asked)
    amounts = (asked, _asked(has.resources, name), (has.allocated_resources or {}).get(name))
    return max((number(amount) for amount in amounts if amount is not None), default=0)


def _asked(resources: Resources | None, name: str) -> str | None:
    if resources is None:
        return None
    requested = (resources.requests or {}).get(name)
    return requested if requested is not None else (resources.limits or {}).get(name)
