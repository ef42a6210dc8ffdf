"""Who is charged when a pod cannot start: a missing image is the job's fault, a registry that is down is not."""

import pytest
from msgspec.structs import replace
from unit.core.builders import T0, admitted, after, job, node, of_type, pod_of, run, snapshot, statuses

from rfuav_operator.core.job import starting, units
from rfuav_operator.core.model import Assignment, DeletePod, Phase

NAME = '"registry.example.com/team/trainer:1.2"'
PULL = f"failed to pull and unpack image {NAME}: failed to resolve reference {NAME}: "
HEAD = f'{PULL}failed to do request: Head "https://registry.example.com/v2/team/trainer/manifests/1.2": '

OUTAGES = [
    f"rpc error: code = DeadlineExceeded desc = {HEAD}dial tcp 10.1.2.3:443: i/o timeout",
    f"{HEAD}dial tcp 10.1.2.3:443: connect: connection refused",
    f"{HEAD}dial tcp 10.1.2.3:443: connect: connection timed out",
    f"{HEAD}dial tcp 10.1.2.3:443: connect: no route to host",
    f"{HEAD}dial tcp: lookup registry.example.com on 10.96.0.10:53: read udp 10.1.1.1:4711->10.96.0.10:53: i/o timeout",
    f"{HEAD}dial tcp: lookup registry.example.com on 10.96.0.10:53: server misbehaving",
    f"{HEAD}net/http: TLS handshake timeout",
    f"{HEAD}tls: failed to verify certificate: x509: certificate has expired or is not yet valid",
    f"{HEAD}EOF",
    f"{HEAD}read tcp 10.1.1.1:4711->10.1.2.3:443: read: connection reset by peer",
    (
        f"{PULL}unexpected status from HEAD request to https://registry.example.com/v2/team/trainer/manifests/1.2: "
        "503 Service Unavailable"
    ),
    f"{PULL}unexpected status code [manifests 1.2]: 500 Internal Server Error",
    f"{PULL}pulling from host registry.example.com failed with status code [manifests 1.2]: 502 Bad Gateway",
    f"{PULL}failed to authorize: failed to fetch anonymous token: unexpected status: 504 Gateway Time-out",
    (
        "failed to copy: httpReadSeeker: failed open: unexpected status code https://registry.example.com/v2/team/not-found/"
        "blobs/sha256:566e: 429 Too Many Requests - Server message: toomanyrequests: You have reached your unauthenticated "
        "pull rate limit"
    ),
    "rpc error: code = Unavailable desc = error reading from server: EOF",
    f"{PULL}failed to copy: http2: server sent GOAWAY and closed the connection; ErrCode=NO_ERROR",
    f"{PULL}failed to copy: stream error: stream ID 5; INTERNAL_ERROR; received from peer",
    "pull QPS exceeded",
    (
        "initializing source docker://registry.example.com/notfound/x:1: pinging container registry registry.example.com: "
        'Get "https://registry.example.com/v2/": dial tcp 10.1.2.3:443: connect: connection refused'
    ),
    f"Back-off pulling image {NAME}: ErrImagePull: {HEAD}dial tcp 10.1.2.3:443: connect: connection refused",
    'failed to resolve image "docker.io/library/manifest-unknown:denied": context deadline exceeded',
]
MISSING = [
    f"rpc error: code = NotFound desc = {PULL}{NAME}: not found",
    f"Back-off pulling image {NAME}: ErrImagePull: rpc error: code = NotFound desc = {PULL}{NAME}: not found",
    (
        f"{PULL}pull access denied, repository does not exist or may require authorization: server message: "
        "insufficient_scope: authorization failed"
    ),
    f"{PULL}unexpected status from HEAD request to https://registry.example.com/v2/timeout/503/manifests/1: 403 Forbidden",
    f"{PULL}failed to authorize: failed to fetch oauth token: unexpected status: 401 Unauthorized",
    "Error response from daemon: manifest for team/timeout:1 not found: manifest unknown: manifest unknown",
    "reading manifest 1.2 in registry.example.com/team/trainer: unauthorized: authentication required",
    "denied: requested access to the resource is denied",
    f"no match for platform in manifest: {NAME}",
    f"{PULL}registry.example.com/team/trainer:1.2-SNAPSHOT: not found",
    f"{PULL}unexpected status from HEAD request to https://registry.example.com/v2/team/trainer/manifests/1.2: 404 Not Found",
    "initializing source docker://registry.example.com/team/x:1: reading manifest 1 in registry.example.com/team/x: name unknown",
]
UNKNOWN = [
    f"Back-off pulling image {NAME}",
    "",
    f"{HEAD}dial tcp: lookup registry.exmaple.com on 10.96.0.10:53: no such host",
    f"{HEAD}http: server gave HTTP response to HTTPS client",
    "failed to extract layer sha256:566e: write /var/lib/containerd/x: no space left on device",
    (
        f'failed to pull and unpack image {NAME}: failed to prepare extraction snapshot "extract-530690-kZ sha256:566e": '
        "parent snapshot sha256:566e does not exist: not found"
    ),
    f"failed to pull and unpack image {NAME}: failed to unpack image on snapshotter overlayfs: content digest sha256:5: not found",
    "failed to open: /var/lib/containerd/io.containerd.content.v1.content/blobs/sha256/566e: blob not found: not found",
]


def stuck(reason, message, **changes):
    held = admitted(job(backoff_limit=0))[0]
    return held, pod_of(held, node="n1", bound_at=T0, waiting_reason=reason, waiting_message=message, **changes)


