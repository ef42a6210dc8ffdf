"""Network links of a cluster on the host: one bridge, and one cable to each node's own network namespace.

Links carry the cluster's id as their alias, so that `down` finds them after any crash.
"""

import json
import shutil
import subprocess
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from localcluster.errors import LocalClusterError
from localcluster.state import Layout, Settings

_MTU = "1400"  # below every tunnel and cloud network that a host's own link may be
_INSIDE = "eth0"  # a node's end of its cable
_UNMARKED = ""  # the alias of a link that has none


def ip(*arguments: str, check: bool = True) -> str:
    """Run `ip` and return its output."""
    result = subprocess.run([_tool(), *arguments], capture_output=True, text=True, check=False)
    if check and result.returncode != 0:
        message = f"`ip {' '.join(arguments)}` failed: {result.stderr.strip()}"
        raise LocalClusterError(message)
    return result.stdout


def _find_tool() -> str | None:
    return shutil.which("ip") or shutil.which("ip", path="/usr/sbin:/sbin")


def _tool() -> str:
    found = _find_tool()
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
    owner = _aliases().get(name)
    if owner is None:
        ip("link", "add", name, "mtu", _MTU, "type", "bridge")
    elif owner not in {_UNMARKED, layout.id}:
        message = (
            f"The bridge {name} belongs to another cluster ({owner}), made while this one was not up: run"
            f" `localcluster down --name {layout.name}` and `up` again to get other addresses."
        )
        raise LocalClusterError(message)
    ip("link", "set", name, "alias", layout.id)
    if not ip("-4", "addr", "show", "dev", name).count(str(settings.gateway)):
        ip("addr", "add", f"{settings.gateway}/{settings.node_network.prefixlen}", "dev", name)
    ip("link", "set", name, "up")


def plug(layout: Layout, settings: Settings, index: int, pid: int) -> None:
    """Create the cable of node `index`, whose network namespace belongs to process `pid`, or its missing parts.

    Routes to its pods go through it.
    """
    outside = f"rfuav{settings.slot}n{index}"
    if not _has_cable(pid):
        ip("link", "del", outside, check=False)  # what a node that died half-way left behind
        ip("link", "add", outside, "mtu", _MTU, "type", "veth", "peer", "name", _INSIDE, "mtu", _MTU, "netns", str(pid))
    ip("link", "set", outside, "alias", layout.id)
    ip("link", "set", outside, "master", bridge_name(settings), "up")
    ip("route", "replace", str(settings.node_pods(index)), "via", str(settings.node_address(index)))


def _has_cable(pid: int) -> bool:
    try:
        return f"{_INSIDE}:" in Path(f"/proc/{pid}/net/dev").read_text()
    except OSError:  # gone: creating the cable will report it
        return False


def remove_all(layout: Layout, settings: Settings | None) -> list[str]:
    """Delete every link of the cluster (their routes go with them) and return their names."""
    if _find_tool() is None:  # without it no link was made
        return []
    aliases = _aliases()
    names = [name for name, alias in aliases.items() if alias == layout.id]
    # an `up` that was killed between making the bridge and marking it
    if settings is not None and settings.profile == "full" and aliases.get(bridge_name(settings)) == _UNMARKED:
        names.append(bridge_name(settings))
    for name in names:
        ip("link", "del", name, check=False)
    return names


def _aliases() -> dict[str, str]:
    """Every link of this machine with its alias."""
    links: list[dict[str, Any]] = json.loads(ip("-json", "link", "show") or "[]")
    return {link["ifname"]: link.get("ifalias", _UNMARKED) for link in links}
