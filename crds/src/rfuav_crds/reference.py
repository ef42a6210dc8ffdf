"""docs/api.md: the reference that people read, from the same models as the CRDs."""


def reference() -> str:
    return ""