def verdict_on(message, reason="ErrImagePull"):
    _, pod = stuck(reason, message)
    return starting.wait_of(pod, Assignment(pod=pod.name), now=T0, limit=1800, tries=0)


@pytest.mark.parametrize("message", OUTAGES)
def test_an_outage_of_the_registry_is_counted_nowhere(message):
    wait = verdict_on(message)
    assert (wait.until, wait.verdict.counted, wait.verdict.outage) == (after(120), False, True)
    assert message in wait.verdict.message


@pytest.mark.parametrize("message", MISSING)
def test_a_missing_or_denied_image_is_counted(message):
    wait = verdict_on(message)
    assert (wait.until, wait.verdict.counted, wait.verdict.outage) == (after(30), True, False)


@pytest.mark.parametrize("message", UNKNOWN)
def test_an_unknown_error_is_neither_charged_nor_tried_for_ever(message):
    """uncountedLimit bounds it."""
    wait = verdict_on(message)
    assert (wait.until, wait.verdict.counted, wait.verdict.outage) == (after(120), False, False)


def test_an_invalid_image_name_fails_immediately():
    assert verdict_on("couldn't parse image name", reason="InvalidImageName").until == T0


def test_a_registry_that_is_down_for_hours_does_not_end_a_job():
    held, now = job(backoff_limit=0), T0
    for tries in range(1, 31):
        held = replace(held, status=statuses(run(snapshot([held]), now=now))["a"])
        assert held.status.phase is Phase.ADMITTED
        pod = pod_of(held, node="n1", bound_at=now, waiting_reason="ErrImagePull", waiting_message=OUTAGES[0])
        held = replace(held, status=statuses(run(snapshot([held], pods=[pod]), now=now))["a"])
        assert "i/o timeout" in held.status.message
        now = held.status.assignments[0].stuck_since + starting.ERROR_GRACE
        given_up = run(snapshot([held], pods=[pod]), now=now)
        assert [d.uid for d in of_type(given_up, DeletePod)] == [pod.uid]
        held = replace(held, status=statuses(given_up)["a"])
        assert held.status.reason == "ImagePullFailed"
        held = replace(held, status=statuses(run(snapshot([held]), now=now))["a"])
        assert (held.status.phase, held.status.assignments, held.status.rejections) == (Phase.QUEUED, (), tries)
        assert (held.status.counted_failures, held.status.uncounted_failures) == (0, 0)
        assert "i/o timeout" in held.status.message
        waited = (held.status.not_before - now).total_seconds()
        assert waited <= 720
        now = held.status.not_before
    assert waited >= 600


def test_the_room_goes_to_another_node_after_an_outage():
    held, pod = stuck("ErrImagePull", OUTAGES[1])
    seen = replace(held, status=statuses(run(snapshot([held], pods=[pod])))["a"])
    status = statuses(run(snapshot([seen], pods=[pod]), now=after(120)))["a"]
    status = statuses(run(snapshot([replace(held, status=status)], nodes=[node(), node("n2")]), now=after(121)))["a"]
    again = run(snapshot([replace(held, status=status)], nodes=[node(), node("n2")]), now=after(300))
    assert statuses(again)["a"].assignments[0].node == "n2"


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("CreateContainerError", "context deadline exceeded"),
        ("CreateContainerError", 'failed to reserve container name "trainer_a-1": name is reserved for "8b21"'),
        ("RunContainerError", "failed to create containerd task: failed to create shim task"),
        ("CreateContainerConfigError", 'secret "s3" not found'),
    ],
)
def test_errors_of_the_runtime_give_the_room_back_after_two_minutes(reason, message):
    wait = verdict_on(message, reason=reason)
    assert (wait.until, wait.verdict.counted, wait.verdict.avoid_node) == (after(120), False, True)
    assert wait.verdict.message == f"not running within 120 s: {reason}: {message}"


def test_an_error_that_heals_leaves_no_trace():
    held, pod = stuck("ErrImagePull", OUTAGES[0])
    seen = replace(held, status=statuses(run(snapshot([held], pods=[pod])))["a"])
    assert seen.status.assignments[0].stuck_since == T0
    pulling = replace(pod, waiting_reason="ContainerCreating", waiting_message="")
    status = statuses(run(snapshot([seen], pods=[pulling]), now=after(60)))["a"]
    assert status.assignments[0].stuck_since is None
    wait = run(snapshot([replace(held, status=status)], pods=[pulling]), now=after(1000))
    assert of_type(wait, DeletePod) == []


# --- volumes


@pytest.mark.parametrize(("tries", "seconds"), [(0, 120), (1, 240), (3, 960), (4, 1800), (400, 1800)])
def test_volumes_get_more_time_with_every_try(tries, seconds):
    """One that is large enough would never be ready if every try had two minutes."""
    _, pod = stuck("ContainerCreating", "", setting_up_since=T0)
    wait = starting.wait_of(pod, Assignment(pod=pod.name), now=T0, limit=1800, tries=tries)
    assert wait.until == after(seconds)
    assert f"within {seconds} s: its volumes or its network are not ready" in wait.verdict.message


def test_a_volume_that_cannot_be_mounted_gives_the_room_back():
    held, pod = stuck("ContainerCreating", "", setting_up_since=T0)
    waiting = run(snapshot([held], pods=[pod]))
    assert waiting.wake_at == after(120)
    status = statuses(run(snapshot([held], pods=[pod]), now=after(120)))["a"]
    assert (status.reason, units.failures(status, None)) == ("StartTimeout", (0, 1))


def test_a_large_image_that_is_being_pulled_has_its_time():
    held, pod = stuck("ContainerCreating", "")
    assert run(snapshot([held], pods=[pod])).wake_at == after(1800)
