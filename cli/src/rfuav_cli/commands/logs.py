"""`kubectl rfuav logs JOB`: the log of the trainer, of one pod or of all, for people."""

import queue
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from rfuav_cli import jobs, lines, tables
from rfuav_cli.failures import NOT_THERE, Failure, Refused
from rfuav_cli.jobs import Body
from rfuav_cli.options import JobName
from rfuav_cli.session import Session
from rfuav_crds import contract

_LOOK_SECONDS = 1.0  # between two looks for new pods
_SETTLED = 2  # looks without a new pod after the end of the job
Follow = Annotated[
    bool, typer.Option("-f", "--follow", help="Go on with what is written from now on, until the job ends.")
]
Attempt = Annotated[
    int | None, typer.Option(min=1, help="Attempt. Default: the last one of each pod.", show_default=False)
]
Shard = Annotated[
    int | None,
    typer.Option(min=0, help="Shard of an InferenceJob, or rank of a training of several nodes.", show_default=False),
]
Tail = Annotated[int | None, typer.Option(min=0, help="Only the last lines of each pod.", show_default=False)]
Raw = Annotated[bool, typer.Option("--raw", help="The lines as the trainer writes them: JSON.")]


@dataclass(frozen=True)
class _Pod:
    name: str
    attempt: int
    index: int
    phase: str

    @classmethod
    def of(cls, body: Body) -> "_Pod":
        labels = body["metadata"].get("labels") or {}
        index = labels.get(contract.LABEL_SHARD, labels.get(contract.LABEL_RANK, "0"))
        phase = str((body.get("status") or {}).get("phase"))
        return cls(body["metadata"]["name"], int(labels.get(contract.LABEL_ATTEMPT, 0)), int(index), phase)


@dataclass(frozen=True)
class _What:
    """Which log is wanted of a job."""

    body: Body
    attempt: int | None
    shard: int | None
    tail: int | None

    def pods(self, session: Session) -> list[_Pod]:
        """Its pods, as far as they are wanted, by index and attempt."""
        chosen = {contract.LABEL_JOB_UID: self.body["metadata"]["uid"]}
        if self.attempt is not None:
            chosen[contract.LABEL_ATTEMPT] = str(self.attempt)
        at = f"/api/v1/namespaces/{session.namespace}/pods"
        selector = ",".join(f"{key}={value}" for key, value in chosen.items())
        found = sorted((_Pod.of(body) for body in session.items(at, labelSelector=selector)), key=_order)
        return [pod for pod in found if self.shard in (None, pod.index)]


def _order(pod: _Pod) -> tuple[int, int]:
    return pod.index, pod.attempt


def logs(
    session: Session,
    job: JobName,
    *,
    follow: Follow = False,
    attempt: Attempt = None,
    shard: Shard = None,
    tail: Tail = None,
    raw: Raw = False,
) -> None:
    """Show the log of a job, readable.

    The lines of the trainer in its pods. With several pods, each line begins with its shard or rank.
    """
    what = _What(jobs.one(session, job), attempt, shard, tail)
    show = _Printer(raw=raw, several=_pods_of(what.body) > 1 and shard is None)
    if follow:
        _follow(session, what, show)
        return
    pods = what.pods(session)
    newest = {pod.index: pod for pod in pods}  # the last attempt of each
    if not pods:
        raise Failure(_nowhere(what, session.namespace), NOT_THERE)
    problems = []
    for pod in newest.values():
        try:
            for line in _lines(session, pod.name, what.tail, follow=False):
                show(pod.index, line)
        except Refused as refused:
            problems.append(refused)
            sys.stderr.write(f"{pod.name}: {refused}\n")
    if len(problems) == len(newest):
        raise Failure(f"no log of {jobs.shown(what.body)} can be read now", problems[-1].code)


