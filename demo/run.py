"""The steps of the demo, one after the other: cluster, images, operator, recordings, jobs, results.

In: this checkout and examples/demo/. Out: results in .demo/ and a running cluster. A second run reuses the cluster
and the recordings and runs the jobs again.
"""

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

import localcluster.api as clusters
from demo import gateway, results, tables, watch
from demo import picture as drawing
from demo.errors import DemoError
from demo.kube import Kube, Object
from demo.rows import History, Row, row
from localcluster import images
from rfuav_crds import contract

ROOT = Path(__file__).resolve().parents[1]
MANIFESTS = ROOT / "examples" / "demo"
CHART = ROOT / "helm" / "rfuav-operator"
OUTPUT = ROOT / ".demo"
NAME = "demo"  # of the cluster
SYSTEM, NAMESPACE, RELEASE = "rfuav-system", "drones", "rfuav"
TRAINER_PLACEHOLDER = "rfuav-trainer:0.1.0"  # what the manifests name, replaced by the image that was built
IMAGE_PULL_SECONDS = 900  # PyTorch is gigabytes
JOBS_SECONDS = 1200
JOBS = ("training-jobs.yaml", "inference-jobs.yaml")


class Steps:
    """Names each step as it begins and keeps how long it took."""

    def __init__(self, console: Console) -> None:
        self.durations: list[tuple[str, float]] = []
        self._console = console

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One step; its time counts also when it fails."""
        self._console.print(f"[bold]== {name}")
        started = time.monotonic()
        try:
            yield
        finally:
            self.durations.append((name, time.monotonic() - started))


def up() -> None:
    """Run all of it.

    Raises:
        DemoError: something did not succeed, with what failed and the end of its log.
        LocalClusterError: the cluster or an image could not be made.
    """
    # Where there is no terminal, lines are not wrapped and tables are as wide as they need.
    console = Console() if Console().is_terminal else Console(soft_wrap=True, width=160)
    steps = Steps(console)
    try:
        with steps.step("cluster"):
            cluster = clusters.up(NAME, "full", console=console)
        if cluster.registry is None:
            raise DemoError(
                "the demo brings its own cluster and registry and cannot use another: unset"
                " RFUAV_USE_KUBECONFIG, or install the operator there (docs/install.md)"
                " and apply examples/demo/*-jobs.yaml"
            )
        kube = Kube(cluster.kubeconfig, NAMESPACE, kubectl=cluster.programs["kubectl"], helm=cluster.programs["helm"])
        with steps.step("image of the operator"):
            operator = images.build(
                ROOT / "Dockerfile.operator", "rfuav-operator", registry=cluster.registry, context=ROOT, console=console
            )
        with steps.step("image of the trainer"):
            trainer = images.build(
                ROOT / "Dockerfile.trainer", "rfuav-trainer", registry=cluster.registry, context=ROOT, console=console
            )
        with steps.step("operator, namespace and claims"):
            _prepare(kube, operator, trainer)
        with steps.step("recordings (the node pulls the trainer's image first)"):
            _record(kube, trainer)
        with steps.step("jobs"):
            rows, history = _run_jobs(kube, console)
        console.print(tables.summary(rows, history))
        _check(kube, rows)
        with steps.step("results"):
            results.show(kube, OUTPUT, console)
        with steps.step("the same jobs through the REST gateway"):
            url = gateway.address(kube)
            kinds = Counter(kind for kind, _ in _applied())
            gateway.check(url, trainings=kinds["TrainingJob"], inferences=kinds["InferenceJob"])
    finally:
        console.print(tables.phases(steps.durations))
    _say_how_to_go_on(console, cluster.kubeconfig, url)


def clean() -> None:
    """Take the cluster down and remove the results."""
    clusters.down(NAME)
    shutil.rmtree(OUTPUT, ignore_errors=True)
    print(f"The demo's cluster and {OUTPUT.name}/ are gone. Built programs and images stay in the cache for next time.")


def picture() -> str:
    """The live table of the running demo at this moment, as SVG.

    Raises:
        DemoError: no demo runs.
    """
    cluster = clusters.get(NAME)
    if cluster is None:
        raise DemoError("the demo does not run: `make demo` starts it")
    kube = Kube(cluster.kubeconfig, NAMESPACE, kubectl=cluster.programs["kubectl"], helm=cluster.programs["helm"])
    now, jobs = datetime.now(UTC), kube.jobs()
    if not jobs:
        raise DemoError("the demo has not applied its jobs yet")
    applied = min(datetime.fromisoformat(job["metadata"]["creationTimestamp"]) for job in jobs)
    return drawing.svg([row(job, now) for job in jobs], (now - applied).total_seconds())


def _prepare(kube: Kube, operator: str, trainer: str) -> None:
    """The namespaces, nothing of an earlier run's jobs, the image on its way to the node, and the operator."""
    kube.kubectl("apply", "-f", str(MANIFESTS / "namespaces.yaml"))
    kube.kubectl("delete", "pod", "results", "--ignore-not-found")
    kube.kubectl("apply", "-f", "-", stdin=_with_image("results.yaml", trainer))
    releases = json.loads(kube.helm("list", "--namespace", SYSTEM, "--pending", "--output", "json"))
    if releases:  # an interrupted installation would block the next one; CRDs and jobs stay
        kube.helm("uninstall", RELEASE, "--namespace", SYSTEM, "--wait")
    repository, _, tag = operator.rpartition(":")
    values = {"image.repository": repository, "image.tag": tag, "trainer.image": trainer}
    settings = [part for name, value in values.items() for part in ("--set-string", f"{name}={value}")]
    kube.helm(
        *(
            "upgrade",
            "--install",
            RELEASE,
            str(CHART),
            "--namespace",
            SYSTEM,
            "--values",
            str(ROOT / "demo" / "values.yaml"),
        ),
        *(*settings, "--wait", "--timeout", "180s"),
    )
    kube.kubectl("delete", "inferencejobs,trainingjobs", "--all", "--timeout=120s", timeout=130)
    kube.kubectl("wait", "pods", "-l", contract.LABEL_JOB, "--for=delete", "--timeout=120s", timeout=130)


