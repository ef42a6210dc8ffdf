"""What stands in for parts of a real cluster: volumes, GPUs, checks of the host, pip settings for builds."""

import os
import subprocess
import sys
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from rich.console import Console

from localcluster import api, binaries, deviceplugin, hostcheck, images, provisioner, selection, state
from localcluster.errors import LocalClusterError
from localcluster.gpus import Gpus
from localcluster.state import Layout

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
    monkeypatch.setattr(hostcheck, "_SPACE", {"full": 2**62})
    with pytest.raises(LocalClusterError, match="larger disk"):
        hostcheck.require_space(tmp_path / "not" / "yet")


def test_only_a_new_cluster_asks_for_room(own_state: Path, monkeypatch) -> None:
    """One that is there must come back, and answer, however full the disk has become."""
    monkeypatch.setattr(hostcheck, "_SPACE", {"api": 2**62})
    monkeypatch.setattr(binaries, "ensure", lambda *_: pytest.fail("far enough"))
    with pytest.raises(LocalClusterError, match="The api profile needs"):
        api.up("new", "api", use_kubeconfig=False)
    assert state.load(Layout.of("new")) is None
    state.choose(Layout.of("old"), "api", 1, [])
    with pytest.raises(pytest.fail.Exception, match="far enough"):
        api.up("old", "api", use_kubeconfig=False)


def test_addresses_are_chosen_once_the_command_that_lists_used_ones_exists(own_state: Path, monkeypatch) -> None:
    for check in ("require_root", "require_cgroups", "require_space"):
        monkeypatch.setattr(hostcheck, check, lambda *_: None)
    monkeypatch.setattr(selection, "choose", lambda *_, **__: selection.Choice("embedded", "for the test"))
    monkeypatch.setattr(hostcheck, "require_packages", lambda *_, **__: pytest.fail("installing"))
    with pytest.raises(pytest.fail.Exception, match="installing"):
        api.up("new", "full")
    assert state.load(Layout.of("new")) is None


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


def test_pip_settings_are_found_where_no_pip_is_in_path(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    assert "index-url = https://mirror.example/simple\n" in images.pip_settings()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_what_a_failed_base_image_had_mounted_is_gone(script, own_cache: Path, tmp_path: Path, monkeypatch) -> None:
    script(tmp_path / "bin", "buildah", "exit 1")
    script(tmp_path / "bin", "debootstrap", 'mkdir -p "$4/proc"; mount -t tmpfs none "$4/proc"; kill -9 $$')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with pytest.raises(LocalClusterError, match="base image"):
        images.ensure_base(QUIET)
    assert str(own_cache) not in Path("/proc/self/mounts").read_text()
    assert list((own_cache / "rfuav-localcluster" / "images").iterdir()) == []


def test_system_commands_are_found_where_su_left_them_out_of_path(
    script, own_cache: Path, tmp_path: Path, monkeypatch
) -> None:
    script(tmp_path / "bin", "buildah", "exit 1")
    script(tmp_path / "sbin", "debootstrap", "echo found >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(hostcheck, "_SYSTEM_PATH", str(tmp_path / "sbin"))
    with pytest.raises(LocalClusterError, match="(?s)base image.*found"):
        images.ensure_base(QUIET)
