"""Bridges and cables, made for real inside a network namespace that ends with the test: the machine's own is not touched."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from localcluster import links
from localcluster.state import Layout

NEW_NETWORK = ("unshare", "--net")
PRELUDE = """
import subprocess
from localcluster import links, state
from localcluster.errors import LocalClusterError
from localcluster.links import ip
layout = state.Layout.of("cable")
settings = state.choose(layout, "full", 1, [])
bridge, cable = links.bridge_name(settings), f"rfuav{settings.slot}n0"

def node():
    process = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
    own = os.readlink("/proc/self/ns/net")
    while os.readlink(f"/proc/{process.pid}/ns/net") == own:
        time.sleep(0.01)
    return process
"""


def in_a_network_of_its_own(code: str) -> None:
    if (
        os.geteuid() != 0
        or shutil.which("ip") is None
        or subprocess.run([*NEW_NETWORK, "true"], check=False).returncode
    ):
        pytest.skip("needs root, iproute2 and the right to make network namespaces")
    script = f"import os, time\n{PRELUDE}\n{code}"
    done = subprocess.run([*NEW_NETWORK, sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_bridge_is_reused_after_an_up_that_was_killed_before_marking_it(own_state: Path) -> None:
    in_a_network_of_its_own("""
ip("link", "add", bridge, "type", "bridge")
for _ in range(2):
    links.ensure_bridge(layout, settings)
assert links._aliases()[bridge] == layout.id
assert str(settings.gateway) in ip("addr", "show", "dev", bridge)
assert links.remove_all(layout, settings) == [bridge]
assert set(links._aliases()) == {"lo"}
""")


def test_and_down_removes_it_too_but_no_other(own_state: Path) -> None:
    in_a_network_of_its_own("""
other = "rfuav99"
for name in (bridge, other):
    ip("link", "add", name, "type", "bridge")
ip("link", "set", other, "alias", "another-cluster")
assert links.remove_all(layout, settings) == [bridge]
assert set(links._aliases()) == {"lo", other}
""")


def test_a_bridge_of_another_cluster_is_left_alone_and_said(own_state: Path) -> None:
    in_a_network_of_its_own("""
ip("link", "add", bridge, "type", "bridge")
ip("link", "set", bridge, "alias", "another-cluster")
try:
    links.ensure_bridge(layout, settings)
except LocalClusterError as error:
    assert "another-cluster" in str(error) and "down --name cable" in str(error), error
else:
    raise AssertionError("took it")
assert links.remove_all(layout, settings) == []
""")


def test_a_cable_is_created_once_and_its_missing_parts_are_added(own_state: Path) -> None:
    in_a_network_of_its_own("""
links.ensure_bridge(layout, settings)
process = node()
try:
    def index():
        return ip("link", "show", cable).split(":")[0]

    links.plug(layout, settings, 0, process.pid)
    first = index()
    ip("route", "del", str(settings.node_pods(0)))          # an `up` killed before the route,
    ip("link", "set", cable, "nomaster", "down", "alias", "")   # or before all this
    links.plug(layout, settings, 0, process.pid)
    assert index() == first, "a running node's cable was cut"
    assert links._aliases()[cable] == layout.id
    assert f"master {bridge}" in ip("link", "show", cable)
    assert str(settings.node_address(0)) in ip("route", "show", str(settings.node_pods(0)))
finally:
    process.kill()
    process.wait()
another = node()                                            # the machine's end of the old cable may still be there
try:
    links.plug(layout, settings, 0, another.pid)
    assert "eth0:" in open(f"/proc/{another.pid}/net/dev").read()
    assert set(links.remove_all(layout, settings)) == {bridge, cable}
finally:
    another.kill()
assert set(links._aliases()) == {"lo"}
""")


def test_down_of_an_api_cluster_needs_no_ip_command(own_state: Path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    assert links.remove_all(Layout.of("a"), None) == []