def _record(kube: Kube, trainer: str) -> None:
    """Recordings in the claim `captures`: those of an earlier run, if it was made from the same file."""
    text = _with_image("recordings.yaml", trainer)
    wanted = next(o["data"] for o in yaml.safe_load_all(text) if o["kind"] == "ConfigMap")
    found = kube.kubectl("get", "configmap/recordings", "job/recordings", "--ignore-not-found", "-o", "json")
    items = {item["kind"]: item for item in json.loads(found)["items"]} if found.strip() else {}
    finished = items.get("Job", {}).get("status", {}).get("succeeded") == 1
    if not (finished and items.get("ConfigMap", {}).get("data") == wanted):
        kube.kubectl("delete", "job", "recordings", "--ignore-not-found", "--timeout=60s")
        kube.kubectl("apply", "-f", "-", stdin=text)
        _wait_for_job(kube, "recordings", IMAGE_PULL_SECONDS)
    kube.kubectl(
        "wait",
        "pod/results",
        "--for=condition=Ready",
        f"--timeout={IMAGE_PULL_SECONDS}s",
        timeout=IMAGE_PULL_SECONDS + 10,
    )


def _wait_for_job(kube: Kube, name: str, limit: float) -> None:
    """Until a batch Job has succeeded; DemoError with its log when it fails or takes longer than `limit` seconds."""
    deadline = time.monotonic() + limit
    while True:
        status = json.loads(kube.kubectl("get", "job", name, "-o", "json")).get("status", {})
        if status.get("succeeded"):
            return
        failed = any(c["type"] == "Failed" and c["status"] == "True" for c in status.get("conditions", []))
        if failed or time.monotonic() > deadline:
            raise DemoError(
                f"job {name} {'failed' if failed else f'took over {limit:.0f} s'}; its pods and their log's end:\n"
                + kube.kubectl("get", "pods", "-l", f"job-name={name}", "-o", "wide")
                + kube.kubectl("get", "events", "--sort-by=.lastTimestamp")[-2000:]
                + _quietly(kube, "logs", "-l", f"job-name={name}", "--tail=30")
            )
        time.sleep(1)


