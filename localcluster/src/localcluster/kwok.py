"""KWOK answers for simulated nodes and moves their pods as kwok-stages.yaml says.

It needs no root and runs beside the control plane.

In: a running API server. Out: nodes that carry the annotation MANAGED become Ready; all others are left alone.
"""

from pathlib import Path

from localcluster import controlplane
from localcluster.state import Layout, Settings

MANAGED = {"kwok.x-k8s.io/node": "fake"}
STAGES = Path(__file__).with_name("kwok-stages.yaml")


def start(layout: Layout, settings: Settings, programs: dict[str, Path]) -> None:
    """Start KWOK unless it runs."""
    command = [
        str(programs["kwok"]),
        f"--kubeconfig={layout.kubeconfig}",
        f"--config={STAGES}",
        f"--server-address=127.0.0.1:{settings.ports['kwok']}",
        f"--manage-nodes-with-annotation-selector={'='.join(next(iter(MANAGED.items())))}",
        "--node-lease-duration-seconds=40",
        "--node-ip=10.0.0.1",
        "--cidr=10.0.0.0/12",
    ]
    controlplane.launch(layout, settings, "kwok", command)
