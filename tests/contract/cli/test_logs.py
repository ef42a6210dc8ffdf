"""logs, through a kubelet of the test's own: the simulated nodes have no logs. Ctrl-C, and what remains after a kill."""

import http.server
import json
import os
import pty
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from contract.cli.conftest import Jobs, Run
from kubernetes import client

from localcluster.api import Cluster
from localcluster.pki import Authority

pytestmark = pytest.mark.contract

Logs = dict[str, list[str]]


def line(event: str, **values: object) -> str:
    return json.dumps({"event": event, "level": "info", "time": "2026-01-01T12:00:00Z", **values})


class Kubelet:
    """Serves logs of pods as a kubelet does; a followed log goes on until it is `over`."""

    def __init__(self, authority: Authority) -> None:
        self.lines: Logs = {}
        self.over = threading.Event()
        kubelet = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def do_GET(self) -> None:
                path, _, query = self.path.partition("?")
                pod = path.split("/")[3]
                self.send_response(200)
                self.end_headers()
                sent = 0
                while True:
                    for text in kubelet.lines.get(pod, [])[sent:]:
                        self.wfile.write(f"{text}\n".encode())
                        sent += 1
                    self.wfile.flush()
                    if "follow=true" not in query or kubelet.over.is_set():
                        return
                    time.sleep(0.05)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        certificate, key = authority.issue("test-kubelet", "test-kubelet", hosts=("127.0.0.1",))
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate, key)
        self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def kubelet(api_cluster: Cluster, kube: client.ApiClient) -> Iterator[Kubelet]:
    made = Kubelet(Authority(api_cluster.kubeconfig.parent / "pki"))
    core = client.CoreV1Api(kube)
    core.create_node({"metadata": {"name": "test-kubelet"}})
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": made.server.server_port}},
    }
    core.patch_node_status("test-kubelet", {"status": status})
    yield made
    core.delete_node("test-kubelet")
    made.server.shutdown()


Start = Callable[..., None]


@pytest.fixture
def start(kube: client.ApiClient, namespace: str, kubelet: Kubelet) -> Iterator[Start]:
    """Starts a pod of a job, with lines in its log."""
    core = client.CoreV1Api(kube)
    kubelet.over.clear()
    accounts = core.list_namespaced_service_account
    while "default" not in {one.metadata.name for one in accounts(namespace).items}:
        time.sleep(0.05)
    made = []

    def started(uid: str, name: str, lines: list[str], *, attempt: int = 1, shard: int | None = None) -> None:
        labels = {"rfuav.io/job-uid": uid, "rfuav.io/attempt": str(attempt)}
        labels |= {} if shard is None else {"rfuav.io/shard": str(shard)}
        kubelet.lines[name] = lines
        spec = {
            "nodeName": "test-kubelet",
            "containers": [{"name": "trainer", "image": "x"}],
            "terminationGracePeriodSeconds": 0,
        }
        core.create_namespaced_pod(namespace, {"metadata": {"name": name, "labels": labels}, "spec": spec})
        core.patch_namespaced_pod_status(name, namespace, {"status": {"phase": "Running"}})
        made.append(name)

    yield started
    kubelet.over.set()
    for name in made:
        core.delete_namespaced_pod(name, namespace, grace_period_seconds=0)


def test_lines_of_the_newest_attempt_are_readable(rfuav: Run, jobs: Jobs, start: Start) -> None:
    uid = jobs.create("first")["metadata"]["uid"]
    start(uid, "first-1", [line("broken", level="error")])
    start(uid, "first-2", [line("epoch", epoch=3, valLoss=0.25), "NCCL INFO ring"], attempt=2)
    done = rfuav("logs", "first")
    assert (done.code, done.out) == (0, "2026-01-01T12:00:00Z epoch  epoch=3  valLoss=0.25\nNCCL INFO ring\n")
    assert rfuav("logs", "first", "--attempt", "1").out == "2026-01-01T12:00:00Z error broken\n"
    assert json.loads(rfuav("logs", "first", "--raw").out.splitlines()[0])["epoch"] == 3
    assert rfuav("logs", "first", "--attempt", "7").code == 3


