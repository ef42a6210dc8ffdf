"""Whatever is fed to the operator by any of its doors: nothing raises, and all others get what they would get without."""

import json
from pathlib import Path
from typing import Any

import pytest
import structlog
from fuzz import world
from fuzz.garbage import Input, draw
from fuzz.play import Player, play_many

from rfuav_operator.core import scheduler as deciding
from rfuav_operator.core.job import progress
from rfuav_operator.shell.reading import ours

CASES: dict[str, list[Any]] = json.loads((Path(__file__).parent / "cases.json").read_text())
INPUTS = 2000


@pytest.fixture
def player():
    yield Player()
    structlog.reset_defaults()


def inputs(case: str) -> list[Input]:
    return [Input(*one) for one in CASES[case]]


def test_thousands_of_inputs():
    done = play_many(0, INPUTS)
    assert not done.failures, "\n\n".join(failure.show() for failure in done.failures[:3])
    assert done.decoded >= INPUTS / 2


@pytest.mark.parametrize("case", CASES)
def test_what_was_found_once_stays_mended(player, case):
    assert player.fault(inputs(case))[1] == ""


def unbounded(monkeypatch):
    monkeypatch.setattr(progress, "LONGEST_ESTIMATE", 10**13)
    monkeypatch.setattr(deciding.bounds, "fitted", lambda job, _before=None: job)


def unread(monkeypatch):
    monkeypatch.setattr(progress, "_json", json.loads)


def unclean(monkeypatch):
    monkeypatch.setattr(progress, "clean", lambda text: text)
    monkeypatch.setattr(deciding.bounds, "fitted", lambda job, _before=None: job)


def unchecked(monkeypatch):
    monkeypatch.setattr(ours.bounds, "check_pool", lambda _spec: None)


def as_stored(monkeypatch):
    monkeypatch.setattr(ours.bounds, "stored", lambda status: status)


@pytest.mark.parametrize(
    ("case", "old"),
    [
        ("an estimate of ten thousand years", unbounded),
        ("the same, stored by an older version", as_stored),
        ("a termination message of 4,096 brackets", unread),
        ("a lone surrogate in a termination message", unclean),
        ("GPUs that are shared by none", unchecked),
        ("a run that began in the last year", as_stored),
    ],
)
def test_a_case_bites_with_the_old_behaviour(player, monkeypatch, case, old):
    old(monkeypatch)
    assert player.fault(inputs(case))[1]


def test_what_changes_the_plan_of_others_is_noticed(player):
    node = world._node("m3", "main")
    node["metadata"]["resourceVersion"] = "1000"
    assert "others got" in player.fault([Input("node", node)])[1]


def test_the_same_number_gives_the_same_input():
    assert repr([draw(n) for n in range(40)]) == repr([draw(n) for n in range(40)])
