"""The whole cluster as the operator's core sees it: nodes, pods, pools, quotas, volumes, and jobs that have not ended.

The operator's own readers fill it. Two kinds of object are left out, because they hold nothing and may be very many:
jobs that have ended, and pods that have.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import orjson

from rfuav_crds.contract import API_VERSION, PLURALS
from rfuav_gateway.tasks import devices
from rfuav_gateway.tasks.devices import Fleet
from rfuav_kube import clock, paths
from rfuav_kube.cache import Cache
from rfuav_kube.connection import Connection
from rfuav_kube.objects import Meta, Wire
from rfuav_kube.reflector import Reflector
from rfuav_operator.core.guidance import checklist
from rfuav_operator.core.guidance.checklist import POOL as POOL_UNREAD
from rfuav_operator.core.guidance.checklist import QUOTA as QUOTA_UNREAD
from rfuav_operator.core.guidance.checklist import Step
from rfuav_operator.core.model import Defaults, Job, Kind, Phase, Snapshot
from rfuav_operator.shell.kinds import POOL, QUOTA
from rfuav_operator.shell.reading import ingest, ours
from rfuav_operator.shell.reading.state import ClusterState
from rfuav_operator.shell.reading.watched import watched

FLEET_SECONDS = 1.0
LIVE_PODS = f"{paths.PODS}?fieldSelector=status.phase!=Succeeded,status.phase!=Failed"
# The gateway does not know the operator's settings. The image is of no account: nothing is created from what it plans.
DEFAULTS = Defaults(image="the-operators-own")


class OurObject(Wire, frozen=True):
    """An object of one of our kinds, its parts not decoded yet."""

    metadata: Meta
    spec: msgspec.Raw = msgspec.Raw(b"{}")
    status: msgspec.Raw = msgspec.Raw(b"{}")

    def body(self) -> Mapping[str, Any]:
        """The object as the operator's readers take it."""
        return {"metadata": self.metadata, "spec": _read(self.spec), "status": _read(self.status)}


def _read(part: msgspec.Raw) -> Any:
    return orjson.loads(memoryview(part))


class Packed(Mapping[str, Any]):
    """A spec as JSON: it is read rarely, and its dicts would take most of a job's memory."""

    __slots__ = ("_json",)

    def __init__(self, json: bytes) -> None:
        self._json = json

    def _spec(self) -> dict[str, Any]:
        spec = orjson.loads(self._json)
        return spec if isinstance(spec, dict) else {}

    def __getitem__(self, key: str) -> Any:
        return self._spec()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._spec())

    def __len__(self) -> int:
        return len(self._spec())

    def __eq__(self, other: object) -> bool:
        return self._spec() == (other._spec() if isinstance(other, Packed) else other)

    def __hash__(self) -> int:
        return hash(self._json)


class _Phase(Wire, frozen=True):
    phase: str | None = None


_phase = msgspec.json.Decoder(_Phase)
_ENDED = frozenset(phase.value for phase in Phase if phase.terminal)


def _has_ended(read: OurObject) -> bool:
    try:
        return _phase.decode(read.status).phase in _ENDED
    except msgspec.MsgspecError:  # a null, or nonsense: the reader says so
        return False


