"""A cluster that does not exist, in the words of the live stream: pools that fill, jobs that run, wait and end."""

import math
import random
from datetime import UTC, datetime, timedelta
from typing import Any

TEAMS = (
    "radar",
    "spectrum",
    "field-ops",
    "acoustics",
    "students",
    "fusion",
    "antenna",
    "swarm",
    "lab-west",
    "lab-east",
    "counter-uas",
    "archive",
)
USERS = ("alice", "bo", "chen", "dana", "emil", "farah", "goran", "hana")
MODELS = ("resnet18", "resnet50", "vit_b_16", "swin_v2_t", "mobilenet_v3_small")
SUBJECTS = ("drones", "fhss", "telemetry", "urban", "ocusync", "hover", "flight", "dji", "ofdm", "snr-sweep")
FINISHED_REASONS = ("GPUOutOfMemory", "InputMissing", "BackoffLimitExceeded", "ClassMismatch")
CLASSES = [
    "DJI Mini 3",
    "DJI Mavic 3",
    "DJI Avata 2",
    "FrSky X20",
    "Futaba T14SG",
    "Yunzhuo T10",
    "Skydroid H12",
    "Background",
]
POOLS = (("default", "NVIDIA-A100-80GB", 6, 8), ("lab", "NVIDIA-RTX-4090", 8, 4), ("edge", "NVIDIA-L4", 10, 2))
EPOCHS = 100
PHASE_WORDS = {
    "Queued": "queued",
    "Admitted": "queued",
    "Running": "running",
    "Suspended": "pending",
    "Succeeded": "completed",
    "Failed": "failed",
    "Cancelled": "cancelled",
}


def iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def loss_at(epoch: float, seed: int) -> float:
    return 2.1 * math.exp(-epoch / 22) + 0.12 + 0.05 * math.sin(epoch * 1.7 + seed) * math.exp(-epoch / 60)


