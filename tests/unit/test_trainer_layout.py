"""The trainer's floor plan: few files at the top, packages whose `__init__` only describes them, no retired module."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
TRAINER = ROOT / "trainer_image/src/rfuav_trainer"
SOURCES = [path for top in ("trainer_image/src", "tests", "bench", "demo") for path in (ROOT / top).rglob("*.py")]
RETIRED = {
    "cli_prepare", "ending", "runtime", "logs", "stores", "cache", "hub", "outgoing", "remote", "scratch", "writing",
    "recording", "spectrogram", "colours", "dataset", "manifest", "inputs", "splitting", "conditions", "loading", "kept",
    "augment", "augment_signal", "models", "custom", "weights", "convert", "precision", "fitting", "world", "crew", "train", "learner",
    "loss", "schedule", "ema", "position", "checkpoint", "starting", "resolved", "report", "tensorboard", "infer", "classifier",
    "results", "pieces", "annotate", "finishing", "evaluate", "evaluation_report", "metrics", "progress", "display", "synthesize",
    "synthesis_spec", "channel", "emitters", "config",
}  # fmt: skip
"""Modules that lay flat in the trainer."""


def imported(tree: ast.AST) -> set[str]:
    """The modules of the trainer that a file imports, without the name of the trainer."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "rfuav_trainer":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rfuav_trainer."):
            found.add((node.module or "").removeprefix("rfuav_trainer.").partition(".")[0])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("rfuav_trainer.")}
    return found


def test_retired_imports_are_found():
    assert imported(ast.parse("from rfuav_trainer import kept\nfrom rfuav_trainer.loading import cut")) == {
        "kept",
        "loading",
    }


def test_no_retired_module_is_imported():
    found = {str(path.relative_to(ROOT)): imported(ast.parse(path.read_text())) & RETIRED for path in SOURCES}
    assert {path: names for path, names in found.items() if names} == {}


def test_the_top_of_the_trainer_is_small():
    assert len(list(TRAINER.glob("*.py"))) <= 7
    assert not {path.stem for path in TRAINER.glob("*.py")} & RETIRED
