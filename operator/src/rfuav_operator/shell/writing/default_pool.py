"""The GPUPool `default` as the settings have it: made when it is missing, changed in place when the settings changed.

The leader's settings come in, one server-side apply goes out. An annotation says which settings were applied last, so
that what people change on the pool stays until the settings change; fields that the settings do not name stay anyway.
A pool is never deleted here.
"""

import asyncio
from collections.abc import Mapping
from hashlib import sha256
from http import HTTPStatus
from typing import Any

import orjson
import structlog

from rfuav_crds.contract import API_VERSION, GROUP
from rfuav_kube.connection import Answer
from rfuav_kube.requester import Requester
from rfuav_operator.shell import kinds

log = structlog.get_logger()

NAME = "default"
MANAGER = "rfuav-operator-default-pool"
APPLIED = f"{GROUP}/applied-settings"  # annotation: hash of the settings that were applied last
APPLY_PATCH = "application/apply-patch+yaml"
RETRY = 5.0  # seconds
_PATH = f"{kinds.OURS}/{kinds.POOLS}/{NAME}"
# Forced: a field in the settings wins over its earlier owner.
_FORCED = f"{_PATH}?fieldManager={MANAGER}&force=true"


async def apply(requests: Requester, spec: Mapping[str, Any]) -> None:
    """Apply `spec` to the pool; retried until the API server accepts it or rejects it as invalid.

    Raises:
        LeaseOver: this process must not write any more.
    """
    wanted = sha256(orjson.dumps(spec, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
    while True:
        held = await requests.send("GET", _PATH)
        if held is not None and _applied(held) == wanted:
            return
        answer = None if held is None else await _patch(requests, spec, wanted)
        if held is not None and answer is not None and answer.ok:
            log.info("the default pool was applied", made=held.status == HTTPStatus.NOT_FOUND)
            return
        if answer is not None and answer.status not in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
            log.error("the default pool is refused: correct the settings (defaultPool.spec)", error=answer.message)
            return
        log.warning(
            "the default pool could not be applied yet", error="no answer" if answer is None else answer.message
        )
        await asyncio.sleep(RETRY)


def _applied(held: Answer) -> str:
    if not held.ok or not isinstance(held.body, dict):
        return ""
    return str((held.body.get("metadata", {}).get("annotations") or {}).get(APPLIED, ""))


async def _patch(requests: Requester, spec: Mapping[str, Any], wanted: str) -> Answer | None:
    body = {
        "apiVersion": API_VERSION,
        "kind": kinds.POOL,
        "metadata": {"name": NAME, "annotations": {APPLIED: wanted}},
        "spec": spec,
    }
    return await requests.send("PATCH", _FORCED, body, content_type=APPLY_PATCH)
