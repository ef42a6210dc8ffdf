"""`kubectl rfuav stop`, `suspend` and `resume`."""

import sys
from collections.abc import Mapping
from typing import Any

from rfuav_cli import jobs
from rfuav_cli.failures import Failure
from rfuav_cli.options import JobNames
from rfuav_cli.session import MERGE_PATCH, Session
from rfuav_crds.contract import GROUP


def stop(session: Session, job: JobNames) -> None:
    """Cancel jobs for good.

    Their pods save a checkpoint and stop; the records stay.
    """
    _change(session, job, {"cancel": True}, "stopped")


def suspend(session: Session, job: JobNames) -> None:
    """Suspend jobs.

    Their pods save a checkpoint and stop, and the jobs wait until they are resumed.
    """
    _change(session, job, {"suspend": True}, "suspended")


def resume(session: Session, job: JobNames) -> None:
    """Resume suspended jobs.

    They queue again, at their old place by age, and continue from their checkpoint.
    """
    _change(session, job, {"suspend": False}, "resumed")


def _change(session: Session, names: list[str], spec: Mapping[str, Any], done: str) -> None:
    """Change the jobs one by one; what fails for one ends the command after all others.

    Raises:
        Failure: the last one.
    """
    failures: list[Failure] = []
    for name in names:
        try:
            sys.stdout.write(f"{_changed(session, name, spec, done)}\n")
        except Failure as failure:
            failures.append(failure)
    for earlier in failures[:-1]:
        sys.stderr.write(f"error: {earlier}\n")
    if failures:
        raise failures[-1]


def _changed(session: Session, name: str, spec: Mapping[str, Any], done: str) -> str:
    body = jobs.one(session, name)
    kind, meta = body["kind"], body["metadata"]
    full = f"{kind.lower()}.{GROUP}/{meta['name']}"
    phase = (body.get("status") or {}).get("phase")
    if phase in jobs.ENDED:
        return f"{full} has ended ({phase})"
    if all((body.get("spec") or {}).get(key, False) == value for key, value in spec.items()):
        return f"{full} unchanged"
    patch = {"metadata": {"uid": meta["uid"]}, "spec": spec}
    session.send("PATCH", jobs.path(kind, session.namespace, meta["name"]), patch, content_type=MERGE_PATCH)
    return f"{full} {done}"
