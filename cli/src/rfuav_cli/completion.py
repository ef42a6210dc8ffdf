"""The program `kubectl_complete-rfuav`, which kubectl's completion runs for `kubectl rfuav`.

In: the words after `kubectl rfuav`, the last one unfinished. Out: a candidate a line, and what the shell does with
them, as cobra's completion wants it.
"""

import sys

from rfuav_cli.failures import Failure
from rfuav_cli.options import kubectl_flags
from rfuav_cli.session import Session

_NO_FILES = ":4"  # cobra's ShellCompDirectiveNoFileComp
_FILES = ":0"
_ENDED_TOO = frozenset({"why", "logs", "wait"})
_OF_JOBS = frozenset({"why", "logs", "stop", "suspend", "resume", "wait"})
_OF_KUBECTL = {"-n": "namespace", "--namespace": "namespace", "--context": "context", "--kubeconfig": "kubeconfig"}


def candidates(words: list[str]) -> tuple[list[str], str]:
    """What may stand for the last word, and cobra's directive."""
    *before, last = words or [""]
    given = _given(before)
    command = next((word for word in before if not word.startswith("-") and word not in given.values()), "")
    if before and before[-1] in {"-f", "--filename", "--kubeconfig"}:
        return [], _FILES
    if before and before[-1] in {"-n", "--namespace"}:
        return _starting(_names(given, "/api/v1/namespaces"), last), _NO_FILES
    if before and before[-1] in {"-o", "--output"}:
        return _starting(["wide", "json", "yaml", "name"], last), _NO_FILES
    from rfuav_cli.main import offered  # noqa: PLC0415  (a tenth of a second)

    commands, options = offered(command)
    if last.startswith("-"):
        return _starting(options, last), _NO_FILES
    if command in _OF_JOBS:
        return _starting(_jobs(given, ended=command in _ENDED_TOO), last), _NO_FILES
    return _starting(commands if command in {"", "submit"} else [], last), _NO_FILES


def _given(words: list[str]) -> dict[str, str]:
    """The options of kubectl among the words."""
    found = {}
    for at, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag in _OF_KUBECTL:
            found[_OF_KUBECTL[flag]] = value if equals else "".join(words[at + 1 : at + 2])
    return found


def _session(given: dict[str, str]) -> Session:
    flags = {name: value for name, value in given.items() if name != "namespace"}
    return Session(kubectl_flags(flags), given.get("namespace", ""))


def _jobs(given: dict[str, str], *, ended: bool) -> list[str]:
    from rfuav_cli import jobs  # noqa: PLC0415

    with _session(given) as session:
        found = jobs.listed(session, session.namespace)
    return [jobs.shown(b) for b in found if ended or (b.get("status") or {}).get("phase") not in jobs.ENDED]


def _names(given: dict[str, str], path: str) -> list[str]:
    with _session(given) as session:
        return [body["metadata"]["name"] for body in session.items(path)]


def _starting(words: list[str], begun: str) -> list[str]:
    """Those that begin so; a job also by its name without its kind."""
    return [word for word in words if word.startswith(begun) or word.partition("/")[2].startswith(begun or "/")]


def main() -> None:
    """Entry point."""
    try:
        found, directive = candidates(sys.argv[1:])
    except Failure:
        found, directive = [], _NO_FILES
    sys.stdout.write("".join(f"{word}\n" for word in found) + f"{directive}\n")
    sys.stdout.flush()
