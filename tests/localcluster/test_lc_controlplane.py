"""Starting the control plane where something stands in the way: ports, and the death of what a component needs."""

import socket
import threading
import time
from pathlib import Path

import pytest

from localcluster import controlplane, processes, state
from localcluster.errors import LocalClusterError
from localcluster.state import Layout, Settings


@pytest.fixture
def settings(own_state: Path):
    layout = Layout.of("plane")
    yield state.choose(layout, "full", 1, [])
    processes.kill_all(layout)


@pytest.mark.parametrize(
    ("component", "name"), [(component, name) for component, names in controlplane._PORTS_OF.items() for name in names]
)
def test_a_component_does_not_start_where_a_stranger_holds_one_of_its_ports(
    component: str, name: str, settings: Settings, monkeypatch
) -> None:
    monkeypatch.setattr(controlplane, "_PORT_GRACE", 0.1)
    layout, port = Layout.of("plane"), settings.ports[name]
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(LocalClusterError, match=rf"Port {port},.*its {component}.*down --name plane"),
    ):
        controlplane.launch(layout, settings, component, ["sleep", "1000"])
    assert processes.running(layout) == []


def test_a_port_that_a_dying_process_still_holds_is_waited_for(settings: Settings) -> None:
    server = socket.create_server(("127.0.0.1", settings.ports["kwok"]))
    threading.Timer(0.3, server.close).start()
    controlplane.launch(Layout.of("plane"), settings, "kwok", ["sleep", "1000"])
    deadline = time.monotonic() + 5
    while not processes.is_running(Layout.of("plane"), "kwok"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_every_port_of_a_cluster_belongs_to_a_component(settings: Settings) -> None:
    assert {name for names in controlplane._PORTS_OF.values() for name in names} == settings.ports.keys()


def test_the_failure_of_a_needed_component_is_reported_with_its_own_log(settings: Settings) -> None:
    """The API server alone would say after a minute that it reaches no etcd."""
    layout = Layout.of("plane")
    processes.start(layout, "etcd", ["sh", "-c", "echo no space left on device; exit 1"])
    processes.start(layout, "kube-apiserver", ["sleep", "1000"])
    with pytest.raises(LocalClusterError, match="(?s)^etcd of cluster plane ended.*no space left on device"):
        controlplane.wait_until(layout, "kube-apiserver", lambda: False, timeout=20, needs=("etcd",))


def test_a_component_that_is_not_ready_in_time_is_reported_with_the_end_of_its_log(settings: Settings) -> None:
    layout = Layout.of("plane")
    processes.start(layout, "etcd", ["sleep", "1000"])
    processes.start(layout, "kube-apiserver", ["sh", "-c", "echo waiting for x; sleep 1000"])
    with pytest.raises(LocalClusterError, match="(?s)kube-apiserver.* not ready after 1 s.*waiting for x"):
        controlplane.wait_until(layout, "kube-apiserver", lambda: False, timeout=1, needs=("etcd",))
