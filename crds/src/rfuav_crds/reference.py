"""docs/api.md: the reference that people read, from the same models as the CRDs."""

from __future__ import annotations


def reference() -> str:
    return ""
