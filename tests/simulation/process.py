"""One replica of the operator: the real `app.Operator` on the model's connection, killed and started again.

Only its edges are replaced: kopf's run by its model, HTTP servers by nothing, token checks by names.
"""

import asyncio
import contextlib
import gc
import random
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import structlog
from prometheus_client import CollectorRegistry
from simulation import kopf_model
from simulation.connection import SimConnection
from simulation.server import Object

from rfuav_crds.contract import PLURALS
from rfuav_kube import clock, keyed_writer, reflector
from rfuav_operator import app
from rfuav_operator.core.model import Action, DeletePod, PatchStatus
from rfuav_operator.settings import Settings
from rfuav_operator.shell import metrics
from rfuav_operator.shell.reading import kopf_app, resync
from rfuav_operator.shell.serving import door
from rfuav_operator.shell.serving.tokens import Sender

if TYPE_CHECKING:
    from simulation.world import World

PROBE_EVERY = 10.0  # seconds between two liveness probes of the kubelet
TICK = 0.5  # seconds between two looks of the writer at its budget: fewer, since a look costs time and changes nothing


@contextlib.contextmanager
def edges(world: "World", page: int) -> Iterator[None]:
    """The operator's modules as a history needs them, and as they were afterwards."""
    put: list[tuple[Any, str, Any]] = [
        (clock, "monotonic", world.loop.time),
        (clock, "wall", world.own_clock),
        (clock, "_ahead", None),
        (kopf_app, "watch", kopf_model.watch),
        (door, "serving", lambda *_args: contextlib.nullcontext()),
        (app, "gc", SimpleNamespace(collect=lambda: 0, freeze=lambda: None)),
        (metrics, "registry", CollectorRegistry()),
        (keyed_writer, "TICK", TICK),
        (reflector, "PAGE", page),
        (resync, "PAGE", page),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in put]
    configured, chance = structlog.get_config(), random.getstate()
    structlog.configure(
        processors=[world.operator_says], wrapper_class=structlog.BoundLogger, cache_logger_on_first_use=False
    )
    random.seed(f"{world.seed}/operator")
    collected = gc.isenabled()
    gc.disable()
    try:
        for module, name, value in put:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
        structlog.configure(**configured)
        random.setstate(chance)
        if collected:
            gc.enable()


class _Tokens:
    """A token is namespace/name/uid of the pod."""

    async def sender(self, token: str) -> Sender:
        namespace, pod, uid = token.split("/")
        return Sender(namespace, pod, uid)


class _Request:
    """A report as the intake sees it."""

    def __init__(self, pod: Object, plural: str, body: bytes) -> None:
        meta = pod["metadata"]
        self.headers = {"Authorization": f"Bearer {meta['namespace']}/{meta['name']}/{meta['uid']}"}
        job = meta["labels"]["rfuav.io/job"]
        self.match_info: Mapping[str, str] = {"namespace": meta["namespace"], "plural": plural, "name": job}
        self._body = body

    async def read(self) -> bytes:
        return self._body


class SimOperator(app.Operator):
    """The operator, which takes no signals and tells the truth on what its decisions stand."""

    def __init__(self, world: "World", settings: Settings, connection: SimConnection) -> None:
        super().__init__(settings, connection)  # type: ignore[arg-type]
        self.intake._tokens = _Tokens()  # type: ignore[assignment]
        submit = self.writer.submit

        def noted(actions: Sequence[Action]) -> None:
            for action in actions:
                if isinstance(action, PatchStatus):
                    before = {a.pod: a.stopping for a in action.job.status.assignments}
                    for assignment in action.status.assignments:
                        if not action.status.phase.terminal:  # otherwise its pods go without `stopping`
                            world.judge_stay(connection.knowledge(), action.job.namespace, assignment)
                        if assignment.pod not in before:
                            world.truth.decides(connection.knowledge(), assignment.pod)
                        elif assignment.stopping and not before[assignment.pod]:
                            world.truth.stops(connection.knowledge(), assignment.pod)
                elif isinstance(action, DeletePod):
                    world.truth.deletes(connection.knowledge(), action.uid)
            submit(actions)

        self.writer.submit = noted  # type: ignore[method-assign]
        acquire = self.leader.acquire

        async def acquired() -> None:
            await acquire()
            connection.term += 1

        self.leader.acquire = acquired  # type: ignore[method-assign]

    def handle_signals(self) -> None:
        """There are none."""

    async def report(self, pod: Object, plural: str, body: bytes) -> tuple[int, str]:
        """Take a pod's report as the progress server does; the HTTP status and its words."""
        answer = await self.intake._post(_Request(pod, plural, body))  # type: ignore[arg-type]
        return answer.status, answer.text or ""


class Replica:
    """A pod of the operator's Deployment: a process, and another when it ends."""

    def __init__(self, world: "World", name: str, settings: Settings) -> None:
        self.world = world
        self.name = name
        self._settings = settings
        self.connection: SimConnection | None = None
        self.operator: SimOperator | None = None
        self._task: asyncio.Task[None] | None = None
        self.isolated = False

    def start(self) -> None:
        """Start a process with empty memory."""
        if self._task is not None:
            return
        self.connection = SimConnection(self.world, self.name)
        self.connection.isolated = self.isolated
        self.operator = SimOperator(self.world, self._settings, self.connection)
        self._task = asyncio.get_running_loop().create_task(self.operator.run(), name=f"operator-{self.name}")
        self._task.add_done_callback(self._ended)
        self.world.after(PROBE_EVERY, self._probe, self.operator)
        self.world.log(self.name, "started")

    def _probe(self, operator: SimOperator) -> None:
        """As the kubelet; nothing ever hangs here, so that a probe that fails would kill a sound process."""
        if self.operator is not operator:
            return
        if not operator.pulse.alive:
            self.world.fail(f"probes_spare_the_sound: {self.name} fails its liveness probe")
        self.world.after(PROBE_EVERY, self._probe, operator)

    def kill(self) -> None:
        """As SIGKILL: nothing that it still does reaches anyone."""
        if self._task is not None and self.connection is not None:
            self.connection.dead, self.connection.killed_at = True, self.world.loop.time()
            self._task.cancel()

    def stop(self) -> None:
        """As SIGTERM."""
        if self.operator is not None:
            self.operator.stop.set()

    def isolate(self, *, isolated: bool) -> None:
        """Cut it off from the API server, or connect it again."""
        self.isolated = isolated
        if self.connection is not None:
            self.connection.isolated = isolated
            if isolated:
                self.world.cut(self.name, "", "broken")

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._task, self.operator = None, None
        if self.connection is not None:
            self.connection.end()
        error = None if task.cancelled() else task.exception()
        self.world.log(self.name, f"ended {_words(error)}")
        if error is not None and not _is_expected(error):
            self.world.fail(f"the operator broke: {_words(error)}", error)
        if not self.world.over:
            self.world.after(self.world.chance["restart"].uniform(0.5, 4), self.start)

    async def post(self, pod: Object, body: bytes) -> tuple[int, str]:
        """A report of a pod, sent to this replica."""
        if self.operator is None or self.isolated:
            return 503, ""
        plural = PLURALS[pod["metadata"]["labels"]["rfuav.io/kind"]]
        return await self.operator.report(pod, plural, body)


def _is_expected(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_expected(inner) for inner in error.exceptions)
    return isinstance(error, asyncio.CancelledError)


def _words(error: BaseException | None) -> str:
    if isinstance(error, BaseExceptionGroup):
        return ", ".join(_words(inner) for inner in error.exceptions)
    return "" if error is None else f"{type(error).__name__}: {error}"
