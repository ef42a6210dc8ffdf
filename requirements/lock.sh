#!/usr/bin/env bash
set -e
# Locks versions and hashes (no addresses): one set for developers, one for each image. Run: make lock
U=".venv/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --python-version 3.11"

OURS="--no-emit-package rfuav-crds --no-emit-package rfuav-kube --no-emit-package rfuav-operator"
$U crds/pyproject.toml kube/pyproject.toml operator/pyproject.toml gateway/pyproject.toml cli/pyproject.toml trainer_image/pyproject.toml localcluster/pyproject.toml --extra tracing --group pyproject.toml:dev -o requirements/dev.txt $OURS
$U crds/pyproject.toml kube/pyproject.toml operator/pyproject.toml gateway/pyproject.toml --extra tracing -c requirements/dev.txt -o requirements/operator.txt $OURS
$U crds/pyproject.toml trainer_image/pyproject.toml -c requirements/dev.txt -o requirements/trainer.txt $OURS
$U requirements/build.in -o requirements/build.txt
