"""The commands of README.md and docs/trainer.md for a laptop, run as they are written, on fewer recordings."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
FEWER = " --split train=4 --split val=2 --split test=2"


def commands(file):
    """The lines of the first code block under "On a laptop", without what installs and without comments."""
    section = (ROOT / file).read_text().partition("\n## On a laptop\n")[2].partition("\n## ")[0]
    lines = re.search(r"```\w+\n(.*?)```", section, re.DOTALL)[1].splitlines()
    return [line.partition(" #")[0].rstrip() for line in lines if not line.startswith("make venv")]


def test_the_commands_for_a_laptop_work_as_they_are_written(tmp_path):
    lines = commands("docs/trainer.md")
    assert [line for line in lines if not line.startswith("rfuav-trainer infer")] == commands("README.md")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    script = "\n".join(line + FEWER * line.startswith("rfuav-trainer synthesize") for line in lines)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        ["bash", "-euxc", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "18 samples" in ended.stdout
    assert re.search(r"SNR \(dB\) +samples +accuracy", ended.stdout)
    results = tmp_path / "build/results/laptop"
    assert {"evaluation.txt", "confusion-matrix.png", "overview", "_SUCCESS"} <= {
        path.name for path in results.iterdir()
    }
