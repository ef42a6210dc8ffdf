"""The chart through the helm that the local cluster is made with."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from localcluster import binaries

CHART = Path(__file__).resolve().parents[3] / "helm" / "rfuav-operator"


@pytest.fixture(scope="session")
def helm():
    return str(binaries.ensure(("helm",), Console(stderr=True))["helm"])


@pytest.fixture(scope="session")
def run(helm):
    def run(*arguments):
        command = [helm, "template", "rfuav", str(CHART), "--namespace", "rfuav-system", "--kube-version", "1.35.4"]
        return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def render(run):
    def render(*arguments):
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
        return {(o["kind"], o["metadata"]["name"]): o for o in yaml.safe_load_all(done.stdout) if o}

    return render


@pytest.fixture(scope="session")
def default(render):
    return render()


@pytest.fixture(scope="session")
def notes(helm, tmp_path_factory):
    """What helm prints after an installation. Without a cluster it renders manifests alone, so the notes become one."""
    chart = tmp_path_factory.mktemp("notes") / "chart"
    shutil.copytree(CHART, chart)
    text = (chart / "templates/NOTES.txt").read_text()
    manifest = 'text: |\n  {{- include "notes" . | nindent 2 }}'
    (chart / "templates/notes.yaml").write_text(f'{{{{ define "notes" }}}}{text}{{{{ end }}}}{manifest}')

    def notes(*arguments):
        command = [helm, "template", "rfuav", str(chart), "--namespace", "rfuav-system", "--kube-version", "1.35.4"]
        command += ["--show-only", "templates/notes.yaml", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return yaml.safe_load(done.stdout)["text"]

    return notes
