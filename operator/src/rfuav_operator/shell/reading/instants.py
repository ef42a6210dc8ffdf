"""Instants that the core can compute with."""

from datetime import datetime

from rfuav_crds.bounds import EARLIEST, bounded
from rfuav_kube.objects import Meta


def at(instant: datetime | None) -> datetime | None:
    """An instant, within the core's bounds."""
    return None if instant is None else bounded(instant)


def since(made: datetime, instant: datetime | None) -> datetime | None:
    """The same for an event of an object created then: the reporter's clock may be behind."""
    return None if instant is None else max(made, bounded(instant))


def created(meta: Meta) -> datetime:
    """When an object was made."""
    return EARLIEST if meta.creation_timestamp is None else bounded(meta.creation_timestamp)