def _run_jobs(kube: Kube, console: Console) -> tuple[list[Row], History]:
    for name in JOBS:
        console.print(f"kubectl apply -f examples/demo/{name}", highlight=False)
        kube.kubectl("apply", "-f", str(MANIFESTS / name))
    return watch.until_done(kube, console, limit=JOBS_SECONDS)


def _check(kube: Kube, rows: list[Row]) -> None:
    """All that were applied Succeeded, or a DemoError with each failure and the end of its pods' logs."""
    wrong = [one for one in rows if one.phase != "Succeeded"]
    there = {(one.kind, one.name) for one in rows}
    applied = _applied()
    missing = [one for one in applied if one not in there]  # deleted meanwhile: not a success either
    if not wrong and not missing:
        return
    failures = len(wrong) + len(missing)
    story = [f"{failures} of {len(applied)} jobs did not succeed within {JOBS_SECONDS // 60} minutes:"]
    story += [f"\n{kind} {name}: no longer exists" for kind, name in missing]
    for one in wrong:
        story.append(f"\n{one.kind} {one.name}: {one.phase} {one.reason}: {one.message}")
        pods = f"{contract.LABEL_JOB}={one.name},{contract.LABEL_KIND}={one.kind}"
        story.append(_quietly(kube, "logs", "-l", pods, "--tail=15", "--prefix"))
    story.append(
        "\nthe operator's log ends:\n"
        + _quietly(kube, "logs", "--namespace", SYSTEM, "deployment/rfuav-operator", "--tail=15")
    )
    raise DemoError("\n".join(story))


def _applied() -> list[tuple[str, str]]:
    """Kind and name of each job of the demo."""
    objects = [one for file in JOBS for one in yaml.safe_load_all((MANIFESTS / file).read_text(encoding="utf-8"))]
    return [(one["kind"], one["metadata"]["name"]) for one in objects]


def _quietly(kube: Kube, *arguments: str) -> str:
    """What kubectl prints, or why it cannot: for the story of a failure, which must not fail itself."""
    try:
        return kube.kubectl(*arguments)
    except DemoError as error:
        return str(error)


def _with_image(name: str, image: str) -> str:
    """A manifest of examples/demo with the trainer's image that was built."""
    objects: list[Object] = list(yaml.safe_load_all((MANIFESTS / name).read_text(encoding="utf-8")))

    def replaced(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: image if (k, v) == ("image", TRAINER_PLACEHOLDER) else replaced(v) for k, v in value.items()}
        return [replaced(item) for item in value] if isinstance(value, list) else value

    return yaml.safe_dump_all([replaced(one) for one in objects], sort_keys=False)


def _say_how_to_go_on(console: Console, kubeconfig: Path, gateway_url: str) -> None:
    console.print(
        f"\nAll jobs succeeded. Results are in {OUTPUT.name}/, the cluster is up. To go on by hand:\n\n"
        f"  export KUBECONFIG={kubeconfig}\n"
        f"  kubectl --namespace {NAMESPACE} get rfuav\n"
        f"  kubectl --namespace {NAMESPACE} describe trainingjob drones-resnet18\n\n"
        f"The REST gateway has the same jobs as tasks; {gateway_url}/docs describes every call (docs/gateway.md):\n\n"
        f"  curl {gateway_url}/api/v2/tasks\n\n"
        "`make demo` runs the jobs again, `make demo-clean` removes the cluster. In a browser, with all jobs live:\n\n"
        f"  {gateway_url}/",
        highlight=False,
    )
