"""The pod contract, the reasons and the codes of HTTP are defined once: nothing else has them as literals."""

import ast
from http import HTTPStatus
from pathlib import Path

import pytest

from rfuav_crds import contract, reasons
from rfuav_operator.core.model import Phase

ROOT = Path(__file__).parents[2]
PACKAGES = [
    "kube/src/rfuav_kube",
    "operator/src/rfuav_operator",
    "gateway/src/rfuav_gateway",
    "trainer_image/src/rfuav_trainer",
    "demo",
    "crds/src/rfuav_crds",
]
HOME = {"contract.py", "reasons.py"}
CONTRACT = {
    value
    for name, value in vars(contract).items()
    if name.isupper() and isinstance(value, str) and value not in (contract.CONTAINER, contract.VERSION)
} | {*contract.PLURALS.values()}
OF_KUBERNETES = {"InternalError", "NodeLost", "Ready", "UnexpectedAdmissionError"}
"""Words of the API server, the kubelet and conditions that the operator uses as reasons too."""
REASONS = (reasons.OWN | reasons.OF_TRAINER) - OF_KUBERNETES - set(Phase)
CONDITIONS = {"Evicted"}
"""Also the type of a condition."""
CODES = {int(status) for status in HTTPStatus} - {
    100, 102, 200, 208, 300, 500, 511,  # ordinary numbers
}  # fmt: skip
EXITS = {contract.EXIT_STOPPED}
"""The other exit codes are ordinary numbers."""


def spelled(source: str) -> list[str]:
    """What a Python file spells out and should take from where it is defined."""
    tree = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inside = {
        id(part)
        for node in ast.walk(tree)
        if (isinstance(node, ast.Call) and any(word.arg == "description" for word in node.keywords))
        or (isinstance(node, ast.Subscript) and getattr(node.value, "id", "") == "Literal")
        for part in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or id(node) in prose or id(node) in inside:
            continue
        match node.value:
            case str(text) if text in CONTRACT | (REASONS - CONDITIONS) or text.startswith(f"{contract.GROUP}/"):
                found.append(text)
            case str(text) if contract.GPU in text.split():
                found.append(text)
            case int(number) if type(number) is int and number in CODES | EXITS:
                found.append(str(number))
    return sorted(found)


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.environ['RFUAV_JOB']",
        "labels = {'rfuav.io/job': name}",
        "labels = {f'rfuav.io/{what}': name}",
        "path = f'/mnt/rfuav' + claim",
        "limits['nvidia.com/gpu'] = 1",
        "path = '/apis/x/trainingjobs'.split('/') + ['trainingjobs']",
        "Verdict(reason='GPUOutOfMemory')",
        "reason = 'WaitingForCapacity'",
        "raise InputError(message, reason='WeightsUnreadable')",
        "if answer.status == 404: pass",
        "if code == 75: pass",
    ],
)
def test_literals_are_found(source):
    assert len(spelled(source)) == 1


def test_prose_and_types_are_no_copies():
    assert (
        spelled(
            '"""rfuav.io/job: the job."""\nx = f(description="rfuav.io/job")\nn = 500\nkind: Literal["rfuav.io/v1alpha1"]'
        )
        == []
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_the_contract_is_defined_once(package):
    files = [path for path in (ROOT / package).rglob("*.py") if path.name not in HOME]
    assert len(files) > 5
    found = {str(path.relative_to(ROOT)): spelled(path.read_text()) for path in files}
    assert {path: words for path, words in found.items() if words} == {}


def test_exit_codes_differ():
    codes = [value for name, value in vars(contract).items() if name.startswith("EXIT_")]
    assert len({0, *codes}) == len(codes) + 1


def test_no_reason_is_defined_twice():
    words = [word for name, word in vars(reasons).items() if name.isupper() and isinstance(word, str)]
    assert len(set(words)) == len(words) == len(reasons.OWN | reasons.OF_TRAINER)