def _follow(session: Session, what: _What, show: "_Printer") -> None:
    """Show the lines of all pods as they come, of those too that the job gets later, until it has ended."""
    came: queue.Queue[tuple[int, str] | Refused | None] = queue.Queue(maxsize=10_000)
    seen: set[str] = set()
    reading, quiet, settled, due = 0, False, 0, 0.0
    kind, name = what.body["kind"], what.body["metadata"]["name"]
    while True:
        if time.monotonic() >= due:
            fresh = [pod for pod in what.pods(session) if pod.name not in seen and pod.phase != "Pending"]
            for pod in fresh:
                seen.add(pod.name)
                reading += 1
                threading.Thread(target=_read_into, args=(came, session, pod, what.tail), daemon=True).start()
            body = session.get(jobs.path(kind, session.namespace, name))
            status = body.get("status") or {}
            over = status.get("phase") in jobs.ENDED
            settled = settled + 1 if over and not fresh else 0
            if not seen and not over and not quiet:
                sys.stderr.write(
                    f"{jobs.shown(what.body)} has no pod that runs yet ({_why(status)}); waiting for one\n"
                )
                quiet = True
            due = time.monotonic() + _LOOK_SECONDS
        try:
            item = came.get(timeout=max(0.0, due - time.monotonic()))
        except queue.Empty:
            if settled >= _SETTLED and reading == 0:
                if not seen:
                    raise Failure(_nowhere(what, session.namespace), NOT_THERE) from None
                return
            continue
        if item is None:
            reading -= 1
        elif isinstance(item, Refused):
            sys.stderr.write(f"{item}\n")
        else:
            show(*item)


def _read_into(came: "queue.Queue[Any]", session: Session, pod: _Pod, tail: int | None) -> None:
    try:
        for line in _lines(session, pod.name, tail, follow=True):
            came.put((pod.index, line))
    except Refused as refused:
        came.put(refused)
    except Failure:  # the way to the cluster ended: so does the command
        pass
    finally:
        came.put(None)


def _lines(session: Session, pod: str, tail: int | None, *, follow: bool) -> Iterator[str]:
    at = f"/api/v1/namespaces/{session.namespace}/pods/{pod}/log"
    query = {"container": contract.CONTAINER} | ({"tailLines": str(tail)} if tail is not None else {})
    query |= {"follow": "true"} if follow else {}
    with session.lines(at, query) as found:
        for line in found:
            yield line.decode(errors="replace").rstrip("\r\n")


class _Printer:
    """Prints lines: coloured on a terminal."""

    def __init__(self, *, raw: bool, several: bool) -> None:
        self._raw = raw
        self._several = several
        self._screen = tables.console() if tables.on_terminal() and not raw else None

    def __call__(self, index: int, raw: str) -> None:
        prefix = f"[{index}]" if self._several else ""
        if self._screen is not None:
            from rich.text import Text  # noqa: PLC0415  (a tenth of a second)

            line = lines.read(raw)
            text = Text.assemble(
                (" ".join(p for p in (prefix, lines.local(line)) if p), "dim"), " ", (line.text, line.style)
            )
            self._screen.print(text, soft_wrap=True)
            if line.trace:
                self._screen.print(Text(line.trace, "red"), soft_wrap=True)
            return
        shown = f"{prefix} {raw}".strip() if self._raw else lines.plain(lines.read(raw), prefix)
        sys.stdout.write(f"{shown}\n")
        sys.stdout.flush()


def _pods_of(body: Body) -> int:
    spec = body.get("spec") or {}
    return int(spec.get("shards" if body["kind"] == "InferenceJob" else "nodes") or 1)


def _nowhere(what: _What, namespace: str) -> str:
    """Why there is no pod to read from, and where its log is."""
    body, name = what.body, jobs.shown(what.body)
    status = body.get("status") or {}
    if not status.get("startedAt"):
        return f"{name} in namespace {namespace} has not run yet ({_why(status)}): add -f to wait for it"
    which = "" if what.attempt is None else f" of attempt {what.attempt}"
    return f"the pods{which} of {name} are gone: its log is {_kept(body, what.shard)}"


def _kept(body: Body, shard: int | None) -> str:
    """Where the trainer kept the log."""
    folder = str(((body.get("spec") or {}).get("output") or {}).get("uri") or "").rstrip("/")
    if body["kind"] == "InferenceJob" and _pods_of(body) > 1:
        stem, _, suffix = contract.LOG.partition(".")
        return f"{folder}/{stem}-{'SHARD' if shard is None else shard}.{suffix}"
    return f"{folder}/{contract.LOG}"


def _why(status: dict[str, Any]) -> str:
    return str(status.get("message") or status.get("phase") or "new")
