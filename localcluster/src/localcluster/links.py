"""Network links of a cluster on the host: one bridge, and one cable to each node's own network namespace.

Links carry the cluster's id as their alias, so that `down` finds them after any crash.
"""

import json
import shutil
import subprocess
from ipaddress import IPv4Network
from typing import Any

from localcluster.errors import LocalClusterError
from localcluster.state import Layout, Settings

_MTU = "1400"  # below every tunnel and cloud network that a host's own link may be


def ip(*arguments: str, check: bool = True) -> str:
    """Run `ip` and return its output."""
    result = subprocess.run([_tool(), *arguments], capture_output=True, text=True, check=False)
    if check and result.returncode != 0:
        message = f"`ip {' '.join(arguments)}` failed: {result.stderr.strip()}"
        raise LocalClusterError(message)
    return result.stdout


def _tool() -> str:
    found = shutil.which("ip") or shutil.which("ip", path="/usr/sbin:/sbin")
    if found is None:
        message = "The full profile needs the `ip` command: install the package iproute2."
        raise LocalClusterError(message)
    return found


def used_networks() -> list[IPv4Network]:
    """Networks that this machine routes to already; empty when `ip` is missing (the api profile does not need it)."""
    try:
        routes: list[dict[str, Any]] = json.loads(ip("-json", "-4", "route", "show", "table", "all") or "[]")
    except LocalClusterError:
        return []
    return [IPv4Network(r["dst"], strict=False) for r in routes if "dst" in r and r["dst"] != "default"]


def bridge_name(settings: Settings) -> str:
    """The bridge of a cluster: its slot makes it unique on the machine."""
    return f"rfuav{settings.slot}"


def ensure_bridge(layout: Layout, settings: Settings) -> None:
    """Make the bridge that joins the nodes and the host, and give the host its address on it."""
    name = bridge_name(settings)
    if name not in _owned(layout):
        ip("link", "add", name, "mtu", _MTU, "type", "bridge")
        ip("link", "set", name, "alias", layout.id)
    if not ip("-4", "addr", "show", "dev", name).count(str(settings.gateway)):
        ip("addr", "add", f"{settings.gateway}/{settings.node_network.prefixlen}", "dev", name)
    ip("link", "set", name, "up")


def plug(layout: Layout, settings: Settings, index: int, pid: int) -> None:
    """Lay the cable of node `index`, whose network namespace belongs to process `pid`.

    Routes to its pods go through it.
    """
    outside, inside = f"rfuav{settings.slot}n{index}", "eth0"
    ip("link", "del", outside, check=False)  # what a node that died half-way left behind
    ip("link", "add", outside, "mtu", _MTU, "type", "veth", "peer", "name", inside, "mtu", _MTU, "netns", str(pid))
    ip("link", "set", outside, "alias", layout.id)
    ip("link", "set", outside, "master", bridge_name(settings), "up")
    ip("route", "replace", str(settings.node_pods(index)), "via", str(settings.node_address(index)))


def remove_all(layout: Layout) -> list[str]:
    """Delete every link of the cluster (their routes go with them) and return their names."""
    names = _owned(layout)
    for name in names:
        ip("link", "del", name, check=False)
    return names


def _owned(layout: Layout) -> list[str]:
    links: list[dict[str, Any]] = json.loads(ip("-json", "link", "show") or "[]")
    return [link["ifname"] for link in links if link.get("ifalias") == layout.id]
