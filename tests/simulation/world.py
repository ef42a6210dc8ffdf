"""Everything of one history: the clock, the server, machines, replicas of the operator, and who watches over them."""

import asyncio
import random
import traceback
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
import structlog
from simulation import invariants, resource_quotas
from simulation.api import INIT, SIDECAR, Api, Target
from simulation.autoscaler import Autoscaler
from simulation.deeds import space
from simulation.faults import Faults
from simulation.kubelet import Kubelet
from simulation.machines import Machines
from simulation.process import Replica
from simulation.scheduler import Scheduler
from simulation.script import Script, nodes_of
from simulation.server import JOBS, Change, Object, Server
from simulation.truth import Truth, knowledge, label, owner_of
from simulation.virtual import VirtualLoop

from rfuav_operator.core.model import Assignment
from rfuav_operator.settings import Settings

if TYPE_CHECKING:
    from simulation.feeds import Feed

T0 = datetime(2026, 1, 1, 12, tzinfo=UTC)
STORM, STORM_SECONDS = 400, 10.0  # so many requests within so many seconds are more than any history needs


class Chance(defaultdict[str, random.Random]):
    """Independent streams of chance by name, so that what one does not draw leaves the others as they are."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def __missing__(self, name: str) -> random.Random:
        self[name] = random.Random(f"{self._seed}/{name}")
        return self[name]


class World:
    """One history's world, before anything has happened in it."""

    def __init__(self, script: Script, loop: VirtualLoop, *, verbose: bool = False) -> None:
        self.script = script
        self.seed = script.seed
        self.loop = loop
        self.verbose = verbose
        self.chance = Chance(script.seed)
        self.lines: list[str] = []
        self.violation = ""
        self.over = False
        self.frozen = False  # nothing ends and nothing is reported
        self.healed = False  # every container succeeds
        self.registry_back = 0.0  # when images can be pulled (again)
        self.failed: asyncio.Future[None] = loop.create_future()
        self.requests = self.events = 0
        self._storm_began = -STORM_SECONDS
        self.server = Server(loop.time, self.stamp)
        self.api = Api(self.server)
        self.api.injects = self._injects
        self.api.admits = partial(resource_quotas.admit, self)
        self.faults = Faults()
        self.feeds: list[Feed] = []
        self.slow: dict[str, tuple[float, float]] = {}  # by resource: until when, and how much later
        self.clock_off = 0.0  # seconds by which the clocks of the operator's machines are wrong
        self.least_lag = script.setup["lag"]
        self.fates: dict[str, tuple[list[str], float]] = {}  # by job UID: how its attempts end, seconds of work
        self.kubelet = Kubelet(self)
        self.scheduler = Scheduler(self)
        self.autoscaler = Autoscaler(self)
        self.truth = Truth(self)
        self.machines = Machines(self, nodes_of(script.setup))
        self.server.observers.append(self._committed)
        self.truth.requests.append(self._requested)
        self.replicas = [
            Replica(self, f"op-{index}", self.settings(f"op-{index}")) for index in range(script.setup["replicas"])
        ]

    def settings(self, identity: str) -> Settings:
        """The operator's settings in this history."""
        setup = self.script.setup
        return Settings.model_validate(
            {
                "namespace": self.release_of(identity),
                "jobs": {"image": "trainer:1"},
                "retries": setup["retries"],
                "progress": {"enabled": False},
                "leader": {"identity": identity, "leaseSeconds": setup["leaseSeconds"]},
                "resyncSeconds": setup["resyncSeconds"],
            }
        )

    def release_of(self, process: str) -> str:
        """The namespace of the release that a process belongs to; apart: each to its own."""
        return f"rfuav-{process}" if self.script.setup.get("apart") else "rfuav-system"

    def _injects(self, pod: Object) -> Object:
        share = self.script.setup.get("sidecars", 0)
        mesh = random.Random(f"{self.seed}/sidecar/{label(pod, 'job')}").random() < share
        fate = self.fate(pod)[0]
        beside = mesh or fate.startswith("sidecar:")
        return {"containers": [SIDECAR] * beside, "initContainers": [INIT] * fate.startswith("init:")}

    # --- time

    def now(self) -> datetime:
        """The present instant."""
        return T0 + timedelta(seconds=self.loop.time())

    def own_clock(self) -> float:
        """What the machines of the operator take for the time, in seconds since 1970."""
        return self.now().timestamp() + self.clock_off

    def date(self) -> float:
        """What the server writes into its answers: whole seconds."""
        return self.now().timestamp() // 1

    def seconds(self, stamp: str) -> float:
        """Virtual seconds of an instant as Kubernetes writes it."""
        return (datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%S%z") - T0).total_seconds()

    def stamp(self) -> str:
        """The same, as Kubernetes writes it."""
        return self.now().strftime("%Y-%m-%dT%H:%M:%SZ")

    def after(self, seconds: float, act: Callable[..., Any], *args: Any) -> None:
        """Have something happen later; what breaks in it breaks the history."""
        self.loop.call_later(seconds, self._guarded, act, *args)

    def _guarded(self, act: Callable[..., Any], *args: Any) -> None:
        if self.over:
            return
        try:
            act(*args)
        except Exception as error:  # noqa: BLE001  any, and it ends the history
            self.fail(f"the model broke: {error!r}", error)

    def latency(self) -> float:
        """Seconds of a request's way to the server, or back."""
        return 0.001 + self.chance["latency"].expovariate(200)

    def lag(self, resource: str, chance: random.Random) -> float:
        """Seconds from a write to its watch event."""
        until, more = self.slow.get(resource, (0.0, 0.0))
        more = more if until > self.loop.time() else 0.0
        return self.least_lag * (1 + chance.expovariate(1)) + more

    # --- what happens

    def _committed(self, change: Change) -> None:
        self.events += 1
        self.truth.changed(change)
        if self.verbose and change.resource != "leases":
            self.log(change.author, _shown(change))
        for check in invariants.CHANGES.get(change.resource, ()):
            if wrong := check(self.truth, change):
                self.fail(f"{check.__name__}: {wrong}")
        if change.resource == "pods":
            self.kubelet.pod_changed(change)
            self.scheduler.pod_changed(change)
            resource_quotas.pod_changed(self, change)
        elif change.resource == "nodes":
            self.machines.node_changed(change)
        elif change.resource in JOBS:
            self.scheduler.job_changed(change)
        for feed in self.feeds:
            if feed.resource == change.resource:
                feed.wake()

    def _requested(self, process: str, method: str, target: Target, body: Any) -> None:
        for check in invariants.REQUESTS:
            if wrong := check(self.truth, process, method, target, body):
                self.fail(f"{check.__name__}: {wrong}")

    def judge_stay(self, known: dict[str, int], namespace: str, held: Assignment) -> None:
        """A process decides that a pod stays where it is, on what it knows now."""
        if wrong := invariants.nobody_stays_where_it_is_not_for(self.truth, knowledge(known), namespace, held):
            self.fail(f"nobody_stays_where_it_is_not_for: {wrong}")

    def count_request(self, process: str, method: str, target: Target) -> None:
        """Every request of the operator; a storm of them is a failure."""
        if target.resource in ("leases", "events"):
            return
        self.requests += 1
        if self.requests % STORM == 0:
            if self.loop.time() - self._storm_began < STORM_SECONDS:
                self.fail(f"no_storm: {STORM} requests within {STORM_SECONDS:.0f} s, last {method} {target.name}")
            self._storm_began = self.loop.time()

    def fail(self, why: str, error: BaseException | None = None) -> None:
        """The first thing that is wrong ends the history."""
        if self.violation:
            return
        self.violation = why
        self.log("!!!", why)
        if error is not None and self.verbose:
            self.lines += traceback.format_exception(error)
        if not self.failed.done():
            self.failed.set_result(None)

    def log(self, who: str, what: str) -> None:
        """A line of the readable log."""
        if self.verbose:
            self.lines.append(f"{self.loop.time():9.3f}  {who:<12} {what}")

    def operator_says(self, _logger: Any, method: str, event: dict[str, Any]) -> str:
        """What the operator logs; structlog's processor."""
        if self.verbose and method in ("warning", "error", "critical"):
            words = " ".join(f"{k}={v}" for k, v in event.items() if k != "event")
            self.log("log", f"{method}: {event['event']} {words}")
        raise structlog.DropEvent

    # --- for the actions

    def is_ours(self, pod: Object) -> bool:
        """Whether the pod belongs to a job, or did until it was orphaned."""
        return bool(label(pod, "kind")) and pod["metadata"]["namespace"] == space(label(pod, "job"))

    def process_of(self, author: str) -> object:
        """The process that wrote, if it still runs."""
        return next((replica.operator for replica in self.replicas if replica.name == author), None)

    def is_operator(self, author: str) -> bool:
        """Whether a replica of the operator wrote."""
        return author.startswith("op-")

    def fate(self, pod: Object) -> tuple[str, float]:
        """How the pod's container is to end, and its seconds of work."""
        fates, seconds = self.fates.get(owner_of(pod), ([], 10.0))
        index = int(label(pod, "attempt")) - 1 + int(label(pod, "shard") or 0)
        return fates[index] if index < len(fates) and not self.healed else "ok", seconds

    def find_job(self, name: str) -> tuple[str, Object] | None:
        """Resource and object of a job, if it is there."""
        for resource in JOBS:
            if (job := self.server.get(resource, (space(name), name))) is not None:
                return resource, job
        return None

    def pods_of(self, name: str) -> list[Object]:
        """The pods of a job that is there, by name."""
        found = self.find_job(name)
        if found is None:
            return []
        uid = found[1]["metadata"]["uid"]
        return [pod for pod in self.server.all("pods") if owner_of(pod) == uid]

    def crash(self, process: str, when: str) -> None:
        """Kill one replica's process."""
        self.log(process, f"CRASHES {when}")
        for replica in self.replicas:
            if replica.name == process:
                replica.kill()

    def cut(self, process: str, resource: str, how: str) -> None:
        """End open watches: of one process or all, of one resource or all."""
        for feed in list(self.feeds):
            if process in ("", feed.owner.process) and resource in ("", feed.resource):
                feed.cut(how)

    def post(self, pod: Object, body: bytes) -> None:
        """A pod reports; the Service sends it to the replica that leads."""
        self.loop.create_task(self._post(pod, body), name=f"report-{pod['metadata']['name']}")

    async def _post(self, pod: Object, body: bytes) -> None:
        await asyncio.sleep(self.latency())
        for replica in self.replicas:
            taker = replica.operator
            current = replica.connection is not None and self.truth.is_current(
                pod, replica.connection.knowledge()["pods"]
            )
            code, words = await replica.post(pod, body)
            name = pod["metadata"]["name"]
            if current and "is not one of" in words:
                self.fail(f"reports_of_ones_own_pods_are_taken: {words}")
            if code == 200:
                sequence = (orjson.loads(body)["trainerStatus"].get("rfuav") or {}).get("sequence", -1)
                self.truth.taken[name].append((self.loop.time(), sequence, taker))
            if code != 503:
                self.log("report", f"{name} {body[:300].decode(errors='replace')} -> {code}")
                return


def _shown(change: Change) -> str:
    old, new = change.old or {}, change.new
    words = f"{change.type} {change.resource} {change.key[1]} v{change.version}"
    if change.type == "DELETED":
        return words
    for part in ("spec", "status"):
        before, after = old.get(part) or {}, new.get(part) or {}
        if change.resource == "pods" and change.type == "ADDED":
            continue
        changed = {k: after.get(k) for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
        changed.pop("conditions", None)
        if changed:
            words += f" {part}={dict(sorted(changed.items()))}"
    if new["metadata"].get("deletionTimestamp") and not (old.get("metadata") or {}).get("deletionTimestamp"):
        words += " (deleting)"
    return words
