"""A bound pod that does not start: what it waits for, for how long, and whose fault it is.

In: the kubelet's reason and message. Out: a `Wait`. When it expires, the pod has failed and gives its room back. An
image that does not exist or may not be pulled is the job's fault; everything else is the cluster's, and is tried again.
"""

import re
from datetime import datetime, timedelta

import msgspec

from rfuav_crds import reasons
from rfuav_operator.core.job.failures import Verdict
from rfuav_operator.core.model import Assignment, Pod

IMAGE_GRACE = timedelta(seconds=30)  # a registry that hiccups is not a missing image
ERROR_GRACE = timedelta(seconds=120)  # what heals, heals in this time, or another node is tried
_MOST_DOUBLINGS = 10
_LONGEST_TEXT = 4096
_USUAL = frozenset({"", "ContainerCreating", "PodInitializing"})
_HOPELESS = frozenset({"InvalidImageName", "ErrImageNeverPull"})
_IMAGE = _HOPELESS | {
    "ErrImagePull",
    "ImagePullBackOff",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
}

# Names of images and addresses, which may hold any word.
_NAMES = re.compile(r'\\*"[^"]*"|\b[a-z]+://[^\s"]+')
# The node has lost a part of the image, or has no space for it.
_OF_THE_NODE = re.compile(
    r"snapshotter|(extraction|parent) snapshot|content digest|blobs/sha256/|blob not found|no space left",
    re.IGNORECASE,
)
# The registry answered, and it has no such image, or not for these credentials.
_NO_IMAGE = re.compile(
    r"not ?found|manifest unknown|name unknown|does not exist|no such image|no match for platform|invalid reference"
    r"|access denied|\bdenied:|resource is denied|unauthorized|authentication required|authorization failed"
    r"|insufficient_scope|403 forbidden|no basic auth",
    re.IGNORECASE,
)
# The registry did not answer, or not as one that works does.
_OUTAGE = re.compile(
    r"time[d -]*out|deadline ?exceeded|refused|reset by peer|no route to host|unreachable|broken pipe|\bEOF\b"
    r"|too ?many ?requests|rate limit|\b429\b|\b5[0-9][0-9]\b|bad gateway|unavailable|internal server error"
    r"|\btls: |\bx509: |temporary failure|try again|server misbehaving|connection (closed|lost|broken)|context canceled"
    r"|\bgoaway\b|stream error|qps exceeded",
    re.IGNORECASE,
)


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """What a pod waits for."""

    reason: str  # as the kubelet calls it
    message: str = ""  # for people; names the container if it is not the trainer; empty: it starts as every pod does
    error: bool = False  # something went wrong; else it just takes its time
    until: datetime  # then it is given up
    verdict: Verdict  # what it failed of, should it not have started by then


def wait_of(pod: Pod, a: Assignment, *, now: datetime, limit: int, tries: int) -> Wait:
    """What a bound pod waits for.

    Args:
        pod: bound, and its trainer has not started.
        a: its assignment, which knows since when an error is seen.
        now: the instant, since when an error is seen that is new.
        limit: the pool's `startTimeoutSeconds`.
        tries: earlier attempts that came to nothing. Each doubles the time for volumes, which may take long to prepare.
    """
    container, reason, message = _trouble(pod)
    longest = timedelta(seconds=limit)
    until = (pod.bound_at or pod.created) + longest
    if reason not in _USUAL:
        grace, verdict = _error(container, reason, message, longest)
        told = ": ".join(filter(None, (container, reason, message))) if container else message or reason
        until = min(until, (a.stuck_since or now) + grace)
        return Wait(reason=reason, message=told, error=True, until=until, verdict=verdict)
    if pod.setting_up_since is not None:
        grace = min(longest, ERROR_GRACE * 2 ** min(tries, _MOST_DOUBLINGS))
        verdict = _not_started("its volumes or its network are not ready; the Events of the pod say why", grace)
        return Wait(reason=reason, until=min(until, pod.setting_up_since + grace), verdict=verdict)
    words = container or ": ".join(filter(None, (reason, message))) or pod.message or "no reason was given"
    return Wait(reason=reason, message=container or message, until=until, verdict=_not_started(words, longest))


def _trouble(pod: Pod) -> tuple[str, str, str]:
    """The container that keeps the pod from starting ("": the trainer), with the kubelet's reason and message."""
    if pod.waiting_reason not in _USUAL:
        return "", pod.waiting_reason, pod.waiting_message
    for one in pod.beside:
        if one.waiting_reason not in _USUAL:
            ended = f"exit {one.exit_code}" if one.exit_code is not None else ""
            return one.title, one.waiting_reason, ": ".join(filter(None, (one.waiting_message, ended, one.message)))
    for one in pod.beside:
        if one.running:
            what = "has not ended yet" if one.init else "has not started up yet"
            return f"{one.title} {what}", pod.waiting_reason, ""
    return "", pod.waiting_reason, pod.waiting_message


def _error(container: str, reason: str, message: str, longest: timedelta) -> tuple[timedelta, Verdict]:
    """How long an error is tolerated, and what it means."""
    grace = min(ERROR_GRACE, longest)
    if reason not in _IMAGE:
        return grace, _not_started(": ".join(filter(None, (container, reason, message))), grace)
    whose = f"the image of {container}" if container else "the image"
    said = f"{whose} cannot be pulled: {message or reason}"
    text = _NAMES.sub("", message[:_LONGEST_TEXT])
    missing = reason in _HOPELESS or (_NO_IMAGE.search(text) is not None and not _OF_THE_NODE.search(text))
    outage = not missing and (reason == "RegistryUnavailable" or _OUTAGE.search(text) is not None)
    if missing:
        grace = timedelta() if reason in _HOPELESS else min(grace, IMAGE_GRACE)
    return grace, Verdict(
        reason=reasons.IMAGE_PULL_FAILED,
        message=said,
        counted=missing and not container,  # whoever added the other container chose its image
        outage=outage,
        avoid_node=not missing,
    )


def _not_started(why: str, within: timedelta) -> Verdict:
    message = f"not running within {within.total_seconds():.0f} s: {why}"
    return Verdict(reason=reasons.START_TIMEOUT, message=message, counted=False, avoid_node=True)