class Whole:
    """What the API server holds, as far as it matters to what starts next."""

    def __init__(self) -> None:
        self._state = ClusterState(DEFAULTS, on_dirt=self._forget)
        self._reflectors: list[Reflector[Any, Any, Any]] = []
        self._followers: list[Callable[[], None]] = []
        self._fleets: dict[str, tuple[float, asyncio.Future[Fleet]]] = {}

    def _forget(self) -> None:
        """Nobody acts on what changed: the marks would pile up."""
        self._state.take_dirt()
        for changed in self._followers:
            changed()

    def follow(self, changed: Callable[[], None]) -> None:
        """Call this whenever something changes, from now on."""
        self._followers.append(changed)

    def checklist(self, kind: Kind, body: Mapping[str, Any], *, pools: bool, quota: bool) -> tuple[Step, ...]:
        """What stands between a job and its GPUs, or how it goes.

        Args:
            kind: of the job.
            body: the job, as the API server has it.
            pools: whether GPUPools may be told of.
            quota: whether its namespace's GPUQuota may be told of.
        """
        job, state = ours.job(kind, body), self._state
        known = {POOL_UNREAD: pools and self.synced, QUOTA_UNREAD: quota and self.synced}
        return checklist.checklist(
            job,
            pool=state.pools.get(job.spec.pool) if known[POOL_UNREAD] else None,
            quota=state.quotas.get(job.namespace) if known[QUOTA_UNREAD] else None,
            now=clock.now(),
            unread=[name for name, is_known in known.items() if not is_known],
        )

    def quota_namespaces(self) -> set[str]:
        """The namespaces that have a GPUQuota."""
        return set(self._state.quotas)

    def priority(self, named: str) -> int | None:
        """The value of a PriorityClass; None: there is none of this name."""
        found = self._state.priority_classes.get(named)
        return None if found is None or found.unreadable else found.value

    def reflectors(self, connection: Connection) -> list[Reflector[Any, Any, Any]]:
        """What fills it, not running yet."""
        state = self._state
        self._reflectors = [
            *(_jobs(connection, kind, state) for kind in Kind),
            _limits(connection, POOL, state.pools, lambda body: ingest.read_pool(state, body), lambda meta: meta.name),
            _limits(
                connection,
                QUOTA,
                state.quotas,
                lambda body: ingest.read_quota(state, body),
                lambda meta: meta.namespace,
            ),
            *(
                Reflector(
                    connection,
                    LIVE_PODS if row.path == paths.PODS else row.path,
                    row.cache,
                    read=row.read,
                    key=row.key,
                    value=row.value,
                )
                for row in watched(state)
            ),
        ]
        return self._reflectors

    @property
    def synced(self) -> bool:
        """Whether all of it has been read once."""
        return bool(self._reflectors) and all(reflector.synced.is_set() for reflector in self._reflectors)

    async def fleet(self, pool: str) -> Fleet:
        """The devices of a pool, as they were at most a second ago; found out in a thread, for all who ask."""
        held = self._fleets.get(pool)
        if held is None or clock.monotonic() >= held[0]:
            found = asyncio.ensure_future(asyncio.to_thread(devices.fleet, self.copy(), pool))
            held = self._fleets[pool] = clock.monotonic() + FLEET_SECONDS, found
        return await asyncio.shield(held[1])

    def take_pool(self, body: Mapping[str, Any]) -> None:
        """Take in a GPUPool as an answer shows it: what is asked next knows it."""
        ingest.pool(self._state, body)
        self._fleets.clear()

    def copy(self) -> Snapshot:
        """The present state; nothing changes it any more, so that a thread may read it."""
        live = self._state.snapshot()
        return msgspec.structs.replace(
            live,
            jobs=dict(live.jobs),
            pods_of={uid: dict(pods) for uid, pods in live.pods_of.items()},
            foreign=dict(live.foreign),
            made_for={key: dict(pods) for key, pods in live.made_for.items()},
            nodes=dict(live.nodes),
            pools=dict(live.pools),
            quotas=dict(live.quotas),
            resource_quotas={namespace: dict(held) for namespace, held in live.resource_quotas.items()},
            priority_classes=dict(live.priority_classes),
            namespaces=dict(live.namespaces),
            claims=dict(live.claims),
            volumes=dict(live.volumes),
            gone=dict(live.gone),
        )


def _path(kind: str) -> str:
    return f"/apis/{API_VERSION}/{PLURALS[kind]}"


def _jobs(connection: Connection, kind: Kind, state: ClusterState) -> Reflector[Any, Any, Any]:
    def value(read: OurObject, _why: str) -> Job | None:
        if _has_ended(read):
            return None
        job = ingest.read_job(state, kind, read.body())
        spec = job.raw_spec if isinstance(job.raw_spec, Packed) else Packed(bytes(memoryview(read.spec)))
        return msgspec.structs.replace(job, raw_spec=spec)

    return Reflector(
        connection,
        _path(kind),
        state.jobs.part(lambda key: key[0] is kind),
        read=OurObject,
        key=lambda read: (kind, read.metadata.namespace, read.metadata.name),
        value=value,
    )


def _limits(
    connection: Connection,
    kind: str,
    cache: Cache[Any, Any],
    value: Callable[[Mapping[str, Any]], Any],
    key: Callable[[Meta], str],
) -> Reflector[Any, Any, Any]:
    return Reflector(
        connection,
        _path(kind),
        cache,
        read=OurObject,
        key=lambda read: key(read.metadata),
        value=lambda read, _why: value(read.body()),
    )
