"""A server that speaks the gateway's interface of the page, with a cluster that does not exist. For the tests and for work on the page:

PYTHONPATH=tests .venv/bin/python -m page.gateway_double --port 8080 --ended 10000
"""

import argparse
import asyncio
import base64
import hashlib
import json
import mimetypes
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web
from page.cluster_data import CLASSES, EPOCHS, TEAMS, Cluster, iso, loss_at

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = Path(__file__).parents[2] / "gateway/src/rfuav_gateway/page"
TOKEN = "good-token"
SCRIPT = re.compile(r'<script type="importmap">(.*?)</script>', re.DOTALL)
USAGE = {
    "by": "namespace",
    "from": "2026-11-24T00:00:00",
    "to": "2026-12-01T00:00:00",
    "source": "jobs",
    "since": None,
    "complete": False,
    "total_gpu_hours": 161.4,
    "usage": [{"name": "radar", "gpu_hours": 101.4}, {"name": "fusion", "gpu_hours": 60.0}],
}
ADVICE = {
    "GPUOutOfMemory": "write the batchSize and gradientAccumulation that the message names, or batchSize: auto, or ask for more gpuMemory",
    "InputMissing": "put the data where the message says",
}


def policy(index: str) -> str:
    found = SCRIPT.search(index)
    assert found is not None
    digest = base64.b64encode(hashlib.sha256(found.group(1).encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'self' 'sha256-{digest}'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    )


class Double:
    """The server. Tests set `may`, `sign_in`, `rows_quiet` and read `posted`."""

    def __init__(self, cluster: Cluster, *, sign_in: str = "none", compat: bool = False, period: float = 0.5) -> None:
        self.cluster, self.sign_in, self.compat, self.period = cluster, sign_in, compat, period
        self.may = {"create": True, "update": True, "delete": True, "logs": True}
        self.teams: tuple[str, ...] = TEAMS
        self.may_pools = True
        self.up = True
        self.posted: list[tuple[str, Any]] = []
        self.usage: dict[str, Any] | None = USAGE
        self.call: Callable[[Callable[[], object]], object] = lambda act: act()  # in the thread of the server
        self._streams: set[web.StreamResponse] = set()
        self.app = web.Application(middlewares=[self._guard])
        for namespace in ("", "/ns/{namespace}"):
            self.app.add_routes(
                [
                    web.get(namespace + "/api/v2/session", self.session),
                    web.post(namespace + "/api/v2/session", self.enter),
                    web.delete(namespace + "/api/v2/session", self.leave),
                    web.get(namespace + "/api/v2/live", self.live),
                    web.get(namespace + "/api/v2/usage", self.used),
                    web.post(namespace + "/api/v2/preview", self.preview),
                    web.post(namespace + "/api/v2/jobs", self.create),
                    web.get(namespace + "/api/v2/jobs/{type}/{ns}/{name}", self.job),
                    web.delete(namespace + "/api/v2/jobs/{type}/{ns}/{name}", self.delete),
                    web.get(namespace + "/api/v2/jobs/{type}/{ns}/{name}/events", self.events),
                    web.post(namespace + "/api/v2/jobs/{type}/{ns}/{name}/{verb}", self.act),
                    web.get(namespace + "/api/v2/tasks/{ns}/{name}/results", self.results),
                    web.get(namespace + "/api/v2/tasks/{ns}/{name}/logs", self.logs),
                ]
            )
        self.app.add_routes([web.get("/", self.index), web.get("/page/{path:.+}", self.file)])

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if not self.up:
            return web.json_response({"detail": "starting"}, status=503)
        if (
            request.path.startswith("/api/v2/session")
            or not request.path.startswith(("/api", "/ns"))
            or self._known(request)
        ):
            return await handler(request)
        return problem(401, "no token")

    def _known(self, request: web.Request) -> bool:
        return self.sign_in != "token" or request.cookies.get("rfuav_session") == TOKEN

    async def index(self, _request: web.Request) -> web.Response:
        text = (PAGE / "index.html").read_text()
        return web.Response(text=text, content_type="text/html", headers={"content-security-policy": policy(text)})

    async def file(self, request: web.Request) -> web.Response:
        path = (PAGE / request.match_info["path"]).resolve()
        if PAGE not in path.parents or not path.is_file():
            raise web.HTTPNotFound
        return web.Response(
            body=path.read_bytes(), content_type=mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        )

    async def session(self, request: web.Request) -> web.Response:
        known = self._known(request)
        return web.json_response(
            {
                "user": "alice@example.com" if known and self.sign_in != "none" else None,
                "signIn": self.sign_in,
                "compat": self.compat,
                "namespace": "radar",
                "language": "en",
                "version": "0.1.0",
                "namespaces": [{"name": team, **self.may} for team in sorted(self.teams)] if known else [],
                "pools": self.may_pools,
                "allNamespaces": len(self.teams) > 10,
            }
        )

    async def enter(self, request: web.Request) -> web.Response:
        if (await request.json())["token"] != TOKEN:
            return problem(401, "the cluster does not know this token")
        answer = web.Response(status=204)
        answer.set_cookie("rfuav_session", TOKEN, httponly=True, samesite="Strict", path="/")
        return answer

    async def leave(self, _request: web.Request) -> web.Response:
        answer = web.Response(status=204)
        answer.del_cookie("rfuav_session", path="/")
        return answer

    def seen(self) -> list[dict[str, Any]]:
        return sorted(
            (row for row in self.cluster.rows.values() if row["namespace"] in self.teams),
            key=lambda row: row["created"],
            reverse=True,
        )

    async def live(self, request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-store"})
        await stream.prepare(request)
        self._streams.add(stream)

        async def send(event: str, data: Any) -> None:
            await stream.write(f"event: {event}\ndata: {json.dumps(data)}\n\n".encode())

        try:
            await send("start", {"now": iso(datetime.now(UTC)), "scope": "all"})
            rows = self.seen()
            for at in range(0, max(1, len(rows)), 500):
                await send("jobs", {"rows": rows[at : at + 500], "gone": [], "more": at + 500 < len(rows)})
            sent = {row["key"] for row in rows}
            while True:
                if self.may_pools:
                    await send("pools", {"pools": self.cluster.pools()})
                await send(
                    "quotas", {"quotas": [quota for quota in self.cluster.quotas() if quota["namespace"] in self.teams]}
                )
                await asyncio.sleep(self.period)
                changed = {row["key"] for row in self.cluster.advance()}
                now = {row["key"]: row for row in self.seen()}
                await send(
                    "jobs",
                    {
                        "rows": [
                            row
                            for key, row in now.items()
                            if key in changed or key not in sent or row.pop("touched", None)
                        ],
                        "gone": sorted(sent - now.keys()),
                        "more": False,
                    },
                )
                sent = set(now)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._streams.discard(stream)
        return stream

    def cut(self) -> None:
        """End every stream, as a restart does."""
        for stream in self._streams:
            transport = stream._req.transport if stream._req else None
            if transport is not None:
                transport.abort()

    async def used(self, _request: web.Request) -> web.Response:
        return problem(404, "no usage here") if self.usage is None else web.json_response(self.usage)

    async def preview(self, request: web.Request) -> web.Response:
        manifest = (await request.json())["manifest"]
        self.posted.append(("preview", manifest))
        wrong = faults(manifest)
        if wrong:
            return problem(
                422,
                f'{manifest["kind"]}.rfuav.io "preview-1" is invalid: {wrong[0] if len(wrong) == 1 else "[" + ", ".join(wrong) + "]"}',
            )
        gpus = manifest["spec"].get("resources", {}).get("gpus", 1)
        now = gpus < 2
        return web.json_response(
            {
                "starts_now": now,
                "nodes": ["da1-04"] if now else [],
                "position": None if now else 6,
                "of": None if now else 18,
                "reason": None if now else "WaitingForCapacity",
                "estimated_start": None
                if now
                else (datetime.now(UTC) + timedelta(minutes=26)).replace(tzinfo=None).isoformat(timespec="seconds"),
                "message": "starts now on da1-04"
                if now
                else f"needs {gpus} GPUs on one node; pool default has 1 of 48 training slots free",
            }
        )

    async def create(self, request: web.Request) -> web.Response:
        manifest = (await request.json())["manifest"]
        self.posted.append(("create", manifest))
        name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
        kind = "training" if manifest["kind"] == "TrainingJob" else "inference"
        if f"{kind}/{namespace}/{name}" in self.cluster.rows:
            return problem(409, f"there is a {manifest['kind']} {name} already: choose another name")
        row = self.cluster.row(
            kind,
            namespace,
            name,
            created=datetime.now(UTC),
            reason="WaitingForCapacity",
            message="needs 1 GPU; pool default has 0 of 48 training slots free",
            position=18,
            of=18,
            model=manifest["spec"]["model"].get("architecture", ""),
        )
        self.cluster.extra[row["key"]] = manifest
        return web.json_response(row, status=201)

    def _row(self, request: web.Request) -> dict[str, Any]:
        info = request.match_info
        found = [
            row
            for row in self.seen()
            if row["id"] == f"{info['ns']}/{info['name']}" and row["type"] == info.get("type", row["type"])
        ]
        if not found:
            raise web.HTTPNotFound(
                text=json.dumps({"detail": "there is no such job", "status": 404}), content_type="application/json"
            )
        return found[0]

    async def job(self, request: web.Request) -> web.Response:
        row = self._row(request)
        return web.json_response(
            {
                "row": row,
                "manifest": self.cluster.extra.get(row["key"]) or manifest_of(row),
                "status": status_of(row),
                "can": self.may,
                "kubectl": kubectl(row),
                "why": why(row),
            }
        )

    async def events(self, request: web.Request) -> web.Response:
        row = self._row(request)
        now = datetime.now(UTC)
        listed = [
            ("Normal", "Admitted", f"on {', '.join(row['nodes']) or 'da1-03'}", 50),
            ("Normal", "Pulled", "Container image already present on machine", 49),
            ("Warning", "FailedMount", "MountVolume.SetUp failed for volume captures: timed out", 47),
            ("Normal", "Started", "Started container trainer", 46),
        ]
        return web.json_response(
            [
                {
                    "time": iso(now - timedelta(minutes=minutes)),
                    "type": kind,
                    "reason": reason,
                    "message": message,
                    "object": f"Pod/{row['name']}-1",
                    "count": 3 if kind == "Warning" else 1,
                }
                for kind, reason, message, minutes in reversed(listed)
            ]
        )

    async def act(self, request: web.Request) -> web.Response:
        row, verb = self._row(request), request.match_info["verb"]
        self.posted.append((verb, row["key"]))
        changes = {
            "suspend": {"phase": "Suspended", "suspended": True, "reason": "Suspended"},
            "resume": {"phase": "Queued", "suspended": False, "reason": "WaitingForCapacity"},
            "cancel": {"phase": "Cancelled", "reason": "Cancelled", "finished": iso(datetime.now(UTC))},
        }
        row.update(changes[verb], touched=True)
        return web.json_response({"row": {key: value for key, value in row.items() if key != "touched"}})

    async def delete(self, request: web.Request) -> web.Response:
        row = self._row(request)
        self.posted.append(("delete", row["key"]))
        del self.cluster.rows[row["key"]]
        return web.Response(status=204)

    async def results(self, request: web.Request) -> web.Response:
        row = self._row(request)
        if row["percent"] is None or row["phase"] in ("Queued", "Failed"):
            return problem(404, "there are no results yet")
        return web.json_response(results_of(row, self.cluster.seeds[row["key"]]))

    async def logs(self, request: web.Request) -> web.StreamResponse:
        row = self._row(request)
        stream = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await stream.prepare(request)
        at = datetime.now(UTC) - timedelta(minutes=20)

        async def line(number: int) -> None:
            level = "WARNING" if number % 37 == 20 else "ERROR" if number % 113 == 60 else "INFO"
            words = {
                "INFO": f"epoch {number // 5 + 1}/{EPOCHS} step {number % 5 * 120}: loss {loss_at(number / 5, 1):.4f}, 1204 samples/s",
                "WARNING": "3 files were unreadable and are left out: flight7/0031.iq",
                "ERROR": "checkpoint could not be written, trying again: no space left on device",
            }[level]
            entry = {
                "timestamp": (at + timedelta(seconds=4 * number))
                .replace(tzinfo=None)
                .isoformat(timespec="milliseconds"),
                "level": level,
                "message": words,
                "attempt": row["attempt"] or 1,
            }
            await stream.write(f"id: {number}\ndata: {json.dumps(entry)}\n\n".encode())

        try:
            for number in range(240):
                await line(number)
            if row["finished"]:
                await stream.write(f"data: {json.dumps({'status': row['status'], 'message': ''})}\n\n".encode())
                return stream
            for number in range(240, 100_000):
                await asyncio.sleep(self.period)
                await line(number)
        except (ConnectionError, asyncio.CancelledError):
            pass
        return stream


def problem(status: int, detail: str) -> web.Response:
    return web.json_response({"detail": detail, "type": "about:blank", "title": "", "status": status}, status=status)


def faults(manifest: dict[str, Any]) -> list[str]:
    """What the API server would list as invalid."""
    spec = manifest["spec"]
    training = manifest["kind"] == "TrainingJob"
    uri = spec.get("dataset", {}).get("train", {}).get("uri") or spec.get("input", {}).get("uri", "")
    found = []
    epochs = spec.get("training", {}).get("epochs", 1)
    if not isinstance(epochs, int):
        found.append(
            'spec.training.epochs: Invalid value: "string": spec.training.epochs in body must be of type integer: "string"'
        )
    elif epochs < 1:
        found.append(
            f"spec.training.epochs: Invalid value: {epochs}: spec.training.epochs in body should be greater than or equal to 1"
        )
    if not re.match(r"(pvc|s3|hf|file)://\S+", uri):
        path = "spec.dataset.train.uri" if training else "spec.input.uri"
        found.append(
            f'{path}: Invalid value: "{uri}": write pvc://CLAIM/path, s3://bucket/prefix, hf://datasets/owner/name or file:///path'
        )
    return found


def manifest_of(row: dict[str, Any]) -> dict[str, Any]:
    training = row["type"] == "training"
    spec: dict[str, Any] = (
        {
            "model": {"architecture": row["model"]},
            "dataset": {"train": {"uri": "pvc://captures/train"}, "validation": {"fraction": 0.2}},
            "training": {"epochs": EPOCHS, "batchSize": 32, "optimizer": {"name": "adam", "learningRate": 0.0001}},
            "output": {"uri": f"pvc://models/{row['name']}"},
        }
        if training
        else {
            "model": {"fromTrainingJob": "drones-resnet18"},
            "input": {"uri": "pvc://captures/flight7", "pattern": "**/*.iq"},
            "output": {"uri": f"pvc://results/{row['name']}"},
            "evaluation": {},
            "shards": 4,
        }
    )
    spec["resources"] = {"gpus": row["gpus"], "cpu": "4", "memory": "16Gi"}
    return {
        "apiVersion": "rfuav.io/v1alpha1",
        "kind": "TrainingJob" if training else "InferenceJob",
        "metadata": {
            "name": row["name"],
            "namespace": row["namespace"],
            "labels": {"team": row["namespace"], "on": "yes"},
        },
        "spec": spec,
    }


def status_of(row: dict[str, Any]) -> dict[str, Any]:
    metrics: dict[str, Any] = (
        {}
        if row["f1"] is None
        else {"macroF1": row["f1"], "top1": row["accuracy"]}
        if row["loss"] is None
        else {
            "trainLoss": row["loss"],
            "valLoss": round(row["loss"] * 1.12, 4),
            "trainAccuracy": row["accuracy"],
            "valAccuracy": round(row["accuracy"] * 0.985, 4),
            "bestValAccuracy": row["accuracy"],
            "macroF1": row["f1"],
            "top3": 0.998,
            "learningRate": 0.0001,
        }
    )
    failures = [
        {
            "attempt": n + 1,
            "pod": f"{row['name']}-{n + 1}",
            "node": "da1-03",
            "reason": reason,
            "exitCode": code,
            "message": message,
            "finishedAt": row["finished"] or row["created"],
            "counted": True,
            "advice": ADVICE.get(reason, ""),
        }
        for n, (reason, code, message) in enumerate(
            (
                (
                    "GPUOutOfMemory",
                    4,
                    "CUDA ran out of memory at batch size 64: write batchSize: 32 and gradientAccumulation: 2",
                ),
                ("InputMissing", 3, "pvc://captures/train has no folder: expected one for each class"),
            )
            if row["failures"]
            else ()
        )
    ]
    return {
        "attempts": row["attempt"],
        "assignments": [{"pod": f"{row['name']}-1", "node": node, "gpus": row["gpus"]} for node in row["nodes"]],
        "failures": failures,
        "conditions": [],
        "metrics": metrics,
        "customMetrics": [],
        "progress": {"epoch": row["epoch"], "percent": row["percent"]},
        "checkpoint": {"uri": f"pvc://models/{row['name']}/checkpoints", "epoch": row["epoch"]}
        if row["epoch"]
        else None,
        "outputs": {"bestWeights": f"pvc://models/{row['name']}/best.safetensors"}
        if row["phase"] == "Succeeded"
        else {},
        "source": None,
        "queue": None,
    }


def kubectl(row: dict[str, Any]) -> list[str]:
    resource = f"{row['type']}job"
    return [
        f"kubectl --namespace {row['namespace']} describe {resource} {row['name']}",
        f"kubectl --namespace {row['namespace']} logs --follow --selector rfuav.io/job={row['name']}",
    ]


def why(row: dict[str, Any]) -> list[dict[str, Any]]:
    if row["phase"] != "Queued":
        return []
    return [
        {"ok": True, "what": "The pool takes jobs", "detail": "default is ready, with 48 GPUs on 6 nodes"},
        {"ok": True, "what": "Nodes are suitable", "detail": "6 of 6 nodes"},
        {"ok": True, "what": "The team's quota has room", "detail": f"{row['namespace']} uses 4 of 8 GPUs"},
        {"ok": False, "what": "GPUs are free", "detail": row["message"]},
    ]


def results_of(row: dict[str, Any], seed: int) -> dict[str, Any]:
    done = max(2, int(row["percent"]))
    epochs = sorted({max(1, round(n * done / 48)) for n in range(49)})
    train = [round(loss_at(epoch, seed), 4) for epoch in epochs]
    validation = [round(loss_at(epoch, seed + 3) * 1.1 + 0.03, 4) for epoch in epochs]
    confusion = [
        [a, b, 180 - 11 * a if a == b else max(0, 14 - 5 * abs(a - b) - a)] for a in range(8) for b in range(8)
    ]
    return {
        "history": {
            "epochs": epochs,
            "trainLoss": train,
            "valLoss": validation,
            "trainAccuracy": [round(1 - value / 2.6, 4) for value in train],
            "valAccuracy": [round(1 - value / 2.5, 4) for value in validation],
            "learningRate": [0.0001] * len(epochs),
        },
        "classes": CLASSES,
        "confusion": [cell for cell in confusion if cell[2]],
        "bySNR": [
            [snr, 160, round(min(0.99, 0.5 + 0.5 / (1 + 2.7 ** (-(snr + 6) / 4))), 3)] for snr in range(-20, 21, 4)
        ],
        "truncated": False,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--ended", type=int, default=60)
    parser.add_argument("--sign-in", default="none")
    arguments = parser.parse_args()
    web.run_app(
        Double(Cluster(ended=arguments.ended), sign_in=arguments.sign_in).app, host="127.0.0.1", port=arguments.port
    )


if __name__ == "__main__":
    main()
