"""What goes wrong between the operator and the API server: rules that requests meet, one after the other."""

from collections.abc import Callable
from dataclasses import dataclass

from simulation.api import Target
from simulation.server import JOBS

FOREVER = float("inf")

# What a rule may do to a request.
REFUSED = "refused"  # no connection: surely not sent
DROPPED = "dropped"  # sent, never carried out, no answer
LOST = "lost"  # carried out, no answer
SLOW = "slow"  # carried out late
LATE = "late"  # the same, and when the lease cut it short, after its sender gave up
RACED = "raced"  # somebody else writes the object just before
CRASH_BEFORE = "crash-before"  # the process dies before it is sent
CRASH_AFTER = "crash-after"  # the process dies between the write and its answer
GATEWAY = "504"  # carried out, answered with an error
TOO_MANY, BROKEN, UNAVAILABLE, FORBIDDEN, INVALID, GONE = "429", "500", "503", "403", "422", "410"
AWAY = (REFUSED, DROPPED, BROKEN, UNAVAILABLE)  # what a probe of /readyz calls an outage


def matches(what: str, method: str, target: Target) -> bool:
    """Whether a request is of this sort."""
    writes = method in ("POST", "PATCH", "DELETE", "PUT")
    jobs_or_pods = target.resource in (*JOBS, "pods")
    match what:
        case "any":
            return True
        case "writes":
            return writes and jobs_or_pods
        case "reads":
            return method in ("GET", "LIST", "WATCH") and target.resource != "leases"
        case "gets":
            return method == "GET" and jobs_or_pods
        case "limits":
            return method == "PATCH" and target.resource in ("gpupools", "gpuquotas")
        case "status":
            return target.sub == "status" and target.resource in JOBS
        case "creates":
            return method == "POST" and target.resource == "pods"
        case "deletes":
            return method == "DELETE"
        case "leases":
            return target.resource == "leases"
        case "lists":
            return method == "LIST"
        case "watches":
            return method == "WATCH"
        case _:
            raise ValueError(what)


@dataclass
class Rule:
    """Meets the requests of one sort, after letting `skip` of them pass, `count` times at most, until an instant."""

    effect: str
    what: str = "writes"
    count: int = 1
    skip: int = 0
    until: float = FOREVER
    seconds: float = 1.0  # of a slow request, of a Retry-After, until a connection is reset
    resource: str = ""
    process: str = ""
    name: str = ""  # part of the object's name
    then: Callable[[], None] | None = None  # what else happens when it is met


class Faults:
    """The rules in force."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.met = 0

    def pick(self, process: str, method: str, target: Target, now: float) -> Rule | None:
        """The rule that this request meets."""
        if not self.rules:
            return None
        self.rules = [rule for rule in self.rules if rule.count > 0 and rule.until > now]
        for rule in self.rules:
            if (
                rule.process in ("", process)
                and rule.resource in ("", target.resource)
                and rule.name in target.name
                and matches(rule.what, method, target)
            ):
                if rule.skip > 0:
                    rule.skip -= 1
                    continue
                rule.count -= 1
                self.met += 1
                if rule.then is not None:
                    rule.then()
                return rule
        return None

    def calm(self) -> None:
        """Nothing goes wrong any more."""
        self.rules = []
