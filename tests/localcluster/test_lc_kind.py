"""kind's side of the full profile, against stand-ins for `kind` and `docker`: what they are asked, and what is made of their answers."""

import json
from pathlib import Path

import pytest
import yaml

from localcluster import addons, api, binaries, kindcluster, processes, state
from localcluster.errors import LocalClusterError
from localcluster.state import Layout, Settings

NETWORK = [
    {
        "IPAM": {
            "Config": [
                {"Subnet": "fc00::/64", "Gateway": "fc00::1"},
                {"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"},
            ]
        }
    }
]


@pytest.fixture
def programs(script, tmp_path: Path, monkeypatch, own_state):
    bin_folder, made = tmp_path / "bin", tmp_path / "made"
    kind = script(
        bin_folder,
        "kind",
        f'echo "$@" >> {tmp_path}/asked; case "$1" in get) cat {made} 2>/dev/null;; create) while [ "$1" != --name ]; do shift; done; echo $2 > {made};;'
        f" delete) rm {made};; esac; exit 0",
    )
    script(bin_folder, "docker", f"echo '{json.dumps(NETWORK)}'")
    monkeypatch.setenv("PATH", f"{bin_folder}:/usr/bin:/bin")
    monkeypatch.setattr(addons, "start_registry", lambda *_: None)
    monkeypatch.setattr(binaries, "locate", lambda name: kind if name == "kind" else None)
    yield {"kind": kind}
    processes.kill_all(Layout.of("k"))


def test_a_kind_cluster_gets_gpus_and_a_registry_it_can_reach_and_is_made_once(programs, tmp_path: Path) -> None:
    layout = Layout.of("k")
    settings = state.choose(layout, "full", 1, [], "kind")
    for _ in range(2):
        known = kindcluster.up(layout, settings, programs)
    asked = (tmp_path / "asked").read_text()
    assert asked.count("create cluster") == 1
    assert known.registry == f"172.18.0.1:{settings.ports['registry']}"
    assert state.load(layout) == known
    written = yaml.safe_load((layout.root / "kind.yaml").read_text())
    (node,) = written["nodes"]
    assert node["labels"]["nvidia.com/gpu.count"] == "2"
    inside = {m["containerPath"]: Path(m["hostPath"]) for m in node["extraMounts"]}
    assert (
        (inside["/etc/containerd/certs.d"] / known.registry / "hosts.toml")
        .read_text()
        .startswith(f'[host."http://{known.registry}"]')
    )
    assert processes.is_running(layout, "gpus-0")
    api.down("k")
    assert not (tmp_path / "made").exists()
    assert not layout.root.exists()
    assert not processes.running(layout)


def test_kinds_own_error_is_shown(programs, script, tmp_path: Path) -> None:
    script(tmp_path / "bin", "kind", "echo cannot do it >&2; exit 3")
    layout = Layout.of("k")
    with pytest.raises(LocalClusterError, match="cannot do it"):
        kindcluster.up(layout, state.choose(layout, "full", 1, [], "kind"), programs)


def test_down_without_docker_fails_but_leaves_no_process(programs, script, tmp_path: Path) -> None:
    layout = Layout.of("k")
    kindcluster.up(layout, state.choose(layout, "full", 1, [], "kind"), programs)
    assert processes.is_running(layout, "gpus-0")
    script(tmp_path / "bin", "kind", "echo is the docker daemon running? >&2; exit 1")
    with pytest.raises(LocalClusterError, match="is the docker daemon running"):
        api.down("k")
    assert processes.running(layout) == []
    assert state.load(layout) is not None  # so that `down` may be run again


def test_more_nodes_than_kind_gives_are_refused(programs) -> None:
    with pytest.raises(LocalClusterError, match="one node"):
        kindcluster.up(Layout.of("k"), Settings("full", 0, 2, {}, "kind"), programs)
