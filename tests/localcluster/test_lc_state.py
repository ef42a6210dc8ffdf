import fcntl
import socket
import subprocess
import sys
import threading
from ipaddress import IPv4Network
from itertools import combinations
from pathlib import Path

import pytest

from localcluster import state
from localcluster.errors import LocalClusterError
from localcluster.state import Layout, Settings


@pytest.mark.parametrize("name", ["rfuav", "a", "e2e-1", "x" * 20])
def test_good_names(name: str) -> None:
    assert state.check_name(name) == name


@pytest.mark.parametrize("name", ["", "Rfuav", "1a", "a-", "-a", "a_b", "x" * 21, "../etc", "a b", "a\n"])
def test_bad_names_say_which_are_good(name: str) -> None:
    with pytest.raises(LocalClusterError, match="lower-case"):
        state.check_name(name)


def test_what_is_owned_outside_the_folder_differs_between_state_roots(tmp_path: Path) -> None:
    assert Layout("a", tmp_path / "one" / "a").id != Layout("a", tmp_path / "two" / "a").id


@pytest.mark.parametrize("slot", [0, 1, state.SLOTS - 1])
def test_a_slots_networks_lie_in_its_block_and_apart(slot: int) -> None:
    settings = Settings("full", slot, 4, {"apiserver": 1, "registry": 2})
    networks = [settings.node_network, settings.service_network, settings.pod_network]
    assert all(n.subnet_of(settings.block) for n in networks)
    assert not any(a.overlaps(b) for a, b in combinations(networks, 2))
    pods = [settings.node_pods(i) for i in range(4)]
    assert all(p.subnet_of(settings.pod_network) for p in pods)
    assert not any(a.overlaps(b) for a, b in combinations(pods, 2))
    assert settings.gateway in settings.node_network
    assert settings.node_address(3) in settings.node_network
    assert settings.dns_address in settings.service_network


def test_slots_do_not_share_ports_or_addresses(own_state: Path) -> None:
    chosen = [state.choose(Layout.of(name), "api", 1, []) for name in ("a", "b", "c")]
    assert len({s.slot for s in chosen}) == 3
    ports = [port for s in chosen for port in s.ports.values()]
    assert len(set(ports)) == len(ports)
    assert state.all_names() == ["a", "b", "c"]
    assert state.load(Layout.of("b")) == chosen[1]


def test_a_slot_is_left_alone_when_its_port_or_its_addresses_are_used(own_state: Path) -> None:
    first = state.choose(Layout.of("a"), "api", 1, [])
    Layout.of("a").settings_file.unlink()
    with socket.create_server(("127.0.0.1", first.ports["etcd"])):
        by_port = state.choose(Layout.of("a"), "api", 1, [])
    assert by_port.slot > first.slot
    Layout.of("a").settings_file.unlink()
    by_route = state.choose(Layout.of("a"), "api", 1, [IPv4Network((int(first.block[7 * 256]), 24))])
    assert by_route.slot != first.slot


def test_no_free_slot_is_an_error_that_names_the_clusters(own_state: Path) -> None:
    state.choose(Layout.of("mine"), "api", 1, [])
    with pytest.raises(LocalClusterError, match="mine"):
        state.choose(Layout.of("other"), "api", 1, [IPv4Network("10.0.0.0/8")])


def test_any_good_name_may_be_given_also_those_used_inside(own_state: Path) -> None:
    """In a process of its own, since what went wrong was that it waited for itself."""
    code = "from localcluster import state\nwith state.locked('slots'): state.choose(state.Layout.of('slots'), 'api', 1, [])"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_a_process_that_waited_for_a_down_holds_the_lock_although_its_file_was_removed(own_state: Path, capfd) -> None:
    path = own_state / "rfuav-localcluster" / ".a.lock"
    entered, leave = threading.Event(), threading.Event()

    def up() -> None:
        with state.locked("a"):
            entered.set()
            leave.wait(10)

    waiting = threading.Thread(target=up)
    with state.locked("a"):
        waiting.start()
        assert not entered.wait(0.3)
        path.unlink()  # as `down` does
    try:
        assert entered.wait(10)
        with path.open("w") as third, pytest.raises(BlockingIOError):
            fcntl.flock(third, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        leave.set()
        waiting.join()
    assert "another up or down of cluster a is running" in capfd.readouterr().err


def test_a_state_folder_of_another_user_is_said_with_the_way_out(another_users, monkeypatch) -> None:
    folder, as_user = another_users
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    with as_user(), pytest.raises(LocalClusterError, match=rf"{folder}.*Permission denied.*sudo.*XDG_STATE_HOME"):
        state.locked("a").__enter__()


def test_the_servers_of_the_api_profile_listen_on_loopback_alone() -> None:
    ports = {"apiserver": 1, "registry": 2}
    assert Settings("api", 0, 1, ports).server_address == "127.0.0.1"
    assert Settings("api", 0, 1, ports).registry is None
    assert Settings("full", 2, 1, ports).registry == "10.130.0.1:2"


OF_ANOTHER_VERSION = '{"profile": "api", "slot": 0, "nodes": 1, "ports": {"apiserver": 21000}}'


@pytest.mark.parametrize("content", ["", "{", '{"profile": "api"}', "[]", OF_ANOTHER_VERSION])
def test_a_broken_settings_file_says_what_to_do(own_state: Path, content: str) -> None:
    layout = Layout.of("a")
    layout.root.mkdir(parents=True)
    layout.settings_file.write_text(content)
    with pytest.raises(LocalClusterError, match="down --name a"):
        state.load(layout)
