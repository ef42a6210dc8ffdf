"""Makes a failing script short: drops actions, then whatever of the rest is not needed, while the same rule breaks."""

from collections.abc import Callable, Iterator, Sequence

from simulation.play import Result, play
from simulation.script import Action, Script

# Values that are simpler than what was drawn, tried one by one.
_SIMPLER = {
    "fates": [],
    "shards": 1,
    "parallelism": 1,
    "priority": "",
    "source": "",
    "suspend": False,
    "skip": 0,
    "count": 1,
}
_SIMPLER_SETUP = {"replicas": 1, "page": 500, "lag": 0.002}


def rule_of(result: Result) -> str:
    """The name of the rule that was broken."""
    return result.violation.partition(":")[0]


def shrink(script: Script, *, tries: int = 1500, player: Callable[[Script], Result] = play) -> Script:
    """A short script that breaks the same rule."""
    wanted = rule_of(player(script))
    left = tries

    def fails(candidate: Script) -> bool:
        nonlocal left
        left -= 1
        return left > 0 and rule_of(player(candidate)) == wanted

    script = script.only(_fewer(script.actions, lambda actions: fails(script.only(actions))))
    for name, value in _SIMPLER_SETUP.items():
        if script.setup[name] != value and fails(simpler := script.with_setup(**{name: value})):
            script = simpler
    while len(script.setup["nodes"]) > 1 and fails(simpler := script.with_setup(nodes=script.setup["nodes"][:-1])):
        script = simpler
    for index in range(len(script.actions)):
        for action in _simpler(script.actions[index]):
            actions = [*script.actions]
            actions[index] = action
            if fails(simpler := script.only(actions)):
                script = simpler
    return script.only(_fewer(script.actions, lambda actions: fails(script.only(actions))))


def _fewer(actions: Sequence[Action], fails: Callable[[Sequence[Action]], bool]) -> Sequence[Action]:
    """Delta debugging: drop halves, then quarters, down to single actions."""
    size = max(1, len(actions) // 2)
    while True:
        index, dropped = 0, False
        while index < len(actions):
            rest = [*actions[:index], *actions[index + size :]]
            if fails(rest):
                actions, dropped = rest, True
            else:
                index += size
        if size > 1:
            size //= 2
        elif not dropped:
            return actions


def _simpler(action: Action) -> Iterator[Action]:
    args = dict(action.args)
    for name, value in _SIMPLER.items():
        if name in args and args[name] != value:
            args[name] = value
            yield Action(action.at, action.do, dict(args))
            args = dict(action.args)
