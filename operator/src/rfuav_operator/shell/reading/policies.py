"""What administrators set for others, as the core's values: namespaces, priority classes and resource quotas."""

from collections.abc import Mapping

import msgspec

from rfuav_kube.objects import Bare, Meta, Wire, words
from rfuav_operator.core.model import Namespace, PriorityClass, ResourceQuota
from rfuav_operator.core.queue.quotas import HONOURED


def namespace(read: Bare, unreadable: str = "") -> Namespace:
    """A Namespace."""
    return Namespace(name=read.metadata.name, labels=read.metadata.labels or {}, unreadable=unreadable)


class PriorityClassObject(Wire, frozen=True):
    """A PriorityClass."""

    metadata: Meta
    value: int = 0


def priority_class(read: PriorityClassObject, unreadable: str = "") -> PriorityClass:
    """A PriorityClass."""
    return PriorityClass(name=read.metadata.name, value=read.value, unreadable=unreadable)


class _ResourceQuotaSpec(Wire, frozen=True):
    hard: dict[str, str] = msgspec.field(default_factory=dict)
    scopes: tuple[str, ...] | None = None
    scope_selector: msgspec.Raw | None = None


class _ResourceQuotaStatus(Wire, frozen=True):
    hard: dict[str, str] = msgspec.field(default_factory=dict)
    used: dict[str, str] = msgspec.field(default_factory=dict)


class ResourceQuotaObject(Wire, frozen=True):
    """The fields of a ResourceQuota that are read."""

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


def _amounts(quantities: Mapping[str, str]) -> dict[str, int]:
    return {key: HONOURED[key].read(text) for key, text in quantities.items() if key in HONOURED}
