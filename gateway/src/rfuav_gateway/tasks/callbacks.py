"""Callbacks: which URLs and addresses are called, what is sent when a task has ended, and how it is signed.

Message and signature follow the Standard Webhooks specification, whose libraries check them in any language.
"""

import base64
import hmac
import ipaddress
from collections.abc import Collection
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from rfuav_gateway.tasks import views
from rfuav_gateway.tasks.jobs import Job
from rfuav_gateway.tasks.words import Phrases, Said, said

LONGEST_URL = 2048
# Addresses of IPv6 that stand for one of IPv4: NAT64, 6to4 and Teredo bring a packet to it.
_EMBEDDING = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")))

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Target(NamedTuple):
    """Where a callback goes."""

    url: str
    host: str


def target(url: str, allowed: Collection[Network]) -> Target | Said:
    """The target of a URL, or why it is none; names are resolved, and their addresses checked, at each call."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    if (
        len(url) > LONGEST_URL
        or not url.isascii()
        or not url.isprintable()
        or " " in url
        or "\\" in url
        or parts.scheme not in ("http", "https")
        or not host
        or parts.username is not None
        or parts.fragment
        or port == 0
    ):
        return said("no_callback_url", url=url[:100])
    if _is_address(host) and not permitted(host, allowed):
        return said("private_callback_url", host=host)
    return Target(url, f"{host}:{port or parts.scheme}")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def permitted(address: str, allowed: Collection[Network]) -> bool:
    """Whether an address may be called: one of the public internet, or of the networks that the settings allow."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if any(found.version == network.version and found in network for network in allowed):
        return True
    if any(found.version == network.version and found in network for network in _EMBEDDING):
        return False
    return found.is_global and not found.is_multicast


def message(job: Job, phrases: Phrases) -> bytes:
    """What is sent of a task that has ended, as JSON: its type, when it ended, and the task as GET shows it."""
    task = views.view(job, phrases)
    ended = job.status.finished_at or job.changed
    return msgspec.json.encode({"type": f"task.{task.status}", "timestamp": ended, "data": task})


def headers(job: Job, body: bytes, key: bytes, seconds: int) -> dict[str, str]:
    """Headers of one try: the id, the same in each; the time, since 1970; and the signature of both and the body."""
    signed = hmac.new(key, b"%b.%d.%b" % (job.uid.encode(), seconds, body), sha256).digest()
    return {
        "Content-Type": "application/json",
        "webhook-id": job.uid,
        "webhook-timestamp": str(seconds),
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }
