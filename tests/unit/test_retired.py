"""Names that went do not come back: classes and functions, modules, and fields whose old name said too little."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "operator" / "src" / "rfuav_operator" / "core"
SOURCES = [
    path
    for top in ("kube/src", "operator/src", "gateway/src", "tests", "bench", "demo")
    for path in sorted((ROOT / top).rglob("*.py"))
    if path != Path(__file__)
]
PACKAGES = {"admission", "preemption", "queue", "job", "capacity", "stored", "guidance"}

IDENTIFIERS = {
    "Need": "Shape",
    "need_of": "shape_of",
    "Held": "Allocation",
    "Sort": "RunnerClass",
    "Dirt": "Changes",
    "Left": "Headroom",
    "Asker": "Preemptor",
    "Ground": "PreemptionIndex",
    "PoolRooms": "PoolCapacity",
    "_Lease": "rfuav_kube.lease.Lease",
    "CHECKPOINTED": "rfuav_crds.contract.EXIT_STOPPED",
    "CA_ANNOTATION": "rfuav_crds.contract.ANNOTATION_CA",
    "OUTPUT_ANNOTATION": "rfuav_crds.contract.ANNOTATION_OUTPUT",
    "PLURAL": "rfuav_crds.contract.PLURALS",
}
MODULES = {
    "decide": "scheduler",
    "limits": "pool_status",
    "admit": "admission.cycle",
    "plan": "admission.plan",
    "blocked": "admission.reservations",
    "telling": "admission.waiting",
    "places": "admission.positions",
    "victims": "preemption.candidates",
    "runners": "preemption.running",
    "clearable": "preemption.feasibility",
    "queues": "queue.queues",
    "quotas": "queue.quotas",
    "inorder": "queue.ordering",
    "gates": "queue.eligibility",
    "ready": "queue.eligibility",
    "lifecycle": "job.lifecycle",
    "progress": "job.progress",
    "classify": "job.failures",
    "timers": "job.deadlines",
    "podspec": "job.podspec",
    "announce": "job.events",
    "backoff": "job.backoff",
    "units": "job.units",
    "starting": "job.starting",
    "vetoes": "job.vetoes",
    "aside": "job.aside",
    "priorities": "job.priority",
    "placement": "capacity.placement",
    "shapes": "capacity.placement",
    "usage": "capacity.usage",
    "gpusharing": "capacity.gpu_sharing",
    "reasons": "capacity.explain",
    "gpus": "capacity.gpus",
    "volumes": "capacity.volumes",
    "bounds": "stored.bounds",
    "packing": "stored.packing",
}
FIELDS = {
    "PoolPlan": {"open", "own", "first", "making_room", "nodeless", "rooms"},
    "Key": {"need"},
    "PoolQueue": {"needs"},
}


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every identifier with its line, those in quoted annotations too."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield node.lineno, name
            case ast.arg(arg=name) | ast.keyword(arg=str(name)) | ast.alias(name=name):
                yield node.lineno, name
            case ast.Constant(value=str(text)) if text.isidentifier():
                yield node.lineno, text


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in SOURCES}


def test_no_retired_identifier_is_used(trees):
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}, which is called {IDENTIFIERS[name]} now"
        for path, tree in trees.items()
        for line, name in names(tree)
        if name in IDENTIFIERS
    ]
    assert not found


def test_no_retired_module_is_there_or_imported(trees):
    assert not {path.stem for path in CORE.glob("*.py")} & MODULES.keys()
    found = []
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            taken = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for module in taken:
                first, _, rest = module.removeprefix("rfuav_operator.core.").partition(".")
                if module.startswith("rfuav_operator.core.") and first in MODULES.keys() - PACKAGES:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {module}, now {MODULES[first]} {rest}")
    assert not found


def test_no_retired_field_is_there(trees):
    found = [
        f"{tree.name}.{field.target.id}"
        for path, module in trees.items()
        if path.is_relative_to(CORE)
        for tree in ast.walk(module)
        if isinstance(tree, ast.ClassDef)
        for field in tree.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if field.target.id in FIELDS.get(tree.name, ())
    ]
    assert not found


def test_at_is_an_instant(trees):
    """What is called `at` in the core is a time."""
    found = [
        f"{path.relative_to(ROOT)}:{arg.lineno}: at: {ast.unparse(arg.annotation)}"
        for path, tree in trees.items()
        if path.is_relative_to(CORE)
        for arg in ast.walk(tree)
        if isinstance(arg, ast.arg) and arg.arg == "at" and arg.annotation is not None
        if "datetime" not in ast.unparse(arg.annotation)
    ]
    assert not found


def test_the_top_of_the_core_is_small():
    """A floor plan that fits one look: nine files, and the packages."""
    assert len(list(CORE.glob("*.py"))) <= 9
    assert {path.name for path in CORE.iterdir() if path.is_dir() and path.name != "__pycache__"} == PACKAGES
