"""The api profile, for real: etcd, API server, scheduler and KWOK as this user."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kubernetes import client, config

from localcluster import api, cli, controlplane, processes, simulation, state
from localcluster.errors import LocalClusterError
from localcluster.gpus import Gpus
from localcluster.state import Layout

pytestmark = pytest.mark.contract
ROOT = Path(__file__).resolve().parents[2]
P = simulation.ANNOTATION_PREFIX


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        try:
            yield api.up("one", "api", use_kubeconfig=False)
        finally:
            api.down("one")
            assert processes.running(Layout.of("one")) == []
            assert state.all_names() == []


def core_of(cluster: api.Cluster) -> client.CoreV1Api:
    return client.CoreV1Api(config.new_client_from_config(str(cluster.kubeconfig)))


def wait(look, what: str, seconds: float = 20):
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.1)
    return found


def printed(capfd, monkeypatch, *arguments: str) -> str:
    """What the command line prints to stdout when all is well."""
    monkeypatch.setattr(sys, "argv", ["localcluster", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capfd.readouterr()
    assert ended.value.code == 0, err
    return out


def make(*arguments: str) -> str:
    """What make prints to stdout, also when it was make that started the tests."""
    environment = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}}
    command = ["make", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_the_kubeconfigs_path_is_printed_and_nothing_else(cluster: api.Cluster, capfd, monkeypatch) -> None:
    assert printed(capfd, monkeypatch, "kubeconfig", "--name", "one") == f"{cluster.kubeconfig}\n"
    assert printed(capfd, monkeypatch, "up", "--profile", "api", "--name", "one") == f"{cluster.kubeconfig}\n"


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_kubeconfig_prints_the_path_and_nothing_else_and_rebuilds_nothing(cluster: api.Cluster) -> None:
    assert make("kubeconfig", "NAME=one", f"PY={sys.executable}") == f"{cluster.kubeconfig}\n"
    # as if the locked versions had just changed: what would be run is still one command
    (would_run,) = make("--dry-run", "--what-if=requirements/dev.txt", "kubeconfig", "NAME=one").splitlines()
    assert would_run.endswith("-m localcluster kubeconfig --name one")


def test_status_names_the_profile_and_what_runs(cluster: api.Cluster, capfd, monkeypatch) -> None:
    for arguments in (["status"], ["status", "--name", "one"]):
        lines = [line.replace("│", " ").split() for line in printed(capfd, monkeypatch, *arguments).splitlines()]
        assert ["one", "api", "API", "server", "ready", "5"] in lines
        of = {line[0]: line[1:] for line in lines if line}
        for process in processes.running(Layout.of("one")):
            assert of[process.component] == [str(process.pid)]
        assert of.keys() >= {*controlplane.COMPONENTS, "kwok"}


def test_logs_names_the_components_and_prints_the_log_of_one(cluster: api.Cluster, capfd, monkeypatch) -> None:
    have = printed(capfd, monkeypatch, "logs", "--name", "one").splitlines()
    assert {*controlplane.COMPONENTS, "kwok", "audit"} <= set(have)
    log = processes.log_path(Layout.of("one"), "kwok")
    before = log.read_text().splitlines()[-5:]
    assert before
    assert "\n".join(before) in printed(capfd, monkeypatch, "logs", "kwok", "--name", "one")


def test_simulated_pods_run_and_end_as_their_annotations_say(cluster: api.Cluster) -> None:
    core = core_of(cluster)
    simulation.create_nodes(cluster.kubeconfig, 1)
    simulation.create_nodes(cluster.kubeconfig, 1, prefix="cpu", gpus=Gpus(0))
    wait(
        lambda: any(c.type == "Ready" and c.status == "True" for c in core.read_node("gpu-0").status.conditions or []),
        "Ready",
    )
    assert core.read_node("gpu-0").status.allocatable["nvidia.com/gpu"] == "8"
    assert "nvidia.com/gpu" not in core.read_node("cpu-0").status.allocatable
    wait(lambda: core.list_namespaced_service_account("default").items, "the default service account")
    annotations = {
        "good": {"run-for": "1s"},
        "bad": {"run-for": "1s", "exit-code": "137", "exit-reason": "OOMKilled"},
        "endless": {},
        "slow": {"start-after": "1h"},
    }
    for name, how in annotations.items():
        container = client.V1Container(
            name="c", image="none", resources=client.V1ResourceRequirements(limits={"nvidia.com/gpu": "1"})
        )
        metadata = client.V1ObjectMeta(name=name, annotations={P + key: value for key, value in how.items()})
        core.create_namespaced_pod(
            "default",
            client.V1Pod(metadata=metadata, spec=client.V1PodSpec(restart_policy="Never", containers=[container])),
        )

    def phases() -> dict:
        return {p.metadata.name: p.status.phase for p in core.list_namespaced_pod("default").items}

    wait(
        lambda: phases() == {"good": "Succeeded", "bad": "Failed", "endless": "Running", "slow": "Pending"},
        "the four phases",
    )
    ended = core.read_namespaced_pod("bad", "default").status.container_statuses[0].state.terminated
    assert (ended.exit_code, ended.reason) == (137, "OOMKilled")
    core.delete_namespaced_pod("endless", "default")
    wait(lambda: "endless" not in phases(), "deleted")


def test_the_issuer_and_the_keys_of_service_account_tokens_are_published(cluster: api.Cluster) -> None:
    api_client = config.new_client_from_config(str(cluster.kubeconfig))
    keys = client.OpenidApi(api_client).get_service_account_issuer_open_id_keyset()
    assert '"kid"' in keys or "'kid'" in keys
    settings = client.WellKnownApi(api_client).get_service_account_issuer_open_id_configuration()
    assert "https://kubernetes.default.svc.cluster.local" in settings


def test_writes_can_be_counted_in_the_audit_log(cluster: api.Cluster) -> None:
    core_of(cluster).create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name="counted")))
    wait(
        lambda: any('"verb":"create"' in line and '"name":"counted"' in line for line in cluster.audit_log.open()),
        "in the audit log",
        5,
    )


def test_up_again_changes_nothing_and_another_shape_is_refused(cluster: api.Cluster) -> None:
    before = {p.pid for p in processes.running(Layout.of("one"))}
    assert api.up("one", "api", use_kubeconfig=False) == cluster
    assert {p.pid for p in processes.running(Layout.of("one"))} == before
    assert api.get("one") == cluster
    with pytest.raises(LocalClusterError, match="down --name one"):
        api.up("one", "api", nodes=2, use_kubeconfig=False)


def test_after_a_crash_up_brings_back_what_is_missing_with_its_data(cluster: api.Cluster) -> None:
    core_of(cluster).create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name="kept")))
    for process in processes.running(Layout.of("one")):
        os.kill(process.pid, signal.SIGKILL)
    wait(lambda: not processes.running(Layout.of("one")), "all dead")
    assert api.get("one") is None
    again = api.up("one", "api", use_kubeconfig=False)
    assert core_of(again).read_namespace("kept").metadata.name == "kept"


def test_a_port_taken_meanwhile_is_an_error_that_names_it_and_the_way_out(cluster: api.Cluster) -> None:
    layout = Layout.of("one")
    settings = state.load(layout)
    port = settings.ports["apiserver"]
    (server,) = [p for p in processes.running(layout) if p.component == "kube-apiserver"]
    os.kill(server.pid, signal.SIGKILL)
    wait(lambda: state.port_is_free(port), "the port is free")
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(LocalClusterError, match=rf"Port {port}.*kube-apiserver.*sport = :{port}.*down --name one"),
    ):
        api.up("one", "api", use_kubeconfig=False)
    assert api.up("one", "api", use_kubeconfig=False) == cluster  # and once it is free all is as before
    assert state.load(layout) == settings


def test_two_clusters_run_side_by_side_and_one_stops_alone(cluster: api.Cluster) -> None:
    other = api.up("two", "api", use_kubeconfig=False)
    try:
        assert core_of(other).list_namespace().items
        with pytest.raises(client.ApiException):
            core_of(other).read_namespace("kept")
    finally:
        folder = Path(other.kubeconfig).parent
        api.down("two")
    assert not folder.exists()
    assert api.get("one") is not None
