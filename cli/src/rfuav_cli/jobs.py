"""Jobs as the API server shows them: where they are, one by its name, how one changes."""

import difflib
import json
import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from rfuav_cli.failures import NOT_THERE, TIMEOUT, USAGE, Failure, Refused
from rfuav_cli.session import Session
from rfuav_crds.contract import API_VERSION, GROUP, PLURALS

Body = dict[str, Any]

SHORT = {"TrainingJob": "tj", "InferenceJob": "ij"}
"""The short names of the kinds of job."""
_NAMES = {
    name: kind
    for kind, short in SHORT.items()
    for plural in (PLURALS[kind],)
    for name in (short, kind.lower(), plural, f"{kind.lower()}.{GROUP}", f"{plural}.{GROUP}")
}
ENDED = frozenset({"Succeeded", "Failed", "Cancelled"})
_WATCH_SECONDS = 240


def path(kind: str, namespace: str = "", name: str = "") -> str:
    """Where the API server has objects of one of our kinds; without a namespace: those of all."""
    return "/".join(
        [
            f"/apis/{API_VERSION}",
            *(["namespaces", namespace] if namespace else []),
            PLURALS[kind],
            *([name] if name else []),
        ]
    )


def shown(body: Mapping[str, Any]) -> str:
    """A job as users name it, as in tj/first."""
    return f"{SHORT[body['kind']]}/{body['metadata']['name']}"


def listed(session: Session, namespace: str, kinds: tuple[str, ...] = tuple(SHORT)) -> list[Body]:
    """The jobs of a namespace, or of all; each with its kind, which a list leaves out.

    Raises:
        Refused: the user may see none of the kinds.
    """
    answers = session.lists(path(kind, namespace) for kind in kinds)
    found = [
        {**body, "kind": kind}
        for kind, answer in zip(kinds, answers, strict=True)
        if not isinstance(answer, Refused)
        for body in answer
    ]
    refused = [answer for answer in answers if isinstance(answer, Refused)]
    if len(refused) == len(kinds):
        raise refused[0]
    return found


def one(session: Session, text: str) -> Body:
    """The job that a user means by NAME, tj/NAME or ij/NAME.

    Raises:
        Failure: there is none, or two, or it may not be seen.
    """
    kind, name = parsed(text)
    kinds = (kind,) if kind else tuple(SHORT)
    answers = session.gets(path(k, session.namespace, name) for k in kinds)
    found = [a for a in answers if not isinstance(a, Refused)]
    if len(found) > 1:
        raise Failure(f"{name} is a TrainingJob and an InferenceJob: write tj/{name} or ij/{name}", USAGE)
    if found:
        return found[0]
    refused = next((a for a in answers if isinstance(a, Refused) and a.status != HTTPStatus.NOT_FOUND), None)
    raise refused or _nothing(session, kinds, name)


def parsed(text: str) -> tuple[str, str]:
    """The kind, or empty, and the name of a job as a user writes it.

    Raises:
        Failure: it is no such name.
    """
    prefix, slash, name = text.rpartition("/")
    kind = _NAMES.get(prefix.lower(), "")
    if (slash and not kind) or not name or name != name.lower() or not name.replace("-", "").replace(".", "").isalnum():
        raise Failure(f"{text!r} is no name of a job: write NAME, tj/NAME for a TrainingJob or ij/NAME", USAGE)
    return kind, name


def _nothing(session: Session, kinds: tuple[str, ...], name: str) -> Failure:
    what = kinds[0] if len(kinds) == 1 else "job"
    text = f"there is no {what} {name} in namespace {session.namespace}"
    try:
        names = {body["metadata"]["name"]: shown(body) for body in listed(session, session.namespace)}
    except Refused:
        return Failure(f"{text}: name another namespace with -n", NOT_THERE)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(names[n] for n in near)}?" if near else "name another namespace with -n"
    return Failure(f"{text}: {hint}", NOT_THERE)


def follow(session: Session, kind: str, name: str, *, seconds: float | None) -> Iterator[Body | None]:
    """A job, now and whenever it changes, until nobody asks any more; None once it is deleted.

    Args:
        session: the way to the cluster.
        kind: of the job.
        name: of the job.
        seconds: for how long at most; None: without limit.

    Raises:
        Failure: the time is over.
        Refused: it is not there, or may not be seen.
    """
    end = None if seconds is None else time.monotonic() + seconds
    at = path(kind, session.namespace)
    body = session.get(path(kind, session.namespace, name))
    while True:
        yield body
        left = _WATCH_SECONDS if end is None else min(_WATCH_SECONDS, end - time.monotonic())
        if left <= 0:
            phase = (body.get("status") or {}).get("phase") or "new"
            raise Failure(f"{SHORT[kind]}/{name} is still {phase}", TIMEOUT)
        query = {
            "watch": "true",
            "fieldSelector": f"metadata.name={name}",
            "resourceVersion": body["metadata"]["resourceVersion"],
            "timeoutSeconds": str(max(1, int(left + 0.999))),
        }
        with session.lines(at, query, idle=left) as lines:
            for line in lines:
                event = json.loads(line)
                if event.get("type") == "DELETED":
                    yield None
                    return
                if event.get("type") not in {"ADDED", "MODIFIED"}:
                    break
                body = event["object"]
                yield body
        try:
            body = session.get(path(kind, session.namespace, name))
        except Refused as refused:
            if refused.status != HTTPStatus.NOT_FOUND:
                raise
            yield None
            return
