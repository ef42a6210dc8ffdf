"""Which namespaces a caller sees: asked at the API server, in all namespaces first, else one by one.

What was allowed is asked again each time. In a large cluster most namespaces are other people's: what was refused there
is asked again after some minutes.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable

from rfuav_crds.contract import PLURALS
from rfuav_gateway.access.callers import Caller
from rfuav_gateway.access.rights import Rights
from rfuav_gateway.tasks.bodies import TaskType
from rfuav_gateway.tasks.identity import KINDS
from rfuav_gateway.tasks.sight import Sight
from rfuav_kube import clock

REFUSED_SECONDS = 240.0
ALWAYS = 64  # questions that are asked each time
MOST_NAMESPACES = 500  # that are asked about
MOST_CALLERS = 1024
AT_ONCE = 16
_QUOTAS = PLURALS["GPUQuota"]


class Sights:
    """Finds out what callers see.

    Args:
        rights: asks for each.
    """

    def __init__(self, rights: Rights) -> None:
        self._rights = rights
        self._refused: OrderedDict[str, dict[tuple[str, str], float]] = OrderedDict()  # by caller

    async def of(self, caller: Caller, namespaces: Iterable[str], *, only: str = "") -> Sight:
        """What a caller sees.

        Args:
            caller: who.
            namespaces: that there are, those that matter most first.
            only: not empty: they ask about this namespace alone.

        Raises:
            Unavailable: the API server cannot be asked now.
        """
        asked = [only] if only else list(dict.fromkeys(namespaces))[:MOST_NAMESPACES]
        kinds: list[TaskType] = [kind for kind in KINDS if not await self._rights.may(caller, "list", _plural(kind))]
        pairs = [(kind, namespace) for namespace in asked for kind in kinds]
        allowed = await self._may_each(caller, [(_plural(kind), namespace) for kind, namespace in pairs])
        jobs = frozenset(pair for pair, yes in zip(pairs, allowed, strict=True) if yes)
        everywhere = frozenset(KINDS) - frozenset(kinds)
        all_quotas = await self._rights.may(caller, "list", _QUOTAS)
        seen = [] if all_quotas else asked if everywhere else sorted({namespace for _, namespace in jobs})
        quotas = await self._may_each(caller, [(_QUOTAS, namespace) for namespace in seen])
        return Sight(
            everywhere=everywhere,
            jobs=jobs,
            quotas_everywhere=all_quotas,
            quotas=frozenset(name for name, yes in zip(seen, quotas, strict=True) if yes),
            pools=await self._rights.may_see_pools(caller),
            only=only,
        )

    async def _may_each(self, caller: Caller, questions: list[tuple[str, str]]) -> list[bool]:
        """Whether the caller may list each of these resources in its namespace."""
        refused = self._refused.setdefault(caller.key, {})
        self._refused.move_to_end(caller.key)
        if len(self._refused) > MOST_CALLERS:
            self._refused.popitem(last=False)
        free, now = asyncio.Semaphore(AT_ONCE), clock.monotonic()

        async def may(number: int, question: tuple[str, str]) -> bool:
            if number >= ALWAYS and now < refused.get(question, now):
                return False
            async with free:
                allowed = await self._rights.may(caller, "list", *question)
            if allowed:
                refused.pop(question, None)
            else:
                refused[question] = now + REFUSED_SECONDS
            return allowed

        return await asyncio.gather(*(may(*one) for one in enumerate(questions)))


def _plural(kind: TaskType) -> str:
    return PLURALS[KINDS[kind]]
