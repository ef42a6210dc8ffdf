"""`kubectl rfuav wait JOB`: until a job is so far."""

import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from rfuav_cli import jobs
from rfuav_cli.failures import FAILED, NOT_THERE, USAGE, Failure
from rfuav_cli.options import JobNames, Timeout
from rfuav_cli.session import Session
from rfuav_crds.contract import GROUP

_CONDITION = re.compile(r"condition=(?P<type>\w+)(=(?P<value>\w+))?", re.IGNORECASE)
_LENGTH = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>s|m|h|d)?")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_AT_WORK = ("Admitted", "Running")
_STATES: dict[str, Callable[[str], bool]] = {
    "succeeded": lambda phase: phase == "Succeeded",
    "ended": lambda phase: phase in jobs.ENDED,
    "running": lambda phase: phase in {"Running", "Succeeded"},
    "admitted": lambda phase: phase in {*_AT_WORK, "Succeeded"},
    "suspended": lambda phase: phase == "Suspended",
    "delete": lambda _: False,
}
For = Annotated[
    str,
    typer.Option(
        "--for",
        help="succeeded, ended (whichever way), running, admitted, suspended, delete, or condition=TYPE[=VALUE].",
    ),
]


def wait(session: Session, job: JobNames, *, state: For = "succeeded", timeout: Timeout = "0") -> None:
    """Wait until jobs are so far.

    Exit codes: 0 they are; 1 one of them cannot get there any more; 124 the time is over.
    """
    reached = condition(state)
    limit = length(timeout)
    end = None if limit is None else time.monotonic() + limit
    for name in job:
        kind, named = jobs.parsed(name)
        if not kind:
            body = jobs.one(session, name)
            kind, named = body["kind"], body["metadata"]["name"]
        left = None if end is None else max(0.0, end - time.monotonic())
        until(session, kind, named, reached, deleted=state == "delete", seconds=left)
        sys.stdout.write(f"{kind.lower()}.{GROUP}/{named} {'deleted' if state == 'delete' else f'{state} met'}\n")
        sys.stdout.flush()


def until(
    session: Session,
    kind: str,
    name: str,
    reached: Callable[[Mapping[str, Any]], bool],
    *,
    deleted: bool = False,
    seconds: float | None = None,
    told: Callable[[Mapping[str, Any]], None] = lambda _: None,
) -> None:
    """Wait until a job's status is so far.

    Args:
        session: the way to the cluster.
        kind: of the job.
        name: of the job.
        reached: whether a status is so far.
        deleted: whether the end of the job itself is waited for.
        seconds: for how long at most; None: without limit.
        told: gets each status.

    Raises:
        Failure: it cannot get there any more, is not there, or the time is over.
    """
    for body in jobs.follow(session, kind, name, seconds=seconds):
        if body is None:
            if deleted:
                return
            raise Failure(f"{kind} {name} was deleted meanwhile", NOT_THERE)
        status = body.get("status") or {}
        told(status)
        if reached(status):
            return
        if status.get("phase") in jobs.ENDED and not deleted:
            raise Failure(ended(jobs.shown({**body, "kind": kind}), status), FAILED)


def ended(name: str, status: Mapping[str, Any]) -> str:
    """A job that has ended, in a sentence."""
    phase, reason, message = (str(status.get(key) or "") for key in ("phase", "reason", "message"))
    why = ": ".join(word for word in (reason if reason != phase else "", message) if word)
    return f"{name} is {phase}" + (f" ({why})" if why else "") + f": `kubectl rfuav why {name}` has more"


def condition(state: str) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a status is as --for says.

    Raises:
        Failure: it says nothing that is known.
    """
    if (phase := _STATES.get(state.lower())) is not None:
        return lambda status: phase(str(status.get("phase")))
    found = _CONDITION.fullmatch(state)
    if found is None:
        raise Failure(f"--for={state}: write one of {', '.join(_STATES)}, or condition=TYPE", USAGE)
    kind, value = found["type"].lower(), (found["value"] or "True").lower()
    return lambda status: any(
        str(c.get("type")).lower() == kind and str(c.get("status")).lower() == value
        for c in status.get("conditions") or ()
    )


def length(text: str) -> float | None:
    """Seconds, from 90s, 30m or 12h; None: 0, without limit.

    Raises:
        Failure: it is no length of time.
    """
    found = _LENGTH.fullmatch(text.strip())
    if found is None:
        raise Failure(f"--timeout={text}: write a number with s, m or h, as in 90s, 30m or 12h", USAGE)
    seconds = float(found["number"]) * _UNITS[found["unit"] or "s"]
    return seconds or None
