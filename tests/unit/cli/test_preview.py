"""What a preview says, and how a gateway is asked."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from unit.cli.bodies import NOW

from rfuav_cli import main
from rfuav_cli.commands.preview import story

NONE: dict[str, Any] = {"starts_now": False, "nodes": [], "position": None, "of": None, "estimated_start": None}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"starts_now": True, "nodes": ["gpu-1", "gpu-2"]}, "It would start now on gpu-1, gpu-2"),
        ({"starts_now": True}, "It would start on a new node"),
        ({"reason": "OnHold", "why": "the pool is on hold"}, "It would wait (OnHold): the pool is on hold"),
        (
            {"reason": "R", "why": "w", "position": 2, "of": 3, "estimated_start": "2026-01-01T12:10:00Z"},
            "It would wait in place 2 of 3 and start in about 10m (R): w",
        ),
    ],
)
def test_a_preview_in_a_sentence(found, words):
    assert story({**NONE, **found}, NOW) == words


class Gateway(http.server.BaseHTTPRequestHandler):
    """Answers as it was told, and remembers what it was asked."""

    answer: tuple[int, bytes] = (200, b"{}")
    asked: tuple[str, str | None, Any] = ("", None, None)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked = self.path, self.headers["Authorization"], body
        self.send_response(self.answer[0])
        self.end_headers()
        self.wfile.write(self.answer[1])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    words = ["submit", "train", "first", "--data", "pvc://captures/train", "--to", "pvc://models/first"]
    assert main.run([*words, "--dry-run=client", "-o", "yaml"]) == 0  # asks no cluster
    path = tmp_path / "job.yaml"
    path.write_text(capsys.readouterr().out)
    return str(path)


def test_a_gateway_is_asked_in_the_namespace_with_the_token(
    url: str, job: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("RFUAV_TOKEN", "secret")
    Gateway.answer = 200, json.dumps({**NONE, "message": "Place 1 of 1: no room", "reason": "R"}).encode()
    assert main.run(["preview", "-f", job, "--gateway", f"{url}/", "-n", "team-a"]) == 0
    assert capsys.readouterr().out == "Place 1 of 1: no room\n"
    path, token, body = Gateway.asked
    assert (path, token) == ("/ns/team-a/api/v2/preview", "Bearer secret")
    assert body == {"manifest": yaml.safe_load(Path(job).read_text())}


REFUSALS = [
    (401, b'{"detail": "a token is needed"}', 3, "a token is needed. Put your token into RFUAV_TOKEN"),
    (422, b'{"detail": "spec.x is wrong"}', 2, "the gateway says: spec.x is wrong"),
    (503, b"<html>busy</html>", 1, "the gateway says: Service Unavailable"),
    (200, b"<html>a portal</html>", 4, "no answer"),
    (200, b"[]", 4, "the answer is none of a gateway"),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal[3])
def test_a_gateway_that_refuses(url: str, job: str, capsys: pytest.CaptureFixture[str], refusal):
    *Gateway.answer, code, words = refusal
    assert main.run(["preview", "-f", job, "--gateway", url, "-n", "team-a"]) == code
    assert words in capsys.readouterr().err


def test_a_token_goes_to_no_other_machine_in_the_clear(
    job: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("RFUAV_TOKEN", "secret")
    assert main.run(["preview", "-f", job, "--gateway", "http://rfuav.example.org", "-n", "team-a"]) == 2
    assert "over https alone" in capsys.readouterr().err
