"""Names of jobs, lengths of time, states that are waited for, and the layout of the package."""

import ast
from pathlib import Path

import pytest

from rfuav_cli import jobs
from rfuav_cli.commands import wait
from rfuav_cli.failures import Failure
from rfuav_cli.session import _refusal

SOURCE = Path(__file__).parents[3] / "cli/src/rfuav_cli"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("first", ("", "first")),
        ("tj/first", ("TrainingJob", "first")),
        ("trainingjobs.rfuav.io/first", ("TrainingJob", "first")),
        ("InferenceJob/f-1", ("InferenceJob", "f-1")),
    ],
)
def test_names_of_jobs(text, found):
    assert jobs.parsed(text) == found


@pytest.mark.parametrize("text", ["", "pod/first", "First", "a/b/c", "first?watch=1", "../x", "tj/"])
def test_what_is_no_name_is_not_asked_for(text):
    with pytest.raises(Failure, match="is no name of a job") as failure:
        jobs.parsed(text)
    assert failure.value.code == 2


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", None), ("0s", None), ("90s", 90), ("1.5m", 90), ("12h", 43_200), ("7", 7)]
)
def test_lengths_of_time(text, seconds):
    assert wait.length(text) == seconds


@pytest.mark.parametrize(
    ("state", "status", "met"),
    [
        ("succeeded", {"phase": "Succeeded"}, True),
        ("succeeded", {"phase": "Failed"}, False),
        ("Ended", {"phase": "Failed"}, True),
        ("running", {"phase": "Admitted"}, False),
        ("running", {"phase": "Succeeded"}, True),
        ("admitted", {"phase": "Running"}, True),
        ("condition=Admitted", {"conditions": [{"type": "Admitted", "status": "True"}]}, True),
        ("condition=admitted=false", {"conditions": [{"type": "Admitted", "status": "False"}]}, True),
        ("condition=Complete", {}, False),
    ],
)
def test_states_that_are_waited_for(state, status, met):
    assert wait.condition(state)(status) is met


@pytest.mark.parametrize("state", ["done", "condition=", "jsonpath={.x}"])
def test_unknown_states_and_lengths(state):
    with pytest.raises(Failure, match="write one of succeeded, ended"):
        wait.condition(state)
    with pytest.raises(Failure, match="as in 90s"):
        wait.length(state)


@pytest.mark.parametrize(
    ("status", "body", "path", "words", "code"),
    [
        (404, b"404 page not found\n", "/apis/rfuav.io/v1alpha1/gpupools", "does not know rfuav.io: install", 4),
        (500, b"Get https://10.0.0.1: dial tcp 10.0.0.1:443: connect: connection refused", "/api", "10.0.0.1:443: connect: connection refused", 4),
        (401, b'{"kind":"Status","message":"Unauthorized","reason":"Unauthorized"}', "/api", "log in again", 3),
        (
            403,
            b'{"message":"trainingjobs.rfuav.io is forbidden: User \\"a\\" cannot list"}',
            "/apis/rfuav.io/v1alpha1/namespaces/team-b/trainingjobs",
            "you may not read trainingjobs in namespace team-b",
            3,
        ),
        (403, b'{"message":"nodes is forbidden: User \\"a\\" cannot list"}', "/api/v1/nodes", "may not read nodes in the whole cluster", 3),
        (403, b'{"message":"a policy denied it"}', "/api/v1/nodes", "a policy denied it", 3),
        (422, b'{"message":"spec.x: Invalid"}', "/apis/rfuav.io/v1alpha1/x", "spec.x: Invalid", 2),
    ],
)  # fmt: skip
def test_what_is_said_of_refusals(status, body, path, words, code):
    refused = _refusal(status, body, "GET", path)
    assert words in str(refused)
    assert refused.code == code


def test_heavy_modules_are_imported_by_the_commands_that_need_them():
    heavy = {"rich", "yaml", "pydantic", "msgspec", "structlog", "rfuav_kube", "kubernetes", "aiohttp"}
    late = {"decoded.py", "planned.py"}  # imported late themselves
    for path in SOURCE.rglob("*.py"):
        if path.name in late:
            continue
        tree = ast.parse(path.read_text())
        for node in tree.body:  # of the module, not of functions
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & heavy, path
