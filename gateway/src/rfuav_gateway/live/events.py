"""Server-sent events as bytes, and their compression: each event can be read as soon as it is sent."""

import zlib
from collections.abc import Iterable

import msgspec

HELLO = b"retry: 1000\n\n"  # milliseconds after which a browser comes back
KEEP_ALIVE = b": keep-alive\n\n"
_GZIP = 16 + zlib.MAX_WBITS
_MEMORY = 6  # of zlib's 9: half of the memory for a stream, and hardly larger
json = msgspec.json.Encoder().encode


def event(name: str, number: int, body: object) -> bytes:
    """One event."""
    return encoded(name, number, json(body))


def encoded(name: str, number: int, body: bytes) -> bytes:
    """One event of a body that is JSON already."""
    return b"event: %b\nid: %d\ndata: %b\n\n" % (name.encode(), number, body)


def jobs(number: int, rows: Iterable[bytes], gone: list[str], *, more: bool) -> bytes:
    """Rows that are JSON already, in one event."""
    return b'event: jobs\nid: %d\ndata: {"rows":[%b],"gone":%b,"more":%b}\n\n' % (
        number,
        b",".join(rows),
        json(gone),
        b"true" if more else b"false",
    )


class Gzip:
    """Compresses a stream piece by piece."""

    def __init__(self) -> None:
        self._packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP, _MEMORY)

    def packed(self, piece: bytes) -> bytes:
        """The piece, so that the client can read all of it at once."""
        return self._packer.compress(piece) + self._packer.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        """What ends the stream."""
        return self._packer.flush()
