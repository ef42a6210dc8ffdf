"""`python -m monitoring` writes what is made from the code; with --check it says what differs from it."""

import difflib
import sys
from pathlib import Path

from monitoring import dashboards, metrics

ROOT = Path(__file__).resolve().parents[1]


def made() -> dict[Path, str]:
    """All generated files."""
    folder = ROOT / "helm/rfuav-operator/files/dashboards"
    drawn = {folder / f"{one.name}.json": dashboards.rendered(one) for one in dashboards.ALL}
    return {ROOT / "docs/metrics.md": metrics.table(), **drawn}


def main(arguments: list[str]) -> int:
    """Write the files, or compare them; 1 if one differs."""
    differs = 0
    for path, text in made().items():
        before = path.read_text() if path.exists() else ""
        if before == text:
            continue
        differs = 1
        if "--check" in arguments:
            name = str(path.relative_to(ROOT))
            sys.stderr.writelines(
                difflib.unified_diff(before.splitlines(True), text.splitlines(True), name, "the code")
            )
            print(f"{name} differs from the code: run make generate", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return differs if "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
