"""The demo succeeds only if the REST gateway has its jobs as tasks."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from demo import gateway, run
from demo.errors import DemoError

VALUES = yaml.safe_load((Path(__file__).parents[3] / "demo/values.yaml").read_text())["gateway"]


@pytest.fixture
def served():
    """A server that answers with what the list holds, one after the other and the last one again; and its URL."""
    answers = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.path == "/api/v2/tasks?status=completed"
            content = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content if isinstance(content, bytes) else json.dumps(content).encode())

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield answers, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def counts(trainings, inferences):
    return {"total_training": trainings, "total_inference": inferences}


def test_it_waits_until_the_gateway_has_all_tasks(served):
    answers, url = served
    answers += [b"not JSON", counts(4, 5), counts(4, 6)]
    gateway.check(url, trainings=4, inferences=6)
    assert answers == [counts(4, 6)]


def test_tasks_that_are_missing_are_an_error(served, monkeypatch):
    monkeypatch.setattr(gateway, "WAIT_SECONDS", 0.2)
    answers, url = served
    answers.append(counts(4, 5))
    with pytest.raises(DemoError, match=r"4 completed trainings and 6 inferences: 4 trainings and 5 inferences"):
        gateway.check(url, trainings=4, inferences=6)


def test_no_gateway_is_an_error(monkeypatch):
    monkeypatch.setattr(gateway, "WAIT_SECONDS", 0.2)
    with pytest.raises(DemoError, match="refused"):
        gateway.check("http://127.0.0.1:9", trainings=4, inferences=6)


def test_the_address_is_that_of_a_node():
    class StandIn:
        def kubectl(self, *_):
            return "10.129.0.10 10.129.0.11"

    assert gateway.address(StandIn()) == f"http://10.129.0.10:{VALUES['service']['nodePort']}"
    assert VALUES["settings"]["compat"]["namespace"] == run.NAMESPACE
