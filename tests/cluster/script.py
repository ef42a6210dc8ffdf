"""Disturbances: what happens to which job, and when.

A `Script` is steps for one job, each a moment and an act; `play` watches all jobs at once, so that they run side by side.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from cluster.audit import TERMINAL_JOB
from cluster.kube import Kube

Object = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """When the job's status satisfies `when`, `act` with the job's name."""

    name: str
    when: Callable[[Object], bool]
    act: Callable[[str], None]


@dataclass
class Script:
    """The steps of one job, in order."""

    kind: str
    job: str
    steps: list[Step] = field(default_factory=list)


def epoch(at_least: int) -> Callable[[Object], bool]:
    """While it runs, once so many epochs are done."""
    return lambda s: s.get("phase") == "Running" and (s.get("progress") or {}).get("epoch", 0) >= at_least


def play(kube: Kube, scripts: list[Script], *, timeout: float) -> dict[str, Object]:
    """Let everything happen; returns the last status of every job, {} for one that is no more.

    Fails when a job ends before its moment came: then the disturbance did not happen and the test would prove nothing.
    """
    open_, ends = list(scripts), {}
    limit = time.monotonic() + timeout
    while open_:
        for script in list(open_):
            status = kube.status(script.kind, script.job)
            if script.steps and script.steps[0].when(status):
                script.steps.pop(0).act(script.job)
            elif status.get("phase") in TERMINAL_JOB or (not status and not script.steps):
                if script.steps:
                    pytest.fail(
                        f"{script.job} ended before it could be {script.steps[0].name}\n{kube.story(script.kind, script.job)}"
                    )
                ends[script.job] = status
                open_.remove(script)
        if time.monotonic() > limit and open_:
            stories = "\n".join(kube.story(s.kind, s.job) for s in open_[:2])
            pytest.fail(f"after {timeout:.0f} s there is no end of {', '.join(s.job for s in open_)}\n{stories}")
        time.sleep(0.2)
    return ends
