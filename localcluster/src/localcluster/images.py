"""Container images without Docker.

A base system from Debian's packages, Dockerfiles built by buildah, pushed to a cluster's registry.

In: a Dockerfile and its context. Out: the reference under which the cluster's nodes pull the image.
Layers are cached between builds (buildah) and in the registry, so that only what changed is built, pushed and pulled.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from localcluster import binaries, hostcheck
from localcluster.errors import LocalClusterError
from localcluster.longrun import watched

BASE_IMAGE = "localhost/rfuav-base:bookworm"
_SUITE = "bookworm"
_OWN_MOUNTS = ("unshare", "--mount", "--propagation", "private")
_BASE_PACKAGES = "python3,python3-pip,python3-venv,ca-certificates"
_BUNDLE_IN_IMAGE = "/etc/ssl/certs/ca-certificates.crt"
# Settings of pip for the source of packages; they apply in a build too.
_PIP_SETTINGS = ("INDEX_URL", "EXTRA_INDEX_URL", "TRUSTED_HOST", "DEFAULT_TIMEOUT", "RETRIES", "PROXY")


def build(
    dockerfile: Path,
    name: str,
    *,
    registry: str,
    context: Path | None = None,
    build_args: dict[str, str] | None = None,
    console: Console | None = None,
) -> str:
    """Build an image, push it to `registry` (host:port) and return its reference, `registry/name:<start of its id>`.

    The tag follows from the content: the same content gives the same reference, other content another, so nodes never
    run a stale image. `context`: the Dockerfile's folder unless given. Needs root, and buildah and debootstrap, which
    apt installs if available. Raises LocalClusterError with the end of the build's output.
    """
    console = console or Console(stderr=True)
    dockerfile = dockerfile.resolve()
    if not dockerfile.is_file():
        raise LocalClusterError(f"There is no Dockerfile {dockerfile}.")
    hostcheck.require_root()
    hostcheck.require_packages(hostcheck.IMAGE_COMMANDS, console)
    hostcheck.require_space(_storage())
    ensure_base(console)
    identity = _build(
        dockerfile, name, context or dockerfile.parent, {"BASE_IMAGE": BASE_IMAGE, **(build_args or {})}, console
    )
    reference = f"{registry}/{name}:{identity[:12]}"
    push(identity, reference, console)
    return reference


def ensure_base(console: Console) -> None:
    """Make the base image, a minimal Debian with Python, unless it exists."""
    if _buildah("inspect", "--type", "image", BASE_IMAGE, check=False).returncode == 0:
        return
    with tempfile.TemporaryDirectory(prefix="rfuav-base-", dir=_storage()) as folder:
        root = Path(folder) / "rootfs"
        # in a mount namespace of its own: what it mounts in `root` ends with it, however it ends
        watched(
            [*_OWN_MOUNTS, "debootstrap", "--variant=minbase", f"--include={_BASE_PACKAGES}", _SUITE, str(root)],
            f"making the base image from Debian {_SUITE}'s packages",
            console,
            environment=hostcheck.environment(),
        )
        shutil.rmtree(root / "var/cache/apt/archives", ignore_errors=True)
        shutil.rmtree(root / "var/lib/apt/lists", ignore_errors=True)
        # `add` would follow the image's own links; a tar keeps owners, modes and links as they are
        archive = Path(folder) / "rootfs.tar"
        subprocess.run(["tar", "--create", "--file", str(archive), "--directory", str(root), "."], check=True)
        shutil.rmtree(root)
        (Path(folder) / "Dockerfile").write_text("FROM scratch\nADD rootfs.tar /\nENV LANG=C.UTF-8\n")
        _buildah("bud", "--isolation", "chroot", "--tag", BASE_IMAGE, "--file", f"{folder}/Dockerfile", folder)


def push(image: str, reference: str, console: Console) -> None:
    """Push an image as `reference`, with zstd at its fastest: gzip, buildah's own choice, takes twice the time."""
    compression = ("--compression-format", "zstd", "--compression-level", "1")
    command = [*_command("push"), *compression, "--tls-verify=false", image, f"docker://{reference}"]
    watched(command, f"pushing {reference}", console, environment=hostcheck.environment())


def _build(dockerfile: Path, name: str, context: Path, build_args: dict[str, str], console: Console) -> str:
    with tempfile.TemporaryDirectory(prefix="rfuav-build-") as folder:
        pip_configuration = Path(folder) / "pip.conf"
        pip_configuration.write_text(pip_settings())
        volumes = ["--volume", f"{pip_configuration}:/etc/pip.conf:ro"]
        if (bundle := authority_bundle()) is not None:
            volumes += ["--volume", f"{bundle}:{_BUNDLE_IN_IMAGE}:ro"]
        arguments = [part for key, value in build_args.items() for part in ("--build-arg", f"{key}={value}")]
        identity = Path(folder) / "id"
        command = [
            *_command("bud"),
            *("--layers", "--isolation", "chroot", "--network", "host", "--pull-never", "--iidfile", str(identity)),
            *(*volumes, *arguments, "--tag", f"localhost/{name}", "--file", str(dockerfile), str(context)),
        ]
        watched(command, f"building {name} from {dockerfile.name}", console, environment=hostcheck.environment())
        return identity.read_text().strip().removeprefix("sha256:")


def pip_settings() -> str:
    """This machine's pip settings (environment, then configuration files) as a pip.conf for the build.

    It is mounted for the time of the build and never becomes part of the image.
    """
    # this interpreter's pip: a machine may have none in PATH
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = dict(re.findall(r"^global\.([a-z-]+)='(.*)'$", listed, re.MULTILINE))
    found |= {key.lower().replace("_", "-"): value for key in _PIP_SETTINGS if (value := os.environ.get(f"PIP_{key}"))}
    wanted = {key.lower().replace("_", "-") for key in _PIP_SETTINGS}
    lines = [f"{key} = {value}" for key, value in sorted(found.items()) if key in wanted]
    if authority_bundle() is not None:
        lines.append(f"cert = {_BUNDLE_IN_IMAGE}")
    return "\n".join(["[global]", *lines, ""])


def authority_bundle() -> Path | None:
    """The certificates this machine trusts; a proxy or a mirror of its own is trusted in builds too."""
    candidates = (os.environ.get("SSL_CERT_FILE"), _BUNDLE_IN_IMAGE, "/etc/pki/tls/certs/ca-bundle.crt")
    return next((Path(c) for c in candidates if c and Path(c).is_file()), None)


def _storage() -> Path:
    folder = binaries.cache_root() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _command(verb: str) -> list[str]:
    storage = _storage()
    return ["buildah", "--root", f"{storage}/storage", "--runroot", f"{storage}/run", verb]


def _buildah(verb: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [*_command(verb), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=hostcheck.environment())
    if check and result.returncode != 0:
        raise LocalClusterError(f"`buildah {verb}` failed:\n{result.stderr.strip()[-2000:]}")
    return result
