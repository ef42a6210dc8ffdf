"""`kubectl rfuav preview -f FILE`: when a job would start, without creating it."""

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from rfuav_cli.failures import FAILED, NO_CLUSTER, NOT_THERE, USAGE, Failure
from rfuav_cli.options import Form, Output, written
from rfuav_cli.rows import seconds_until
from rfuav_cli.session import Session
from rfuav_operator.core.guidance.spans import span

_SECONDS = 60
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
File = Annotated[str, typer.Option("-f", "--filename", help="Manifest with one job; - is stdin.", show_default=False)]
Gateway = Annotated[
    str, typer.Option("--gateway", help="URL of a gateway, which is asked instead of the cluster.", show_default=False)
]


def preview(session: Session, *, filename: File, gateway: Gateway = "", output: Output = None) -> None:
    """Show when a job would start.

    Or why it would wait, and in which place. Nothing is created.
    """
    manifest = _manifest(filename)
    if gateway:
        found, notes = _by_gateway(gateway, session.namespace, manifest), list[str]()
    else:
        from rfuav_cli import planned  # noqa: PLC0415  (seconds to import)

        answer, notes = planned.preview(session, manifest)
        found = {**asdict(answer), "nodes": list(answer.nodes)}
        found["estimated_start"] = answer.estimated_start and f"{answer.estimated_start:%Y-%m-%dT%H:%M:%SZ}"
        found["why"] = answer.why or None
    match output:
        case Form.JSON | Form.YAML:
            written({**found, "left_out": notes}, output)
        case Form.NAME | Form.WIDE:
            raise Failure(f"preview has no -o {output}: write -o json or yaml", USAGE)
        case _:
            sys.stdout.write(f"{found.get('message') or story(found, session.now)}\n")
            sys.stderr.writelines(f"Left out, because you may not read it: {note}\n" for note in notes)


def story(found: Mapping[str, Any], now: datetime) -> str:
    """The preview in a sentence."""
    if found["starts_now"]:
        return (
            f"It would start now on {', '.join(found['nodes'])}" if found["nodes"] else "It would start on a new node"
        )
    place = ""
    if found["position"] is not None:
        place = f" in place {found['position']} of {found['of']}"
    left = seconds_until(found["estimated_start"], now)
    if left is not None:
        place += f" and start in about {span(left)}"
    return f"It would wait{place} ({found['reason']}): {found['why']}"


def _manifest(filename: str) -> Mapping[str, Any]:
    from rfuav_crds.load import JobError, load_job, read_job  # noqa: PLC0415  (half a second)

    try:
        body = read_job(Path("/dev/stdin" if filename == "-" else filename))
        load_job(body)
    except JobError as error:
        raise Failure("\n  ".join(["the job has mistakes:", *str(error).splitlines()]), USAGE) from None
    return body


def _by_gateway(url: str, namespace: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What a gateway answers.

    Raises:
        Failure: it does not answer, or refuses.
    """
    parsed = urllib.parse.urlsplit(url)
    if parsed.scheme not in {"http", "https"} or not parsed.hostname:
        raise Failure(f"--gateway={url}: write its URL, as in https://rfuav.example.org", USAGE)
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    token = os.environ.get("RFUAV_TOKEN", "")
    if token:
        if parsed.scheme != "https" and parsed.hostname not in _LOOPBACK:
            raise Failure(f"--gateway={url}: RFUAV_TOKEN is sent over https alone", USAGE)
        headers["Authorization"] = f"Bearer {token}"
    asked = urllib.request.Request(  # noqa: S310  (http or https, as checked)
        f"{url.rstrip('/')}/ns/{namespace}/api/v2/preview", json.dumps({"manifest": manifest}).encode(), headers
    )
    try:
        with urllib.request.urlopen(asked, timeout=_SECONDS) as answer:  # noqa: S310
            found = json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise _refusal(error, bool(token)) from None
    except (OSError, ValueError) as error:
        raise Failure(f"--gateway={url}: no answer ({getattr(error, 'reason', error)})", NO_CLUSTER) from None
    if not isinstance(found, dict):
        raise Failure(f"--gateway={url}: the answer is none of a gateway", NO_CLUSTER)
    return found


def _refusal(error: urllib.error.HTTPError, token: bool) -> Failure:
    try:
        said = json.loads(error.read())
        text = str(said.get("detail") or said.get("message") or said)
    except (ValueError, AttributeError):
        text = error.reason
    if error.code in {401, 403, 404}:
        hint = "" if token else ". Put your token into RFUAV_TOKEN, as `kubectl create token` makes it"
        return Failure(f"the gateway says: {text}{hint}", NOT_THERE)
    return Failure(f"the gateway says: {text}", USAGE if error.code in {400, 422} else FAILED)
