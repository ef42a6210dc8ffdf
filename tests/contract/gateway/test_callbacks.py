"""Callbacks of tasks that end on a real API server, to a receiver that is well, broken, slow or away."""

import base64
import hmac
import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from contract.gateway.conftest import Gateway, Serve, User
from contract.gateway.test_tasks import TRAINING
from contract.operator.conftest import free_port
from kubernetes import client

from rfuav_crds.contract import GROUP, VERSION

pytestmark = pytest.mark.contract
KEY = bytes(range(32))


class Came(NamedTuple):
    """A request of a callback."""

    path: str
    id: str
    body: dict[str, Any]


class Receiver:
    """A server: what came, and how each path answers."""

    def __init__(self) -> None:
        self.port = free_port()
        self.came: list[Came] = []
        self.broken: Counter[str] = Counter({"/twice": 1})  # answers of 500 that are still to come
        self._server: ThreadingHTTPServer | None = None

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def start(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                signed = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + body
                right = base64.b64encode(hmac.new(KEY, signed, sha256).digest()).decode()
                assert self.headers["webhook-signature"] == f"v1,{right}"
                assert abs(int(self.headers["webhook-timestamp"]) - time.time()) < 60
                receiver.came.append(Came(self.path, self.headers["webhook-id"], json.loads(body)))
                if self.path.startswith("/slow"):
                    time.sleep(3)
                receiver.broken[self.path] -= 1
                self.send_response(500 if receiver.broken[self.path] >= 0 else 204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def wait(self, count: int, seconds: float = 40) -> list[str]:
        """The paths, as soon as so many have come."""
        deadline = time.monotonic() + seconds
        while len(self.came) < count and time.monotonic() < deadline:
            time.sleep(0.05)
        return sorted(one.path for one in self.came)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def settings(namespace: str, tmp_path: Path) -> dict[str, Any]:
    """Of a gateway that calls the loopback too."""
    secret = tmp_path / "secret"
    secret.write_text(f"whsec_{base64.b64encode(KEY).decode()}\n")
    return {"callbacks": {"secretFile": str(secret), "allow": ["127.0.0.0/8"], "namespace": namespace}}


@pytest.fixture
def alice(user: Callable[..., User]) -> User:
    return user("get", "list", "create")


@pytest.fixture
def end(kube: client.ApiClient, namespace: str) -> Callable[[str], None]:
    """Ends the task of an id, as the operator would."""
    api = client.CustomObjectsApi(kube)

    def write(task_id: str) -> None:
        for job in api.list_namespaced_custom_object(GROUP, VERSION, namespace, "trainingjobs")["items"]:
            if job["metadata"]["annotations"]["rfuav.io/task-id"] == task_id:
                status = {"phase": "Succeeded", "message": "done", "finishedAt": datetime.now(UTC).isoformat()}
                at = (GROUP, VERSION, namespace, "trainingjobs", job["metadata"]["name"])
                api.patch_namespaced_custom_object_status(*at, {"status": status})

    return write


def start(gateway: Gateway, alice: User, receiver: Receiver, name: str) -> None:
    body = TRAINING | {"task_id": name, "callback_url": receiver.url(f"/{name}")}
    answer = gateway.call("POST", "/api/v2/training/start", body, token=alice.token)
    assert answer.status == 200, answer


@pytest.mark.timeout(900)  # it starts a gateway four times
def test_each_end_is_told_once_over_broken_and_slow_receivers_and_restarts(
    serve: Serve, settings: dict[str, Any], alice: User, receiver: Receiver, end
) -> None:
    with serve(**settings) as gateway, serve(**settings) as other:
        time.sleep(1)
        for name in ("slow1", "slow2", "once", "twice", "away", "running"):
            start(gateway, alice, receiver, name)
        began = time.monotonic()
        for name in ("slow1", "slow2", "once", "twice"):
            end(name)
        assert receiver.wait(5) == ["/once", "/slow1", "/slow2", "/twice", "/twice"]
        assert time.monotonic() - began < 20
        assert len({one.id for one in receiver.came}) == 4  # a message keeps its id
        told = next(one.body for one in receiver.came if one.path == "/once")
        assert (told["type"], told["data"]["task_id"], told["data"]["status"]) == (
            "task.completed",
            "once",
            "completed",
        )
        time.sleep(4)  # the slow ones are answered, and the record is written
        receiver.stop()
        receiver.came.clear()
        end("away")
        time.sleep(2)  # it is tried in vain
        for killed in (gateway, other):
            killed.stop(signal.SIGKILL)
        receiver.start()
        gateway.start()
        assert receiver.wait(1) == ["/away"]  # the Lease of those that were killed runs out first
        end("running")
        assert receiver.wait(2) == ["/away", "/running"]
        gateway.stop()
        other.start()  # the Lease was given back
        time.sleep(3)
        assert receiver.wait(3, seconds=1) == ["/away", "/running"]


def test_a_callback_into_the_network_is_refused_when_it_is_created_and_when_its_name_leads_there(
    serve: Serve, settings: dict[str, Any], alice: User, receiver: Receiver, end
) -> None:
    settings["callbacks"]["allow"] = []
    hook = {"callback_url": receiver.url("/inside")}
    with serve(**settings) as careful:
        answer = careful.call("POST", "/api/v2/training/start", TRAINING | hook, token=alice.token)
        assert (answer.status, answer.body["detail"][0]["loc"]) == (422, ["body", "callback_url"])
        named = {"task_id": "named", "callback_url": f"http://localhost:{receiver.port}/inside"}
        answer = careful.call("POST", "/api/v2/training/start", TRAINING | named, token=alice.token)
        assert answer.status == 200, answer
        end("named")
        deadline = time.monotonic() + 20
        while "not an address that callbacks may go to" not in careful.log.read_text():
            assert time.monotonic() < deadline, careful.log.read_text()
            time.sleep(0.1)
    assert receiver.came == []
