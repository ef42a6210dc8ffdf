"""Outages of the API server: all callers that cannot reach it wait here for one shared probe, with two log lines.

A wait ends when the server's /readyz is answered; then all waiting callers try again immediately.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from rfuav_kube import backoff, clock

log = structlog.get_logger()

PROBE_EVERY = 0.6  # seconds between two probes
LONGEST = 10.0  # seconds of one wait: what a probe is refused may be granted to a request


class Outage:
    """The probes of one process.

    Args:
        probe: asks the server whether it is ready: empty, or what is wrong.
    """

    def __init__(self, probe: Callable[[], Awaitable[str]]) -> None:
        self._probe = probe
        self._watching: asyncio.Task[bool] | None = None

    async def over(self) -> bool:
        """Wait until the server answers, `LONGEST` at most; at once when it does.

        Returns:
            Whether it had been unreachable: then the failure was not the request's fault.
        """
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch(), name="outage")
        done, _ = await asyncio.wait([self._watching], timeout=LONGEST)
        return not done or self._watching.result()

    async def close(self) -> None:
        """Stop probing."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self) -> bool:
        began = clock.monotonic()
        problem = await self._probe()
        if not problem:
            return False
        log.warning("API server unreachable", error=problem)
        while problem:
            await asyncio.sleep(backoff.jittered(PROBE_EVERY))
            problem = await self._probe()
        log.warning("API server reachable again", seconds=round(clock.monotonic() - began, 1))
        return True
