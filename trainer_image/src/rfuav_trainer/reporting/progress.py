"""Reports the progress of the job to the operator, without ever blocking the job.

In: the latest progress as a plain dict (`trainerStatus`). Out: at most one POST over TLS every few seconds, and always
the last one.
The protocol is Kubeflow's KEP-2779 (KUBEFLOW_TRAINER_SERVER_*). Our own fields are under `rfuav`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import ssl
import threading
import time
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import structlog

from rfuav_crds import contract
from rfuav_trainer.process.clock import now

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = structlog.get_logger()

MOST_METRICS = 64
RESULTS_SECONDS = 30.0
"""Seconds between two reports with results, which are large."""
LONGEST_BACKOFF = 60.0
LAST_SECONDS = 30.0
"""The longest wait for the answer to the last report."""
LEAST_SECONDS = 1.0
"""The shortest, unless it is answered: should the grace period be over, SIGKILL does no harm any more."""
HURRY, LONGEST_HURRY = 0.2, 3.0  # seconds between two attempts to send the last report; doubles
USUAL_TIMEOUT, LAST_TIMEOUT = 10.0, 5.0  # seconds of one attempt; a leader that is gone must not take the whole wait
_LOOK_AGAIN = 0.1  # seconds
UNREACHABLE = 0
TRY_AGAIN = frozenset({UNREACHABLE, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS})


@dataclass(frozen=True)
class Server:
    """Where reports go: the full URL, the CA's PEM file (None: the system's), the bearer token's file (None: none)."""

    url: str
    ca_file: Path | None
    token_file: Path | None

    @classmethod
    def from_environment(cls) -> Server | None:
        """The server named by KUBEFLOW_TRAINER_SERVER_URL, _CA_CERT and _TOKEN, or None when there is none."""
        url = os.environ.get(contract.PROGRESS_URL, "")
        if not url:
            return None
        ca, token = (os.environ.get(name, "") for name in (contract.PROGRESS_CA, contract.PROGRESS_TOKEN))
        return cls(url, Path(ca) if ca else None, Path(token) if token else None)

    def post(self, body: bytes, timeout: float) -> tuple[int, float]:
        """Send one report; returns the status and the seconds of Retry-After (0 when there are none).

        Token and CA are read again each time: both rotate while the job runs.
        """
        parts = urlsplit(self.url)
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)
            connection = http.client.HTTPSConnection(parts.netloc, timeout=timeout, context=context)
        else:
            connection = http.client.HTTPConnection(parts.netloc, timeout=timeout)
        headers = {"Content-Type": "application/json"}
        if self.token_file is not None:
            headers["Authorization"] = f"Bearer {self.token_file.read_text().strip()}"
        with contextlib.closing(connection):
            connection.request("POST", parts.path or "/", body=body, headers=headers)
            response = connection.getresponse()
            response.read(65536)
            after = response.headers.get("Retry-After", "")
            return response.status, float(after) if after.isdigit() else 0.0