class Cluster:
    """Rows, pools and quotas; `advance` moves what runs."""

    def __init__(self, *, ended: int = 60, seed: int = 3) -> None:
        self.random = random.Random(seed)
        self.start = datetime.now(UTC)
        self.rows: dict[str, dict[str, Any]] = {}
        self.seeds: dict[str, int] = {}
        self.extra: dict[str, dict[str, Any]] = {}  # manifests that were posted
        self._fill()
        self._wait()
        self._known()
        for _ in range(ended):
            self._end()

    def row(self, kind: str, namespace: str, name: str, **fields: Any) -> dict[str, Any]:
        key = f"{kind}/{namespace}/{name}"
        created = fields.pop("created", self.start - timedelta(minutes=self.random.randint(5, 300)))
        row: dict[str, Any] = {
            "key": key,
            "id": f"{namespace}/{name}",
            "type": kind,
            "namespace": namespace,
            "name": name,
            "status": "queued",
            "phase": "Queued",
            "reason": "",
            "message": "",
            "model": self.random.choice(MODELS),
            "pool": "default",
            "gpus": 1,
            "priority": 1000,
            "priorityClass": None,
            "user": self.random.choice(USERS),
            "created": iso(created),
            "queued": iso(created),
            "started": None,
            "finished": None,
            "attempt": None,
            "failures": 0,
            "position": None,
            "of": None,
            "estimatedStart": None,
            "percent": None,
            "epoch": None,
            "epochs": None,
            "processed": None,
            "total": None,
            "remaining": None,
            "speed": None,
            "updated": iso(self.start),
            "nodes": [],
            "suspended": False,
            "loss": None,
            "accuracy": None,
            "f1": None,
        }
        row.update(fields)
        row["status"] = PHASE_WORDS[row["phase"]]
        self.rows[key] = row
        self.seeds[key] = len(self.seeds)
        return row

    def name(self, kind: str) -> str:
        suffix = self.random.choice(("", "-long", "-iq", "-b32", "-night", "-rooftop"))
        return f"{self.random.choice(SUBJECTS)}{'-eval' if kind == 'inference' else ''}{suffix}-{self.random.randint(2, 999)}"

    def _fill(self) -> None:
        self.nodes: dict[str, list[dict[str, Any]]] = {}
        for pool, product, count, gpus in POOLS:
            nodes = [
                {
                    "name": f"{pool[0]}{product[7:9].lower()}-{n + 1:02d}",
                    "product": product,
                    "gpus": gpus,
                    "heldGpus": 0,
                    "open": True,
                    "why": "",
                    "jobs": [],
                }
                for n in range(count)
            ]
            self.nodes[pool] = nodes
            if pool == "lab":
                nodes[5].update(open=False, why="cordoned: maintenance until Friday")
            for node in nodes:
                wanted = {"default": gpus, "lab": self.random.randint(1, gpus), "edge": self.random.randint(0, gpus)}[
                    pool
                ]
                while node["open"] and node["heldGpus"] < wanted:
                    left = wanted - node["heldGpus"]
                    size = self.random.choice([n for n in (1, 1, 2, 4) if n <= left])
                    self._run(pool, node, size)

    def _run(self, pool: str, node: dict[str, Any], size: int) -> None:
        kind = "training" if self.random.random() < (0.75 if pool != "edge" else 0.2) else "inference"
        started = self.start - timedelta(minutes=self.random.randint(3, 500))
        share = {"percent": self.random.uniform(4, 96)}
        more = (
            {"epochs": EPOCHS, "epoch": int(share["percent"])}
            if kind == "training"
            else {"total": 24_000, "processed": int(240 * share["percent"])}
        )
        row = self.row(
            kind,
            self.random.choice(TEAMS),
            self.name(kind),
            pool=pool,
            phase="Running",
            gpus=size,
            nodes=[node["name"]],
            attempt=1,
            created=started - timedelta(minutes=4),
            started=iso(started),
            speed=round(self.random.uniform(300, 2400)),
            remaining=round((100 - share["percent"]) * self.random.uniform(20, 150)),
            **share,
            **more,
        )
        node["heldGpus"] += size
        node["jobs"].append(row["key"])
        if kind == "inference" and self.random.random() < 0.4:  # two share a GPU
            other = self.row(
                kind,
                self.random.choice(TEAMS),
                self.name(kind),
                pool=pool,
                phase="Running",
                gpus=1,
                nodes=[node["name"]],
                attempt=1,
                started=iso(started),
                percent=30.0,
                total=8000,
                processed=2400,
                speed=610,
                remaining=900,
            )
            node["jobs"].append(other["key"])
        self._measure(row)

    def _measure(self, row: dict[str, Any]) -> None:
        if row["type"] == "training" and row["epoch"]:
            seed = self.seeds[row["key"]]
            row["loss"] = round(loss_at(row["percent"], seed), 4)
            row["accuracy"] = round(min(0.995, 1 - row["loss"] / 2.6), 4)
            row["f1"] = round(row["accuracy"] - 0.012, 4)

    def _known(self) -> None:
        """Jobs that tests and pictures name."""
        started = self.start - timedelta(minutes=96)
        running = self.row(
            "training",
            "radar",
            "drones-resnet18",
            phase="Running",
            pool="default",
            model="resnet18",
            gpus=2,
            nodes=["da1-04"],
            attempt=2,
            failures=1,
            user="alice",
            created=started - timedelta(minutes=11),
            started=iso(started),
            percent=64.2,
            epoch=64,
            epochs=EPOCHS,
            remaining=3180,
            speed=1840,
        )
        self._measure(running)
        self.row(
            "training",
            "radar",
            "ocusync-vit-b16",
            model="vit_b_16",
            user="alice",
            gpus=4,
            reason="WaitingForCapacity",
            message="needs 4 GPUs on one node; pool default has 2 of 48 training slots free on 1 node, and no node has 4",
            position=1,
            of=18,
            estimatedStart=iso(self.start + timedelta(minutes=12)),
            epochs=EPOCHS,
            priorityClass="drones-urgent",
            priority=5000,
            created=self.start - timedelta(minutes=9),
        )
        ended = self.start - timedelta(minutes=34)
        self.row(
            "inference",
            "radar",
            "flight7-eval",
            phase="Succeeded",
            reason="Succeeded",
            model="resnet18",
            user="alice",
            attempt=1,
            created=ended - timedelta(minutes=25),
            started=iso(ended - timedelta(minutes=21)),
            finished=iso(ended),
            percent=100.0,
            total=24_000,
            processed=24_000,
            accuracy=0.943,
            f1=0.938,
        )
        self.row(
            "training",
            "radar",
            "urban-swin-b64",
            phase="Failed",
            reason="GPUOutOfMemory",
            model="swin_v2_b",
            user="bo",
            attempt=2,
            failures=2,
            created=ended - timedelta(minutes=70),
            started=iso(ended - timedelta(minutes=40)),
            finished=iso(ended),
            message="CUDA ran out of memory at batch size 64: write batchSize: 32 and gradientAccumulation: 2",
            percent=2.0,
            epoch=2,
            epochs=EPOCHS,
        )

    def _wait(self) -> None:
        reasons = (
            (
                "WaitingForCapacity",
                "needs 4 GPUs; pool default has 2 of 48 training slots free on 1 node, and no node has 4",
            ),
            ("WaitingForQuota", "team students uses 6 of 6 GPUs in pool default and may borrow none"),
            ("WaitingForCapacity", "needs 1 GPU; pool default has 0 of 48 training slots free on 6 nodes"),
            ("WaitingForTrainingJob", "TrainingJob ocusync-long-12 has not succeeded yet: epoch 41 of 100"),
            ("BackingOff", "attempt 2 failed (GPUOutOfMemory); next try at 14:32:10"),
            ("WaitingForVolume", "PersistentVolumeClaim captures-2026 does not exist in namespace archive"),
        )
        for n in range(17):
            kind = "training" if n % 3 else "inference"
            reason, message = reasons[n % len(reasons)]
            late = self.start + timedelta(minutes=4 + 9 * n)
            self.row(
                kind,
                TEAMS[(n * 5) % len(TEAMS)],
                self.name(kind),
                reason=reason,
                message=message,
                position=n + 2,
                of=18,
                gpus=self.random.choice((1, 1, 2, 4)),
                estimatedStart=iso(late) if reason == "WaitingForCapacity" else None,
                epochs=EPOCHS if kind == "training" else None,
                priorityClass="drones-urgent" if n == 0 else None,
                priority=5000 if n == 0 else 1000,
                failures=2 if reason == "BackingOff" else 0,
                attempt=2 if reason == "BackingOff" else None,
            )
        self.row(
            "training",
            "radar",
            "ocusync-sweep-paused",
            phase="Suspended",
            reason="Suspended",
            suspended=True,
            percent=37.0,
            epoch=37,
            epochs=EPOCHS,
            attempt=1,
        )
        starting = self.row(
            "training",
            "spectrum",
            "urban-night-starting",
            phase="Admitted",
            reason="Starting",
            message="pulls the image",
            nodes=["da1-02"],
            attempt=1,
        )
        starting["epochs"] = EPOCHS

    def _end(self) -> None:
        kind = "training" if self.random.random() < 0.6 else "inference"
        phase = self.random.choices(("Succeeded", "Failed", "Cancelled"), (8, 2, 1))[0]
        finished = self.start - timedelta(minutes=self.random.randint(2, 4000))
        took = timedelta(minutes=self.random.randint(3, 400))
        failed = phase == "Failed"
        reason = self.random.choice(FINISHED_REASONS) if failed else phase
        self.row(
            kind,
            self.random.choice(TEAMS),
            self.name(kind),
            phase=phase,
            reason=reason,
            message="ran out of GPU memory at batch size 64: write batchSize: 32 and gradientAccumulation: 2"
            if failed
            else "",
            pool=self.random.choice(POOLS)[0],
            created=finished - took - timedelta(minutes=9),
            started=iso(finished - took),
            finished=iso(finished),
            attempt=4 if failed else 1,
            failures=4 if failed else 0,
            percent=self.random.uniform(5, 80) if failed else 100.0,
            epochs=EPOCHS if kind == "training" else None,
            epoch=EPOCHS if kind == "training" and not failed else 22 if kind == "training" else None,
            total=24_000 if kind == "inference" else None,
            processed=24_000 if kind == "inference" else None,
            accuracy=None if failed else 0.961,
            loss=None if failed or kind == "inference" else 0.133,
            f1=None if failed else 0.948,
        )

    def advance(self) -> list[dict[str, Any]]:
        """What runs goes on; returns the rows that changed."""
        running = [row for row in self.rows.values() if row["phase"] == "Running"]
        changed = self.random.sample(running, min(len(running), 12))
        for row in changed:
            row["percent"] = min(99.0, row["percent"] + self.random.uniform(0.3, 1.4))
            row["remaining"] = max(20, round(row["remaining"] * 0.985))
            row["updated"] = iso(datetime.now(UTC))
            if row["type"] == "training":
                row["epoch"] = int(row["percent"])
            else:
                row["processed"] = int(row["total"] * row["percent"] / 100)
            self._measure(row)
        return changed

    def pools(self) -> list[dict[str, Any]]:
        found = []
        for pool, _, _, _ in POOLS:
            nodes = self.nodes[pool]
            rows = [row for row in self.rows.values() if row["pool"] == pool]
            count = {
                kind: [
                    sum(row["gpus"] for row in rows if row["type"] == kind and row["phase"] == phase)
                    for phase in ("Running", "Queued")
                ]
                for kind in ("training", "inference")
            }
            gpus = sum(node["gpus"] for node in nodes)
            found.append(
                {
                    "name": pool,
                    "gpus": gpus,
                    "slots": {"training": gpus, "inference": gpus * 3},
                    "held": {kind: count[kind][0] for kind in count},
                    "heldGpus": sum(node["heldGpus"] for node in nodes),
                    "waiting": {
                        kind: sum(1 for row in rows if row["type"] == kind and row["phase"] == "Queued")
                        for kind in count
                    },
                    "ready": True,
                    "message": "",
                    "nodes": nodes,
                    "nodesMore": 0,
                }
            )
        return found

    def quotas(self) -> list[dict[str, Any]]:
        found = []
        for n, team in enumerate(TEAMS[:9]):
            rows = [row for row in self.rows.values() if row["namespace"] == team and row["pool"] == "default"]
            used = sum(row["gpus"] for row in rows if row["phase"] == "Running")
            nominal = (8, 6, 6, 4, 4, 4, 6, 6, 4)[n]
            by = {
                kind: {
                    phase: sum(1 for row in rows if row["type"] == kind and row["phase"] == phase)
                    for phase in ("Running", "Queued")
                }
                for kind in ("training", "inference")
            }
            found.append(
                {
                    "namespace": team,
                    "pool": "default",
                    "nominal": nominal,
                    "used": used,
                    "borrowed": max(0, used - nominal),
                    "limit": nominal + 4,
                    "running": {kind: by[kind]["Running"] for kind in by},
                    "waiting": {kind: by[kind]["Queued"] for kind in by},
                }
            )
        return found
