"""Progress reports over real TLS: the latest value wins, nothing blocks, the last one always arrives."""

import contextlib
import datetime as dt
import http.server
import itertools
import json
import ssl
import threading
import time
from functools import partial

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from trainer import trainer_kit

from rfuav_crds import contract
from rfuav_trainer.reporting.progress import Progress, Server


def certificate(folder, name="ca"):
    """A self-signed certificate for localhost, also its own CA: (certificate file, key file)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    today = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(subject).public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(today - dt.timedelta(days=1)).not_valid_after(today + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    crt, pem = folder / f"{name}.crt", folder / f"{name}.key"
    crt.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return crt, pem


class Intake:
    """A TLS server that notes every report and answers from a list of (status, headers), the last one for ever."""

    def __init__(self, crt, key):
        self.received, self.tokens, self.times, self.paths = [], [], [], []
        self.answers = [(200, {})]
        self.go_on = threading.Event()  # until then no report is answered
        self.go_on.set()
        intake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                intake.go_on.wait(60)
                intake.times.append(time.monotonic())
                intake.tokens.append(self.headers.get("Authorization"))
                intake.paths.append(self.path)
                status, headers = intake.answers.pop(0) if len(intake.answers) > 1 else intake.answers[0]
                if status == 200:
                    intake.received.append(body)
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("localhost", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(crt, key)
        self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self):
        return (
            f"https://localhost:{self.http.server_address[1]}/apis/rfuav.io/v1alpha1/namespaces/n/trainingjobs/j/status"
        )

    def sequences(self):
        return [body["trainerStatus"]["rfuav"]["sequence"] for body in self.received]


@pytest.fixture
def intake(tmp_path):
    (tmp_path / "token").write_text("first\n")
    server = Intake(*certificate(tmp_path))
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def server(intake, tmp_path):
    return Server(intake.url, tmp_path / "ca.crt", tmp_path / "token")


def status(percent):
    return {"progressPercentage": percent, "metrics": [{"name": "valLoss", "value": "0.5"}], "rfuav": {"epoch": 1}}


until = partial(trainer_kit.until, seconds=60.0, pause=0.01)


def test_a_report_as_the_pod_contract_words_it(intake, server):
    progress = Progress(server, interval=0.05)
    progress.update(status(45))
    progress.close()
    body = intake.received[-1]["trainerStatus"]
    assert body["progressPercentage"] == 45
    assert body["metrics"] == [{"name": "valLoss", "value": "0.5"}]
    assert dt.datetime.fromisoformat(body["lastUpdatedTime"]).tzinfo is not None
    assert body["rfuav"]["epoch"] == 1
    assert body["rfuav"]["final"] is True
    assert intake.tokens[-1] == "Bearer first"
    assert intake.paths[-1] == "/apis/rfuav.io/v1alpha1/namespaces/n/trainingjobs/j/status"


def test_the_latest_value_wins_and_no_two_posts_are_closer_than_the_interval(intake, server, monkeypatch):
    sent, post = [], Server.post

    def timed(*args):
        sent.append(time.monotonic())
        return post(*args)

    monkeypatch.setattr(Server, "post", timed)
    progress = Progress(server, interval=0.3)
    for percent in range(60):
        progress.update(status(percent))
        time.sleep(0.01)
    until(lambda: intake.received and intake.received[-1]["trainerStatus"]["progressPercentage"] == 59)
    assert all(later - earlier > 0.29 for earlier, later in itertools.pairwise(sent))
    assert intake.sequences() == sorted(set(intake.sequences()))
    progress.close()


def test_a_slow_server_does_not_hold_the_training_up(intake, server):
    intake.go_on.clear()
    progress = Progress(server, interval=0.01, final_wait=0.2)
    for percent in range(100):
        progress.update(status(percent))
    progress.close()
    assert not intake.times  # nothing was answered until here
    intake.go_on.set()


def test_the_final_value_is_sent_at_once_though_the_interval_is_long(intake, server):
    progress = Progress(server, interval=60)
    progress.update(status(1))
    until(lambda: len(intake.received) == 1)
    progress.update(status(99))
    started = time.monotonic()
    progress.close()
    assert time.monotonic() - started < 30
    assert intake.received[-1]["trainerStatus"]["progressPercentage"] == 99
    assert intake.received[-1]["trainerStatus"]["rfuav"]["final"] is True


def test_too_many_requests_waits_as_long_as_it_is_told(intake, server):
    intake.answers = [(429, {"Retry-After": "1"}), (200, {})]
    progress = Progress(server, interval=0.01)
    progress.update(status(7))
    until(lambda: intake.received)
    assert 1.0 <= intake.times[1] - intake.times[0] < 30
    progress.close()


@pytest.mark.parametrize("code", [401, 403, 500, 503])
def test_what_may_pass_is_tried_again(intake, server, code):
    intake.answers = [(code, {}), (code, {}), (200, {})]
    progress = Progress(server, interval=0.05)
    progress.update(status(7))
    until(lambda: intake.received)
    assert len(intake.times) == 3
    progress.close()


def shown(intake):
    return [body["trainerStatus"]["rfuav"].get("results") for body in intake.received]


def test_results_are_sent_when_they_are_new_not_too_often_and_with_the_last_report(intake, server):
    progress = Progress(server, interval=0.01)
    progress.results({"classes": ["a"]})
    for percent in range(3):
        progress.update(status(percent))
        until(lambda: intake.received and intake.received[-1]["trainerStatus"]["progressPercentage"] == percent)  # noqa: B023
        progress.results({"classes": [f"b{percent}"]})
    progress.close()
    assert shown(intake) == [{"classes": ["a"]}, None, None, {"classes": ["b2"]}]
    assert "results" not in progress.last["rfuav"]  # the termination message has no room for them


def test_results_whose_report_failed_are_sent_again(intake, server):
    intake.answers = [(503, {}), (200, {})]
    progress = Progress(server, interval=0.01)
    progress.results({"classes": ["a"]})
    progress.update(status(1))
    until(lambda: intake.received)
    assert shown(intake) == [{"classes": ["a"]}]
    progress.close()


@pytest.mark.parametrize("code", [404, 409, 413, 422])
def test_what_is_refused_is_not_sent_again(intake, server, code):
    intake.answers = [(code, {}), (200, {})]
    progress = Progress(server, interval=0.05)
    progress.update(status(7))
    until(lambda: len(intake.times) == 1)
    time.sleep(0.3)
    assert len(intake.times) == 1
    progress.update(status(8))
    until(lambda: intake.received)
    assert intake.received[0]["trainerStatus"]["progressPercentage"] == 8
    progress.close()


def test_the_token_is_read_again_for_every_report(intake, server, tmp_path):
    progress = Progress(server, interval=0.05)
    progress.update(status(1))
    until(lambda: len(intake.tokens) == 1)
    (tmp_path / "token").write_text("second\n")
    progress.update(status(2))
    until(lambda: "Bearer second" in intake.tokens)
    progress.close()


def test_a_server_with_another_certificate_gets_nothing(intake, tmp_path):
    (tmp_path / "other").mkdir()
    stranger, _ = certificate(tmp_path / "other")
    progress = Progress(Server(intake.url, stranger, tmp_path / "token"), interval=0.05, final_wait=0.5)
    progress.update(status(1))
    progress.close()
    assert intake.tokens == []


def test_the_last_report_is_sent_with_growing_pauses_until_it_is_taken(intake, server):
    intake.answers = [*[(503, {})] * 4, (200, {})]
    progress = Progress(server, interval=60)
    progress.update(status(1))
    until(lambda: len(intake.times) == 1)
    started = time.monotonic()
    progress.close()
    assert intake.received[-1]["trainerStatus"]["rfuav"]["final"] is True
    assert time.monotonic() - intake.times[-1] < 2  # the answer ends the wait
    assert time.monotonic() - started < 30
    pauses = [later - earlier for earlier, later in itertools.pairwise(intake.times[1:])]
    assert all(pause >= 0.19 * 2**number for number, pause in enumerate(pauses)), pauses


def test_a_sigterm_during_the_wait_shortens_it(intake, server):
    intake.go_on.clear()
    progress = Progress(server, interval=0.01)
    progress.update(status(1))
    began, asked = time.monotonic(), itertools.count()
    progress.close(leave_by=lambda: began + (1.5 if next(asked) > 3 else 600))
    assert 1.0 <= time.monotonic() - began < 10
    intake.go_on.set()


def test_a_grace_period_that_is_over_leaves_a_moment(intake, server):
    progress = Progress(server, interval=60)
    progress.update(status(1))
    progress.close(leave_by=lambda: time.monotonic() - 100)
    assert intake.received[-1]["trainerStatus"]["rfuav"]["final"] is True


@pytest.mark.parametrize("broken", ["https://localhost:1/x", "https://no.such.host.invalid/x"])
def test_no_server_at_all(tmp_path, broken):
    started = time.monotonic()
    progress = Progress(Server(broken, None, None), interval=0.05, final_wait=0.5)
    progress.update(status(1))
    progress.close()
    assert time.monotonic() - started < 60
    assert progress.last["progressPercentage"] == 1


def test_the_sequence_grows_over_a_restart():
    first = Progress(None)
    for percent in range(5):
        first.update(status(percent))
    time.sleep(0.02)
    second = Progress(None)
    second.update(status(0))
    assert second.last["rfuav"]["sequence"] > first.last["rfuav"]["sequence"]


def test_the_environment_names_the_server(monkeypatch):
    monkeypatch.delenv(contract.PROGRESS_URL, raising=False)
    assert Server.from_environment() is None
    monkeypatch.setenv(contract.PROGRESS_URL, "https://x/y")
    monkeypatch.setenv(contract.PROGRESS_CA, "/ca")
    monkeypatch.setenv(contract.PROGRESS_TOKEN, "/token")
    found = Server.from_environment()
    assert (found.url, str(found.ca_file), str(found.token_file)) == ("https://x/y", "/ca", "/token")
