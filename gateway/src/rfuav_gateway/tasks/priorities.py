"""Priorities 1 to 10 of the model service, as PriorityClasses.

A smaller number goes first, and an inference goes before a training of the same number.

The chart installs these classes with the gateway. All values are below that of the chart's `rfuav-inference`, so every
pool allows them unless it lists classes of its own. Their `preemptionPolicy` is Never, as of all classes of the chart:
the pods do not carry them. The pool decides whether running jobs are stopped (`preemption.withinPool`); by default
none is, as in the model service.
"""

from rfuav_gateway.tasks.bodies import TaskType

FIRST, LAST = 1, 10
_ORDINARY, _BASE, _STEP, _INFERENCE = 5, 1000, 200, 100


def value(kind: TaskType, priority: int) -> int:
    """The value of the class: 1000 for a training of priority 5, as a TrainingJob without a class has it."""
    return _BASE + _STEP * (_ORDINARY - priority) + (_INFERENCE if kind == "inference" else 0)


def class_name(kind: TaskType, priority: int) -> str:
    """The name of the PriorityClass."""
    return f"rfuav-{kind}-p{priority}"


_PRIORITIES = {
    class_name(kind, priority): priority for kind in ("training", "inference") for priority in range(FIRST, LAST + 1)
}


def priority_of(named: str) -> int | None:
    """The priority of a job that names this class; None: it names none of these, and no number says where it is."""
    return _PRIORITIES.get(named)
