"""Object stores for the tests, in this process: moto speaks S3, a small Flask application the Hugging Face hub's API."""

import hashlib
import threading
from contextlib import contextmanager
from pathlib import Path

import boto3
from flask import Flask, abort, jsonify, request, send_file
from moto.server import ThreadedMotoServer
from werkzeug.serving import make_server

KEY, SECRET = "AKIDEXAMPLE0000TESTS", "wJalrXUtnFEMI-SECRET-K7MDENG"
TOKEN = "hf_not_to_be_seen_anywhere"


@contextmanager
def s3_server():
    """The address of a server that speaks S3; its buckets begin empty."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def s3_environment(endpoint: str) -> dict[str, str]:
    """What podTemplate.envFrom would bring."""
    return {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def s3_client(endpoint: str):
    """Amazon's own client of that server."""
    return boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1"
    )


def files_in(folder: Path) -> list[str]:
    """The files below a folder, by their relative paths."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


class Volumes:
    """Outputs on the claims of a desk."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def uri(self, path: str) -> str:
        return f"pvc://{path}"

    def names(self, folder: str) -> list[str]:
        return files_in(self.root / folder)

    def get(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def put(self, path: str, content: bytes) -> None:
        (self.root / path).write_bytes(content)


class Bucket:
    """The same in a new bucket."""

    def __init__(self, client, name: str) -> None:
        self.client, self.name = client, name
        client.create_bucket(Bucket=name)

    def uri(self, path: str) -> str:
        return f"s3://{self.name}/{path}"

    def names(self, folder: str = "") -> list[str]:
        prefix = folder and f"{folder}/"
        found = self.client.list_objects_v2(Bucket=self.name, Prefix=prefix).get("Contents", [])
        return sorted(entry["Key"].removeprefix(prefix) for entry in found)

    def get(self, path: str) -> bytes:
        return self.client.get_object(Bucket=self.name, Key=path)["Body"].read()

    def put(self, path: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=path, Body=content)


def upload(client, bucket: str, folder: Path, prefix: str = "") -> None:
    """Put the files of a folder into a bucket."""
    client.create_bucket(Bucket=bucket)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            client.upload_file(str(path), bucket, f"{prefix}{path.relative_to(folder).as_posix()}")


@contextmanager
def hub_mirror(repositories: dict[str, Path], *, token: str = ""):
    """The address of a mirror of the hub: `datasets/owner/name` or `models/owner/name` to a folder with its files."""
    app = Flask("mirror")

    def folder(kind, owner, name):
        if token and request.headers.get("Authorization") != f"Bearer {token}":
            abort(401)
        found = repositories.get(f"{kind}/{owner}/{name}")
        if found is None:
            response = jsonify(error="Repository not found")
            response.status_code, response.headers["X-Error-Code"] = 404, "RepoNotFound"
            abort(response)
        return found

    @app.get("/api/<kind>/<owner>/<name>")
    @app.get("/api/<kind>/<owner>/<name>/revision/<revision>")
    def info(kind, owner, name, revision="main"):
        folder(kind, owner, name)
        return jsonify(id=f"{owner}/{name}", sha="0" * 40, private=False, tags=[], siblings=[], downloads=0, likes=0)

    @app.get("/api/<kind>/<owner>/<name>/tree/<revision>")
    @app.get("/api/<kind>/<owner>/<name>/tree/<revision>/<path:below>")
    def tree(kind, owner, name, revision, below=""):
        root = folder(kind, owner, name)
        if not (root / below).is_dir():
            response = jsonify(error="Entry not found")
            response.status_code, response.headers["X-Error-Code"] = 404, "EntryNotFound"
            abort(response)
        deep = request.args.get("recursive", "false").lower() in {"1", "true"}
        found = sorted((root / below).rglob("*") if deep else (root / below).iterdir())
        return jsonify([_entry(path, root) for path in found])

    @app.get("/<kind>/<owner>/<name>/resolve/<revision>/<path:file>")
    def dataset_file(kind, owner, name, revision, file):
        path = folder(kind, owner, name) / file
        return send_file(path) if path.is_file() else abort(404)

    @app.get("/<owner>/<name>/resolve/<revision>/<path:file>")
    def model_file(owner, name, revision, file):
        return dataset_file("models", owner, name, revision, file)

    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()


def _entry(path: Path, root: Path) -> dict:
    if path.is_dir():
        return {"type": "directory", "path": path.relative_to(root).as_posix(), "oid": "0" * 40, "size": 0}
    content = path.read_bytes()
    oid = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    return {"type": "file", "path": path.relative_to(root).as_posix(), "oid": oid, "size": len(content)}
