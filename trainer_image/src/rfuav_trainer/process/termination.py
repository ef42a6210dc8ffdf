"""The termination message of the pod, which the kubelet keeps, and the immediate exit.

In: a failure and the last progress. Out: at most 4096 bytes of JSON.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from rfuav_crds import contract, reasons

if TYPE_CHECKING:
    from typing import NoReturn

    from rfuav_trainer import errors


log = structlog.get_logger()

TERMINATION_LOG = Path(contract.TERMINATION_LOG)
DEFAULT_GRACE_SECONDS = 30.0


def abandon(failure: errors.Failure) -> NoReturn:
    """Exit immediately because of a failure that another thread found, even if the work is blocked."""
    log.error(failure.message, reason=failure.reason, exitCode=failure.exit_code)
    write(failure, {})
    sys.stdout.flush()
    os._exit(failure.exit_code)


def grace_seconds() -> float:
    """Seconds between SIGTERM and SIGKILL, as the job of this pod has them; Kubernetes' default if it has none."""
    try:
        return float(json.loads(os.environ[contract.JOB])["spec"]["terminationGracePeriodSeconds"])
    except (LookupError, TypeError, ValueError):
        return DEFAULT_GRACE_SECONDS


def write(failure: errors.Failure | None, status: dict[str, Any]) -> None:
    """Write reason, message and the last progress to where the kubelet reads them, in at most 4096 bytes."""
    path = Path(os.environ.get(contract.TERMINATION_LOG_FILE) or TERMINATION_LOG)
    if path == TERMINATION_LOG and not path.exists():
        return  # not in a pod
    content: dict[str, Any] = {
        "reason": failure.reason if failure else reasons.COMPLETED,
        "message": failure.message if failure else "",
        "exitCode": failure.exit_code if failure else 0,
        "trainerStatus": status,
    }
    try:
        path.write_bytes(_fit(content))
    except OSError as error:
        log.warning("could not write the termination message", file=str(path), problem=str(error))


def _fit(content: dict[str, Any]) -> bytes:
    """`content` as JSON of at most 4096 bytes: shortens the message first, then drops the metrics."""
    text = json.dumps(content).encode()
    if len(text) > contract.TERMINATION_BYTES:
        message = content["message"]
        content = {**content, "message": message[:1000]}
        text = json.dumps(content).encode()
    if len(text) > contract.TERMINATION_BYTES:
        status = dict(content["trainerStatus"])
        status["metrics"] = []
        text = json.dumps({**content, "trainerStatus": status}).encode()
    if len(text) > contract.TERMINATION_BYTES:
        text = json.dumps({**content, "message": content["message"][:200], "trainerStatus": {}}).encode()
    return text