class Progress:
    """Posts the latest state of the job from a background thread; the latest value wins.

    Args:
        server: where to post; None keeps the last value for the termination message and sends nothing.
        interval: minimum seconds between two posts (RFUAV_PROGRESS_INTERVAL).
        final_wait: maximum seconds that `close` waits until the last value is taken.
        listener: also called with every value, for a progress bar.
    """

    def __init__(
        self,
        server: Server | None,
        *,
        interval: float | None = None,
        final_wait: float = LAST_SECONDS,
        listener: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        self._listener = listener
        self._server = server
        self._interval = float(os.environ.get(contract.PROGRESS_INTERVAL, "2")) if interval is None else interval
        self._final_wait = final_wait
        self._changed = threading.Condition()
        self._pending: dict[str, Any] | None = None
        self._deadline: float | None = None  # set when closing
        self._finished = False
        self._sequence = time.time_ns() // 1_000_000  # keeps growing when the same attempt starts again
        self._thread: threading.Thread | None = None
        self._results_owed = False
        self._results_sent = float("-inf")
        self.summary: dict[str, Any] | None = None
        """The latest results."""
        self.last: dict[str, Any] = {}
        self.live: dict[str, Any] = {}
        """Values that only the listener sees, such as the loss of the last steps."""

    @property
    def interval(self) -> float:
        """Minimum seconds between two reports; more frequent updates have no effect."""
        return self._interval

    def update(self, status: Mapping[str, Any]) -> None:
        """Replace the value to be sent. Never blocks on the network.

        Args:
            status: `trainerStatus` as in the pod contract; `lastUpdatedTime` and the sequence are added here.
        """
        with self._changed:
            self._sequence += 1
            own = {**status.get("rfuav", {}), "sequence": self._sequence}
            value = {**status, "lastUpdatedTime": now(), "rfuav": own}
            value["metrics"] = value.get("metrics", [])[:MOST_METRICS]
            self.last = value
            if self._listener is not None:
                self._listener({**value, "live": self.live})
            if self._server is None:
                return
            self._pending = value
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def results(self, summary: dict[str, Any] | None) -> None:
        """Send these results (`results.summary`) with one of the next reports; None: there are none.

        The last report has them again: the operator may have gone after it took them and before it wrote them.
        """
        with self._changed:
            self.summary, self._results_owed = summary, summary is not None

    def show(self, **live: Any) -> None:
        """Give the listener the last value again, with other values that only it sees."""
        self.live = {**self.live, **live}
        if self._listener is not None and self.last:
            self._listener({**self.last, "live": self.live})

    def finish(self) -> None:
        """Mark the last value as final, and begin to send it."""
        if self.last and not self._finished:
            self._finished = True
            self.update({**self.last, "rfuav": {**self.last.get("rfuav", {}), "final": True}})

    def close(self, leave_by: Callable[[], float] = lambda: math.inf) -> None:
        """Finish, and wait until the last value is taken or refused, `final_wait` seconds at most.

        Args:
            leave_by: the monotonic second by which the process has to go, asked for repeatedly: a SIGTERM may arrive
                during the wait.
        """
        self.finish()
        began = time.monotonic()
        while True:
            end = min(began + self._final_wait, max(began + LEAST_SECONDS, leave_by()))
            with self._changed:
                self._deadline = end
                self._changed.notify_all()
            if self._thread is None or not self._thread.is_alive():
                return
            if time.monotonic() >= end:
                break
            self._thread.join(min(_LOOK_AGAIN, end - time.monotonic()))
        log.warning("the last progress report was not delivered in time; the termination message contains it")

    def _run(self) -> None:
        """Send values until closed, one per interval. Retries with growing pauses unless a newer value arrived."""
        failures, hurried, usual, soonest = 0, 0, 0.0, 0.0
        while (value := self._next(usual, soonest)) is not None:
            status, retry_after = self._send(value)
            # Tokens rotate and leaders change, so 401 and 403 are worth a retry as well.
            if status in TRY_AGAIN or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                failures += 1
                if failures == 1:
                    log.warning("progress report failed, retrying", status=status)
                with self._changed:
                    self._pending = self._pending or value
                pause = max(retry_after, min(LONGEST_BACKOFF, self._interval * 2 ** min(failures - 1, 6)))
                hurry = retry_after or min(LONGEST_HURRY, HURRY * 2**hurried)
                hurried = min(hurried + 1, 10) if self._deadline is not None else 0
            else:
                if status >= HTTPStatus.BAD_REQUEST:
                    log.warning("progress report refused", status=status)
                failures, pause, hurry = 0, self._interval, 0.0
            usual, soonest = time.monotonic() + pause, time.monotonic() + hurry

    def _next(self, usual: float, soonest: float) -> dict[str, Any] | None:
        """The next value, when it is due: at `usual` while the job runs, at `soonest` when closing. None: no more."""
        with self._changed:
            while True:
                moment = time.monotonic()
                closing = self._deadline is not None
                if self._deadline is not None and (self._pending is None or max(moment, soonest) >= self._deadline):
                    return None
                start = soonest if closing else usual
                if self._pending is not None and moment >= start:
                    value, self._pending = self._pending, None
                    return value
                self._changed.wait(None if self._pending is None else start - moment)

    def _send(self, value: Mapping[str, Any]) -> tuple[int, float]:
        """The HTTP status, `UNREACHABLE` if there was none, and Retry-After in seconds."""
        assert self._server is not None  # noqa: S101  (the thread exists only if there is a server; mypy cannot see it)
        left = math.inf if self._deadline is None else self._deadline - time.monotonic()
        timeout = USUAL_TIMEOUT if self._deadline is None else min(LAST_TIMEOUT, max(0.1, left))
        summary = self._due_results(value)
        if summary is not None:
            value = {**value, "rfuav": {**value["rfuav"], "results": summary}}
        try:
            answer = self._server.post(json.dumps({"trainerStatus": value}).encode(), timeout)
        except (OSError, http.client.HTTPException, ValueError) as error:
            log.debug("progress server unreachable", error=str(error))
            return UNREACHABLE, 0.0
        if summary is not None and answer[0] < HTTPStatus.BAD_REQUEST:
            with self._changed:
                self._results_sent = time.monotonic()
                self._results_owed = self.summary is not summary
        return answer

    def _due_results(self, value: Mapping[str, Any]) -> dict[str, Any] | None:
        """The results that go with this value."""
        with self._changed:
            early = time.monotonic() - self._results_sent < RESULTS_SECONDS
            return self.summary if value["rfuav"].get("final") or (self._results_owed and not early) else None


class Speed:
    """Samples per second over about the last half minute."""

    WINDOW = 30.0

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._count = 0
        self._last = 0.0

    def add(self, samples: int) -> None:
        """Count samples that are done."""
        self._count += samples

    def value(self) -> float:
        """Samples per second; 0 before the first."""
        elapsed = time.monotonic() - self._since
        if elapsed > 0 and self._count:
            self._last = self._count / elapsed
        if elapsed > self.WINDOW:
            self._since, self._count = time.monotonic(), 0
        return self._last
