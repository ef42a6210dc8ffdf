"""Object stores (s3://, hf://): their clients, and the translation of their errors.

In: credentials from the environment only. Out: fsspec file systems. Every request goes through `ask`, whose errors say
what to write and contain no secrets.
"""

from __future__ import annotations

import os
import re
import threading
import time
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from rfuav_crds import reasons
from rfuav_trainer.errors import DiskFullError, InputError, StorageError, disk_full

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REMOTE = ("s3", "hf")
WRITABLE = ("s3",)
"""Those that take outputs."""
SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN")
S3_PROVIDERS = {"env", "assume-role-with-web-identity", "container-role"}
"""Where botocore may look for credentials: variables, and the tokens that variables of the cluster name. Not in files
of the home folder, and not in the metadata of the machine, whose role is not that of the job."""
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT_URL where it is not Amazon's)",
    "hf": "HF_TOKEN (and HF_ENDPOINT for a mirror)",
}

_under_way = [0]
_changed = threading.Condition()


def client(scheme: str, connections: int) -> Any:
    """A client of the store, configured by the environment, not by files in the home folder.

    Args:
        scheme: of the store.
        connections: requests that its users make in parallel; with fewer connections some would wait for no reason.
    """
    if scheme == "s3":
        from aiobotocore.session import AioSession  # type: ignore[import-untyped]  # noqa: PLC0415  (seconds to import)
        from s3fs import S3FileSystem  # noqa: PLC0415

        session = AioSession()
        resolver = session.get_component("credential_provider")
        for method in [provider.METHOD for provider in resolver.providers if provider.METHOD not in S3_PROVIDERS]:
            resolver.remove(method)
        return S3FileSystem(
            session=session,
            skip_instance_cache=True,
            use_listings_cache=False,
            config_kwargs={"max_pool_connections": connections},
        )
    if scheme != "hf":
        raise ValueError(f"no client for {scheme}://")
    from huggingface_hub import HfFileSystem  # noqa: PLC0415  (seconds to import)
    from huggingface_hub.utils.tqdm import disable_progress_bars  # noqa: PLC0415

    disable_progress_bars()
    token = os.environ.get("HF_TOKEN") or False
    return HfFileSystem(endpoint=os.environ.get("HF_ENDPOINT"), token=token, skip_instance_cache=True)


@contextmanager
def busy() -> Iterator[None]:
    """Marks an operation that may take long and cannot be cancelled."""
    with _changed:
        _under_way[0] += 1
    try:
        yield
    finally:
        with _changed:
            _under_way[0] -= 1
            _changed.notify_all()


def quiet(seconds: float) -> bool:
    """Wait until no operation is running, at most `seconds`; whether that is so."""
    end = time.monotonic() + seconds
    with _changed:
        while _under_way[0] and time.monotonic() < end:
            _changed.wait(end - time.monotonic())
        return not _under_way[0]


def ask(question: Callable[[], Any], what: str, scheme: str, *, to: str = "read", room: str = "") -> Any:
    """The answer of a store. Its client has already retried.

    Args:
        question: the request.
        what: the object, for the message.
        scheme: of the store.
        to: for the message: `read` or `written`.
        room: advice for a full disk.

    Raises:
        FileNotFoundError: the object does not exist.
        FileExistsError: it exists already, and must not.
        InputError: access is denied with these credentials.
        DiskFullError: the disk of this machine is full.
        StorageError: the store does not answer, or answers with an error.
    """
    try:
        with busy():
            return question()
    except (FileNotFoundError, FileExistsError):
        raise
    except PermissionError as error:
        raise _denied(what, scheme, error, to) from None
    except Exception as error:  # noqa: BLE001  (the clients' errors have no common base; their texts may contain signatures)
        kind = type(error).__name__
        status = getattr(getattr(error, "response", None), "status_code", None)
        if disk_full(error):
            raise DiskFullError(
                f"no space left on this machine while downloading {what}{room and ': '}{room}"
            ) from None
        refused = status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
        if refused or kind in {"NoCredentialsError", "PartialCredentialsError"}:
            raise _denied(what, scheme, error, to) from None
        raise StorageError(f"{what} cannot be {to} now: {kind}: {without_secrets(error)}") from None


def _denied(what: str, scheme: str, error: Exception, to: str) -> InputError:
    return InputError(
        f"access denied: {what} may not be {to} ({without_secrets(error)}): put {CREDENTIALS[scheme]} into a Secret "
        "that podTemplate.envFrom names, or into the environment on a laptop",
        reason=reasons.ACCESS_DENIED,
    )


def without_secrets(error: Exception) -> str:
    """The first line of the error, without credentials, and without URL queries, which may contain signatures."""
    text = (str(error).splitlines() or [""])[0]
    for name in SECRETS:
        secret = os.environ.get(name)
        if secret:
            text = text.replace(secret, f"${name}")
    return re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"]*", r"\1?...", text)
