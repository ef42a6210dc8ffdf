"""`python -m demo up|clean`: a cluster, both images, the chart, recordings, and ten jobs watched until all have ended.

In: nothing but this checkout. Out: what happened on the terminal, the results under .demo/; exit 1 when a job failed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from demo.table import TERMINAL, Row, row
from localcluster import api, images
from localcluster.errors import LocalClusterError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / ".demo"
NAME = "demo"
NAMESPACE, SYSTEM = "drones", "rfuav-system"
LIMIT = 1200  # seconds in which all jobs must have ended
REFRESH = 1.0
console = Console()


class DemoError(RuntimeError):
    """The demo cannot go on."""


class Demo:
    """One run."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, float]] = []

    def up(self) -> int:
        """All of it; 0 when every job succeeded."""
        with self._phase("a Kubernetes cluster"):
            cluster = api.up(NAME, "full", console=console)
        if cluster.registry is None:
            raise DemoError("the demo needs a cluster with a registry of its own: unset RFUAV_USE_KUBECONFIG")
        self.kubeconfig, self.kubectl_path = cluster.kubeconfig, str(cluster.programs.get("kubectl", "kubectl"))
        with self._phase("the operator's image"):
            operator = images.build(
                ROOT / "Dockerfile.operator", "rfuav-operator", registry=cluster.registry, console=console
            )
        with self._phase("the trainer's image"):
            trainer = images.build(
                ROOT / "Dockerfile.trainer", "rfuav-trainer", registry=cluster.registry, console=console
            )
        with self._phase("the chart"):
            repository, _, tag = operator.rpartition(":")
            helm = str(cluster.programs.get("helm", "helm"))
            # An installation that was interrupted would stand in the way; the CRDs stay.
            gone = ("uninstall", "rfuav", "--ignore-not-found", "--wait", "--namespace", SYSTEM)
            run(helm, *gone, "--kubeconfig", str(self.kubeconfig))
            run(
                helm,
                *("upgrade", "--install", "rfuav", str(ROOT / "helm/rfuav-operator")),
                *("--namespace", SYSTEM, "--create-namespace", "--values", str(ROOT / "demo/values.yaml")),
                *("--set", f"image.repository={repository}", "--set", f"image.tag={tag}"),
                *("--set", f"trainer.image={trainer}", "--kubeconfig", str(self.kubeconfig)),
                *("--wait", "--timeout", "5m"),
            )
        with self._phase("recordings"):
            self._prepare(trainer)
        with self._phase("ten jobs"):
            rows = self._watch()
        self._results()
        self._summary(rows)
        return 0 if rows and all(r.phase == "Succeeded" for r in rows) else 1

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        console.rule(f"[bold]{name}", align="left")
        began = time.monotonic()
        yield
        self.phases.append((name, time.monotonic() - began))

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """What kubectl prints."""
        return run(self.kubectl_path, "--kubeconfig", str(self.kubeconfig), *arguments, stdin=stdin, check=check)

    def _prepare(self, trainer: str) -> None:
        """An empty namespace with volumes, and recordings in one of them."""
        self.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait", "--timeout=180s")
        self.kubectl("apply", "-f", str(ROOT / "examples/demo/namespace.yaml"))
        pod = (ROOT / "demo/workbench.yaml").read_text().replace("TRAINER_IMAGE", trainer)
        self.kubectl("apply", "-f", "-", stdin=pod)
        console.print("the first pull of the trainer's image takes a minute or two")
        self.kubectl("wait", "-n", NAMESPACE, "pod/workbench", "--for=condition=Ready", "--timeout=600s")
        recipe = (ROOT / "examples/demo/synthesis.yaml").read_text()
        self._in_workbench("sh", "-c", "cat > /tmp/synthesis.yaml", stdin=recipe)
        text = self._in_workbench("rfuav-trainer", "synthesize", "-f", "/tmp/synthesis.yaml")  # noqa: S108  (in the pod)
        console.print(text.strip().splitlines()[-1] if text.strip() else "made", highlight=False)

    def _in_workbench(self, *command: str, stdin: str | None = None) -> str:
        return self.kubectl("exec", "-i", "-n", NAMESPACE, "workbench", "--", *command, stdin=stdin)

    def _watch(self) -> list[Row]:
        """Apply the jobs and show them until all have ended, or the time is over."""
        for name in ("training", "inference"):
            self.kubectl("apply", "-f", str(ROOT / f"examples/demo/{name}.yaml"))
        began, rows, seen = time.monotonic(), list[Row](), dict[str, tuple[str, str]]()
        with Live(console=console, refresh_per_second=2) if console.is_terminal else nullcontext() as live:
            while time.monotonic() - began < LIMIT:
                jobs = json.loads(self.kubectl("get", "tj,ij", "-n", NAMESPACE, "-o", "json"))["items"]
                rows = sorted(
                    (row(j, datetime.now(UTC)) for j in jobs), key=lambda r: (r.kind != "TrainingJob", r.name)
                )
                elapsed = time.monotonic() - began
                if live is not None:
                    live.update(_live_table(rows, elapsed))
                else:
                    for r in rows:
                        if seen.get(r.name) != (r.phase, r.why):
                            seen[r.name] = (r.phase, r.why)
                            console.print(
                                f"{elapsed:6.1f} s  {r.name:<26} {r.phase:<10} {r.progress:<16} {r.node:<8} {r.why}",
                                soft_wrap=True,
                                highlight=False,
                            )
                if rows and all(r.phase in TERMINAL for r in rows):
                    return rows
                time.sleep(REFRESH)
        console.print(f"[red]not all jobs ended within {LIMIT} s")
        return rows

    def _results(self) -> None:
        """Copy what people want to look at out of the volume."""
        shutil.rmtree(RESULTS, ignore_errors=True)
        RESULTS.mkdir()
        archive = RESULTS / "results.tar"
        command = [self.kubectl_path, "--kubeconfig", str(self.kubeconfig), "exec", "-n", NAMESPACE, "workbench", "--"]
        with archive.open("wb") as stream:
            subprocess.run([*command, "tar", "-C", "/mnt/results", "-cf", "-", "."], stdout=stream, check=False)
        subprocess.run(["tar", "-C", str(RESULTS), "-xf", str(archive)], check=False)
        archive.unlink()

    def _summary(self, rows: list[Row]) -> None:
        table = Table(title="what became of the jobs")
        for column in ("job", "phase", "accuracy", "waited", "ran", "node", "why"):
            table.add_column(column, justify="right" if column in ("accuracy", "waited", "ran") else "left")
        for r in rows:
            table.add_row(r.name, r.phase, r.accuracy, f"{r.waited:.0f} s", f"{r.ran:.0f} s", r.node, r.why)
        console.print(table)
        for r in rows:
            if r.phase != "Succeeded":
                selector = f"rfuav.io/job={r.name}"
                logs = self.kubectl("logs", "-n", NAMESPACE, "-l", selector, "--tail=20", check=False)
                console.print(f"[red]{r.name}: {r.phase}[/red]\n{logs}", highlight=False)
        matrix = RESULTS / "flight-3/evaluation.txt"
        if matrix.is_file():
            console.rule("[bold]flight-3 (10 dB): rows are true classes, columns guesses", align="left")
            console.print(matrix.read_text(), highlight=False)
            predictions = (RESULTS / "flight-3/predictions-0.jsonl").read_text().splitlines()
            for line in predictions[:: max(1, len(predictions) // 4)][:4]:
                found = json.loads(line)
                console.print(f"{found['path']:<48} {found['class']:<24} {found['score']:.1%}", highlight=False)
            console.print(f"pictures: {RESULTS}/flight-3/confusion-matrix.png and {RESULTS}/flight-3/annotated/")
        times = Table(title="where the time went")
        times.add_column("phase")
        times.add_column("seconds", justify="right")
        for name, seconds in (*self.phases, ("all", sum(s for _, s in self.phases))):
            times.add_row(name, f"{seconds:.0f}")
        console.print(times)
        console.print("go on by hand:\n", highlight=False)
        console.print(f"  export KUBECONFIG={self.kubeconfig}", highlight=False, soft_wrap=True)
        console.print(f"  {self.kubectl_path} get rfuav -n {NAMESPACE}", highlight=False, soft_wrap=True)
        console.print(f"  {self.kubectl_path} describe trainingjob drones-resnet18 -n {NAMESPACE}", soft_wrap=True)


def _live_table(rows: list[Row], elapsed: float) -> Table:
    table = Table(title=f"{elapsed:.0f} s")
    for column in ("job", "state", "progress", "loss", "accuracy", "node", "waited", "ran", "why it waits"):
        table.add_column(column)
    for r in rows:
        table.add_row(*r[1:7], f"{r.waited:.0f}", f"{r.ran:.0f}", r.why)
    return table


def run(*command: str, stdin: str | None = None, check: bool = True) -> str:
    """A command's output; its error text becomes the demo's.

    Raises:
        DemoError: it failed.
    """
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise DemoError(f"{' '.join(command[:6])} ... failed:\n{(done.stderr or done.stdout).strip()[-3000:]}")
    return done.stdout


def clean() -> int:
    """Remove the cluster and the results; the caches of binaries and image layers stay for the next time."""
    api.down(NAME)
    shutil.rmtree(RESULTS, ignore_errors=True)
    console.print("the demo's cluster and results are gone; built binaries and image layers stay in the cache folder")
    return 0


def main() -> int:
    """The command line."""
    commands: dict[str, Any] = {"up": Demo().up, "clean": clean}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:  # noqa: PLR2004
        console.print("write: python -m demo up | clean")
        return 2
    try:
        return int(commands[sys.argv[1]]())
    except (DemoError, LocalClusterError) as error:
        console.print(f"[red]{error}", highlight=False)
        return 1


if __name__ == "__main__":
    sys.exit(main())
