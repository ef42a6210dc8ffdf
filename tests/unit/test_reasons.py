"""Every reason that the code can write stands in docs/reasons.md, and every word there is one that the code knows.

Reasons are found in the syntax trees: what is passed as `reason` to any function, what is assigned to a variable or an
attribute that ends there, and what a function returns that is used so.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from rfuav_crds.reasons import BOTH, OF_TRAINER, OWN

ROOT = Path(__file__).parents[2]
OPERATOR, TRAINER, SHARED = ROOT / "operator/src", ROOT / "trainer_image/src", ROOT / "crds/src"
WORD = re.compile(r"[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*")
NAMES = {"reason", "stopping", "fatal"}
"""Parameters, fields and variables that hold a reason (`fatal`: a reason and a message)."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def trees(folder: Path) -> tuple[ast.Module, ...]:
    return tuple(ast.parse(path.read_text()) for path in sorted(folder.rglob("*.py")))


@cache
def literals(folder: Path) -> set[str]:
    nodes = (node for tree in trees(folder) for node in ast.walk(tree))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


class Reasons:
    """The words that reach a reason in some source files."""

    def __init__(self, folder: Path, *, messages: bool) -> None:
        self.found: set[str] = set()
        self._messages = messages  # whether dictionaries are termination messages; the operator's are bodies of HTTP
        self._constants: dict[str, list[ast.expr]] = {}
        self._functions: dict[str, list[Function]] = {}
        self._parameters: dict[str, list[list[str]]] = {}  # of functions and classes, by name
        for tree in (*trees(folder), *trees(SHARED)):
            for node in tree.body:
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    self._constants.setdefault(node.targets[0].id, []).append(node.value)
            for inner in ast.walk(tree):
                if isinstance(inner, Function):
                    self._functions.setdefault(inner.name, []).append(inner)
                    names = [a.arg for a in inner.args.args if a.arg not in ("self", "cls")]
                    self._parameters.setdefault(inner.name, []).append(names)
                elif isinstance(inner, ast.ClassDef):
                    names = [_named(field.target) for field in inner.body if isinstance(field, ast.AnnAssign)]
                    self._parameters.setdefault(inner.name, []).append(names)
        for tree in trees(folder):
            for node in ast.walk(tree):
                for value in self._passed(node):
                    self._take(value)
                for target in node.targets if isinstance(node, ast.Assign) else ():
                    self._assigned(target, node.value)

    def _passed(self, node: ast.AST) -> Iterator[ast.expr]:
        if isinstance(node, ast.Dict) and self._messages:
            keys = (key.value if isinstance(key, ast.Constant) else None for key in node.keys)
            yield from (value for key, value in zip(keys, node.values, strict=True) if key in NAMES)
        if isinstance(node, ast.Call):
            yield from (keyword.value for keyword in node.keywords if keyword.arg in NAMES)
            for names in self._parameters.get(_called(node), []):
                yield from (value for name, value in zip(names, node.args, strict=False) if name in NAMES)

    def _assigned(self, target: ast.expr, value: ast.expr) -> None:
        if _named(target) in NAMES:
            self._take(value)
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for one, other in zip(target.elts, value.elts, strict=True):
                self._assigned(one, other)
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Call):
            for returned in self._returned(_called(value)):
                if not isinstance(returned, ast.Call):  # functions of one name may return each other's results
                    self._assigned(target, returned)

    def _take(self, value: ast.expr) -> None:
        match value:
            case ast.Constant(value=str(word)) if WORD.fullmatch(word):
                self.found.add(word)
            case ast.IfExp(body=first, orelse=second):
                self._take(first)
                self._take(second)
            case ast.BoolOp(values=values):
                for one in values:
                    self._take(one)
            case ast.Tuple(elts=[first, *_]):
                self._take(first)
            case ast.Name(id=name) | ast.Attribute(attr=name):
                for constant in self._constants.get(name, []):
                    self._take(constant)
            case ast.Call():
                for returned in self._returned(_called(value)):
                    if not isinstance(returned, ast.Call):
                        self._take(returned)

    def _returned(self, name: str) -> Iterator[ast.expr]:
        nodes = (node for function in self._functions.get(name, []) for node in ast.walk(function))
        yield from (node.value for node in nodes if isinstance(node, ast.Return) and node.value is not None)


def _named(target: ast.expr) -> str:
    return target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")


def _called(call: ast.Call) -> str:
    return _named(call.func)


OPERATORS, TRAINERS = Reasons(OPERATOR, messages=False).found, Reasons(TRAINER, messages=True).found


def documented() -> set[str]:
    """The words in the first column of the tables, and in the lines between them."""
    text = (ROOT / "docs/reasons.md").read_text()
    cells = [line.split("|")[1] if line.startswith("|") else line for line in text.splitlines()]
    return {word for cell in cells for word in re.findall(r"`([A-Z]\w+)`", cell) if WORD.fullmatch(word)}


def test_the_finder_sees_what_is_passed_assigned_and_returned():
    assert {"WaitingForCapacity", "NodeUnsuited", "RestartedTogether"} <= OPERATORS  # constants, keywords, a parameter
    assert {"SourceFailed", "GPUsUnknown", "Starting", "TrainingsShareGPU"} <= OPERATORS  # assigned and returned
    assert {"PodNameTaken", "Resumed", "Succeeded", "StandsBy"} <= OPERATORS  # Events, ends, pools
    assert {"OutputBusy", "Crashed", "ProcessLost", "GPUOutOfMemory"} <= TRAINERS


def test_operator_and_trainer_write_the_reasons_that_are_defined_for_them():
    assert OPERATORS == OWN
    assert TRAINERS == OF_TRAINER


def test_every_reason_is_documented():
    assert documented() >= OWN | TRAINERS


def test_every_documented_word_is_known_to_the_code():
    known = literals(OPERATOR) | literals(TRAINER) | literals(SHARED)
    assert {word for word in documented() if word not in known and not word.startswith("OutOf")} == set()


def test_the_trainer_says_none_of_the_operators_words_but_for_ends_that_both_name():
    assert OF_TRAINER & OWN == BOTH