def test_shards_have_their_number_in_front(rfuav: Run, jobs: Jobs, start: Start) -> None:
    uid = jobs.create("many", "InferenceJob", shards=2, parallelism=2)["metadata"]["uid"]
    for shard in (0, 1):
        start(uid, f"many-{shard}", [line("read", files=shard)], shard=shard)
    assert rfuav("logs", "many").out.splitlines() == [
        "[0] 2026-01-01T12:00:00Z read  files=0",
        "[1] 2026-01-01T12:00:00Z read  files=1",
    ]
    assert rfuav("logs", "many", "--shard", "1").out == "2026-01-01T12:00:00Z read  files=1\n"


def test_a_job_without_pods_says_why_or_where_its_log_is(rfuav: Run, jobs: Jobs) -> None:
    jobs.create("new", status={"phase": "Queued", "message": "no room"})
    done = rfuav("logs", "new")
    assert done.code == 3
    assert "has not run yet (no room): add -f to wait for it" in done.err
    jobs.create("old", status={"phase": "Succeeded", "startedAt": "2026-01-01T00:00:00Z"})
    done = rfuav("logs", "old")
    assert (done.code, done.err) == (3, "error: the pods of tj/old are gone: its log is pvc://models/a/log.jsonl\n")
    assert "pvc://models/a/log.jsonl" in rfuav("logs", "old", "-f").err


def test_following_goes_on_with_the_next_attempt_and_ends_with_the_job(
    rfuav: Run, jobs: Jobs, start: Start, kubelet: Kubelet
) -> None:
    uid = jobs.create("first", status={"phase": "Running"})["metadata"]["uid"]
    start(uid, "first-1", [line("one")])

    def live() -> None:
        time.sleep(1)
        kubelet.lines["first-1"].append(line("two"))
        start(uid, "first-2", [line("three")], attempt=2)
        time.sleep(2)
        jobs.status("first", phase="Succeeded")
        kubelet.over.set()

    thread = threading.Thread(target=live)
    thread.start()
    done = rfuav("logs", "first", "-f")
    thread.join()
    assert done.code == 0
    assert sorted(text.split()[-1] for text in done.out.splitlines()) == ["one", "three", "two"]


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def proxies() -> set[int]:
    """Processes `kubectl proxy` of this plugin."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"proxy" in words and any(w.startswith(b"--unix-socket=") for w in words):
            found.add(int(entry.parent.name))
    return found


@pytest.mark.parametrize("words", [("top", "-w"), ("logs", "first", "-f"), ("wait", "first"), ("queue", "-w")])
def test_ctrl_c_ends_it_without_a_trace(
    program: Callable[..., subprocess.Popen], jobs: Jobs, start: Start, words
) -> None:
    before = proxies()
    uid = jobs.create("first", status={"phase": "Queued", "message": "no room"})["metadata"]["uid"]
    start(uid, "first-1", [line("one")])
    running = program("kubectl-rfuav", *words)
    assert words[0] == "wait" or running.stdout.readline()
    until(lambda: proxies() - before)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=20)
    assert (running.returncode, err) == (130, "")
    assert proxies() <= before


def test_a_terminal_is_redrawn_in_place(program: Callable[..., subprocess.Popen], jobs: Jobs) -> None:
    jobs.create("first", status={"phase": "Queued", "message": "no room", "reason": "WaitingForCapacity"})
    ours, theirs = pty.openpty()
    os.environ["COLUMNS"] = "70"
    running = program("kubectl-rfuav", "queue", "-w", "--interval=0.5", stdout=theirs, stderr=theirs)
    del os.environ["COLUMNS"]
    os.close(theirs)
    seen = b""
    while seen.count(b"tj/first") < 2:
        seen += os.read(ours, 65536)
    running.send_signal(signal.SIGINT)
    try:
        while chunk := os.read(ours, 65536):
            seen += chunk
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert running.wait(20) == 130
    text = seen.decode()
    assert "\x1b[" in text
    assert "no room" in text
    assert "Traceback" not in text


def test_a_kill_leaves_no_kubectl_behind(program: Callable[..., subprocess.Popen], jobs: Jobs) -> None:
    jobs.create("first", status={"phase": "Queued"})
    before = proxies()
    running = program("kubectl-rfuav", "wait", "first")
    until(lambda: proxies() - before)
    running.kill()
    running.communicate()
    until(lambda: not proxies() - before)


def test_a_pipe_that_is_closed_early_is_no_error(program: Callable[..., subprocess.Popen], jobs: Jobs) -> None:
    jobs.create("first", status={"phase": "Queued"})
    running = program("sh", "-c", "kubectl-rfuav queue -o json | true")
    assert running.communicate(timeout=20)[1] == ""
