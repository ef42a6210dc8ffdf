"""`python -m rfuav_crds`: write the generated files; with --check, fail and show the difference when one has drifted.

In: the models. Out: crds/*.yaml, the chart's copies of them, and docs/api.md.
"""

import argparse
import difflib
import sys
from pathlib import Path

import yaml

from rfuav_crds.crd import CRDS, manifest
from rfuav_crds.reference import reference

HEADER = "# Generated from crds/src/rfuav_crds by `make generate`: edit the models there.\n"
CHART = Path("helm/rfuav-operator/files/crds")


class _Dumper(yaml.SafeDumper):
    """Plain YAML without anchors."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


def generated() -> dict[Path, str]:
    """Every generated file: its path below the repository's root, and its text."""
    files: dict[Path, str] = {}
    for crd in CRDS:
        text = HEADER + yaml.dump(manifest(crd), Dumper=_Dumper, sort_keys=False, width=120)
        for folder in (Path("crds"), CHART):
            files[folder / f"{crd.name}.yaml"] = text
    files[Path("docs/api.md")] = reference()
    return files


def drift(root: Path) -> list[str]:
    """The differences between the files below `root` and the models, as unified diffs."""
    differences = []
    for path, text in generated().items():
        target = root / path
        found = target.read_text() if target.exists() else ""
        if found != text:
            lines = difflib.unified_diff(
                found.splitlines(True), text.splitlines(True), f"{path} (found)", f"{path} (models)"
            )
            differences.append("".join(lines))
    known = {path.name for path in generated()}
    differences += [
        f"{folder / extra.name}: no kind of this name: delete the file\n"
        for folder in (Path("crds"), CHART)
        for extra in sorted((root / folder).glob("*.yaml"))
        if extra.name not in known
    ]
    return differences


def main(arguments: list[str] | None = None) -> int:
    """Write or check the generated files; 1 when the check finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m rfuav_crds", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail with a diff when a file has drifted")
    parser.add_argument(
        "--root", type=Path, default=Path.cwd(), help="root of the repository (default: the current folder)"
    )
    options = parser.parse_args(arguments)
    if not (options.root / "crds").is_dir():
        parser.error(
            f"{options.root} has no crds/ folder: run this in the root of the repository, or name it with --root"
        )
    if options.check:
        differences = drift(options.root)
        sys.stdout.write("\n".join(differences))
        if differences:
            sys.stderr.write("generated files differ from the models: run `make generate` and commit the result\n")
        return 1 if differences else 0
    for path, text in generated().items():
        target = options.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
