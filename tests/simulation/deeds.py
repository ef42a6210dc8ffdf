"""The table of what may be done in a history: each deed with its weight, how its arguments are drawn, and its function.

`people` and `weather` fill it. A new feature adds deeds there and invariants in `invariants`.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from simulation.world import World


@dataclass(frozen=True)
class Context:
    """What arguments are drawn from."""

    chance: random.Random
    jobs: Sequence[str]
    nodes: Sequence[str]
    setup: Mapping[str, Any]


Draw = Callable[[Context], Any]


class Deed(NamedTuple):
    """A row of the table."""

    weight: int  # 0: never drawn by itself
    draws: Mapping[str, Draw]
    do: Callable[..., None]


TABLE: dict[str, Deed] = {}


def deed(weight: int, **draws: Draw) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Put a function into the table; its arguments after the world are drawn as said."""

    def put(function: Callable[..., None]) -> Callable[..., None]:
        TABLE[function.__name__] = Deed(weight, draws, function)
        return function

    return put


def drawn(name: str, context: Context) -> dict[str, Any]:
    """Arguments for a deed."""
    return {argument: draw(context) for argument, draw in TABLE[name].draws.items()}


def do(world: "World", name: str, args: Mapping[str, Any]) -> None:
    """Carry a deed out."""
    world.log("do", f"{name} {dict(args)}")
    TABLE[name].do(world, **args)


def space(job: str) -> str:
    """The namespace of a job, by its name: there are two teams."""
    return "lab" if job[-1:] in "13579" else "team"


# --- how arguments are drawn


def a_job(context: Context) -> str:
    """The name of a job, there or not."""
    return context.chance.choice(context.jobs)


def a_node(context: Context) -> str:
    """The name of a node."""
    return context.chance.choice(context.nodes)


def one_of(*values: Any) -> Draw:
    """One of these; repeat a value to make it likelier."""
    return lambda context: context.chance.choice(values)


def seconds(least: float, most: float) -> Draw:
    """A number of seconds."""
    return lambda context: round(context.chance.uniform(least, most), 2)


def some(draw: Draw, most: int) -> Draw:
    """A list of up to so many."""
    return lambda context: [draw(context) for _ in range(context.chance.randrange(most + 1))]


def whole(least: int, most: int) -> Draw:
    """A whole number."""
    return lambda context: context.chance.randint(least, most)
