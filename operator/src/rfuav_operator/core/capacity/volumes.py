"""What a job's volumes ask of a node, and why they keep it from running.

The claims that a job names, and what the API server says of them, come in; the job's shape with the volumes that not
every node can mount, or the reason to wait, goes out. A claim that is not bound yet and waits for its first pod asks
nothing: the scheduler and the provisioner make its volume where the pod is.
"""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from rfuav_operator.core.capacity import room
from rfuav_operator.core.capacity.room import Shape
from rfuav_operator.core.model import Claim, Job, Kind, Snapshot, Volume

_PVC = "pvc://"


def named_in(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """The claims that a job's spec names, in its URIs and in the volumes of podTemplate."""
    found = set(claims_in_uris(spec))
    volumes = _in(spec, "podTemplate", "volumes")
    for volume in volumes if isinstance(volumes, list | tuple) else ():
        name = _in(volume, "persistentVolumeClaim", "claimName")
        if name and isinstance(name, str):
            found.add(name)
    return tuple(sorted(found))


def claims_in_uris(spec: Mapping[str, Any]) -> dict[str, bool]:
    """The claims that the URIs of a spec name, sorted: claim -> whether the pod writes to it (`output`)."""
    found: dict[str, bool] = {}
    left = [(value, key == "output") for key, value in spec.items() if key != "podTemplate"]
    while left:  # however deep the spec is
        value, writes = left.pop()
        if isinstance(value, str) and value.startswith(_PVC):
            claim = value.removeprefix(_PVC).partition("/")[0]
            if claim:
                found[claim] = found.get(claim, False) or writes
        elif isinstance(value, Mapping):
            left += [(item, writes) for item in value.values()]
        elif isinstance(value, list | tuple):
            left += [(item, writes) for item in value]
    return dict(sorted(found.items()))


def _in(value: Any, *path: str) -> Any:
    """The value at the path, if every step is an object: a spec that cannot be read has claims too."""
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def claims_of(job: Job) -> tuple[str, ...]:
    """The claims that the job's pods mount: those of its spec, and where the weights of its source are."""
    if job.status.source is None:
        return job.claims
    more = claims_in_uris({"weights": job.status.source.weights})
    return job.claims if more.keys() <= set(job.claims) else tuple(sorted({*job.claims, *more}))


def shape_of(job: Job, snapshot: Snapshot) -> Shape:
    """The shape of a job's pods, with what its volumes ask of a node."""
    shape, claims = room.shape_of(job), _known(job, snapshot)
    single = tuple(f"{claim.namespace}/{claim.name}" for claim in claims if claim.is_of_one_node)
    volumes = tuple(v for v in (_volume(claim, snapshot) for claim in claims) if v is not None and not v.is_anywhere)
    return replace(shape, volumes=volumes, single=single) if volumes or single else shape


def waits(job: Job, snapshot: Snapshot) -> str:
    """Why the job's volumes keep it from running on any node; empty: they do not."""
    for name in claims_of(job):
        claim = snapshot.claims.get((job.namespace, name))
        if claim is None:
            return f"waits for PersistentVolumeClaim {name}, which does not exist in namespace {job.namespace} (yet)"
        volume = snapshot.volumes.get(claim.volume)
        if unreadable := claim.unreadable or (volume.unreadable if volume is not None else ""):
            return f"waits until PersistentVolumeClaim {name} and its volume can be read: {unreadable}"
        if claim.deleting:
            return f"PersistentVolumeClaim {name} is being deleted; waits until it is created again"
        if claim.phase == "Lost":
            return f"PersistentVolumeClaim {name} has lost its PersistentVolume {claim.volume}: create the claim again"
        if claim.volume and claim.volume not in snapshot.volumes:
            return f"waits for PersistentVolume {claim.volume} of claim {name}, which does not exist (yet)"
        if claim.is_of_one_node and job.kind is Kind.TRAINING and job.spec.nodes > 1:
            mode, nodes = ", ".join(sorted(claim.modes)), job.spec.nodes
            text = f"PersistentVolumeClaim {name} is {mode}: one node can mount it, and spec.nodes is {nodes}"
            return f"{text}; use a claim with ReadWriteMany"
    return ""


def _known(job: Job, snapshot: Snapshot) -> list[Claim]:
    found = (snapshot.claims.get((job.namespace, name)) for name in claims_of(job))
    return [claim for claim in found if claim is not None]


def _volume(claim: Claim, snapshot: Snapshot) -> Volume | None:
    return snapshot.volumes.get(claim.volume) if claim.volume else None
