"""Claims and volumes as the core's values."""

from rfuav_kube.objects import Meta, Wire
from rfuav_operator.core.model import TOPOLOGY, Claim, NodeTerm, Volume


class _ClaimSpec(Wire, frozen=True):
    volume_name: str | None = None
    access_modes: tuple[str, ...] | None = None


class _ClaimStatus(Wire, frozen=True):
    phase: str = "Pending"
    access_modes: tuple[str, ...] | None = None


class ClaimObject(Wire, frozen=True):
    """The fields of a PersistentVolumeClaim that are read."""

    metadata: Meta
    spec: _ClaimSpec = _ClaimSpec()
    status: _ClaimStatus = _ClaimStatus()


def claim(read: ClaimObject, unreadable: str = "") -> Claim:
    """A PersistentVolumeClaim. Its modes are those of its bound volume, or else the requested ones."""
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


class _VolumeTerms(Wire, frozen=True):
    node_selector_terms: tuple[NodeTerm, ...] = ()


class _VolumeAffinity(Wire, frozen=True):
    required: _VolumeTerms | None = None


class _VolumeSpec(Wire, frozen=True):
    node_affinity: _VolumeAffinity | None = None


class VolumeObject(Wire, frozen=True):
    """The fields of a PersistentVolume that are read."""

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
