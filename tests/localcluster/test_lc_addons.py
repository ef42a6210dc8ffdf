"""What stands in for parts of a real cluster: volumes, GPUs, checks of the host, pip settings for builds."""

import subprocess
import sys
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from rich.console import Console

from localcluster import deviceplugin, hostcheck, images, provisioner
from localcluster.errors import LocalClusterError
from localcluster.gpus import Gpus

QUIET = Console(quiet=True)


def claim(**spec) -> dict:
    metadata = {"name": "data", "namespace": "team", "uid": "u-1"}
    default = {
        "storageClassName": "standard",
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "1Gi"}},
    }
    return {"metadata": metadata, "spec": default | spec}


@pytest.mark.parametrize(
    ("one", "waits"),
    [
        (claim(), True),
        (claim(storageClassName="other"), False),
        (claim(volumeName="pvc-1"), False),
        ({**claim(), "metadata": {"deletionTimestamp": "now"}}, False),
    ],
)
def test_only_waiting_claims_of_the_class_are_answered(one: dict, waits: bool) -> None:
    assert provisioner.is_waiting(one) is waits


def test_a_volume_is_bound_to_its_claim_by_uid() -> None:
    volume = provisioner.volume_for(claim())
    assert volume["metadata"]["name"] == "pvc-u-1"
    assert volume["spec"]["claimRef"] == {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": "team",
        "name": "data",
        "uid": "u-1",
    }
    assert volume["spec"]["hostPath"]["path"].endswith("/pvc-u-1")


def test_gpus_are_described_as_feature_discovery_does() -> None:
    labels = Gpus().labels()
    assert (labels["nvidia.com/gpu.count"], labels["nvidia.com/gpu.replicas"], labels["nvidia.com/gpu.memory"]) == (
        "2",
        "4",
        "24576",
    )
    assert Gpus().slots == 8
    assert Gpus(count=0).labels() == {}
    assert not Gpus(replicas=1).labels()["nvidia.com/gpu.product"].endswith("-SHARED")
    ids = Gpus().device_ids("n")
    assert len(set(ids)) == 8
    assert len({i.split("::")[0] for i in ids}) == 2
    assert ids == Gpus().device_ids("n") != Gpus().device_ids("m")


def test_the_device_plugin_registers_lists_allocates_and_registers_again(tmp_path: Path) -> None:
    """Against a kubelet of the test's own, over the real sockets; restarted as the kubelet restarts: sockets removed, made anew."""
    messages = deviceplugin._MESSAGES

    def encode(message) -> bytes:
        return message.SerializeToString()

    def kubelet(seen: list) -> grpc.Server:
        def register(request, _context):
            seen.append(request)
            return messages["Empty"]()

        handler = grpc.unary_unary_rpc_method_handler(register, messages["RegisterRequest"].FromString, encode)
        server = grpc.server(futures.ThreadPoolExecutor(1))
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("v1beta1.Registration", {"Register": handler})]
        )
        server.add_insecure_port(f"unix:{tmp_path}/kubelet.sock")
        server.start()
        return server

    def wait(seen: list):
        for _ in range(200):
            if seen:
                return seen[0]
            futures.wait([], timeout=0)
            subprocess.run(["sleep", "0.05"], check=True)
        pytest.fail("the plugin did not register")

    process = subprocess.Popen([sys.executable, "-m", "localcluster.deviceplugin", "n", str(tmp_path)])
    try:
        first: list = []
        server = kubelet(first)
        request = wait(first)
        assert (request.version, request.resource_name) == ("v1beta1", "nvidia.com/gpu")
        with grpc.insecure_channel(f"unix:{tmp_path}/{request.endpoint}") as channel:
            watch = channel.unary_stream(
                "/v1beta1.DevicePlugin/ListAndWatch", encode, messages["ListAndWatchResponse"].FromString
            )
            stream = watch(messages["Empty"](), timeout=10)
            devices = next(stream).devices
            assert [d.ID for d in devices] == Gpus().device_ids("n")
            assert {d.health for d in devices} == {"Healthy"}
            stream.cancel()
            allocate = channel.unary_unary(
                "/v1beta1.DevicePlugin/Allocate", encode, messages["AllocateResponse"].FromString
            )
            wanted = messages["AllocateRequest"]()
            wanted.container_requests.add(devices_ids=[devices[0].ID, devices[1].ID, devices[4].ID])
            envs = allocate(wanted, timeout=10).container_responses[0].envs
            physical = [devices[i].ID.split("::")[0] for i in (0, 4)]
            assert {e.key: e.value for e in envs} == {"NVIDIA_VISIBLE_DEVICES": ",".join(physical)}
        server.stop(0).wait()
        for socket in tmp_path.glob("*.sock"):
            socket.unlink()
        second: list = []
        server = kubelet(second)
        wait(second)
        server.stop(0).wait()
    finally:
        process.kill()
        process.wait()


def test_missing_packages_without_apt_are_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(hostcheck, "_SYSTEM_PATH", str(tmp_path))
    with pytest.raises(LocalClusterError, match="containerd iproute2"):
        hostcheck.require_packages({"ctr": "containerd", "ip": "iproute2"}, QUIET)


def test_too_little_room_for_images_is_said(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(hostcheck, "_SPACE", 2**62)
    with pytest.raises(LocalClusterError, match="larger disk"):
        hostcheck.require_space(tmp_path / "not" / "yet")


def test_no_root_is_said_with_the_way_out(monkeypatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(LocalClusterError, match="--profile api"):
        hostcheck.require_root()


def test_pip_settings_of_the_machine_hold_in_a_build(monkeypatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    monkeypatch.setenv("PIP_TARGET", "/never")
    settings = images.pip_settings()
    assert "index-url = https://mirror.example/simple\n" in settings
    assert "target" not in settings
