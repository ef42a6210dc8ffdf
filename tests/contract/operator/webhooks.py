"""A mutating webhook of another team: it changes the pods of one namespace as they are created."""

import base64
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kubernetes import client

from rfuav_operator.shell.serving.tls import Leaf, new_authority

Object = dict[str, Any]
Patch = list[Object]  # JSON patch


@contextlib.contextmanager
def changing_pods(kube: client.ApiClient, namespace: str, change: Callable[[Object], Patch]) -> Iterator[None]:
    """While this lasts, `change` says how each new pod of the namespace is changed."""
    authority = new_authority()
    leaf = Leaf(authority, ["127.0.0.1"])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["request"]
            patch = base64.b64encode(json.dumps(change(asked["object"])).encode()).decode()
            answer = {"uid": asked["uid"], "allowed": True, "patchType": "JSONPatch", "patch": patch}
            review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(review).encode())

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = leaf.context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hooks = client.AdmissionregistrationV1Api(kube)
    hooks.create_mutating_webhook_configuration(
        {
            "metadata": {"name": namespace},
            "webhooks": [
                {
                    "name": "pods.example.com",
                    "clientConfig": {
                        "url": f"https://127.0.0.1:{server.server_address[1]}/",
                        "caBundle": base64.b64encode(authority.pem.encode()).decode(),
                    },
                    "rules": [
                        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
                    ],
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                    "admissionReviewVersions": ["v1"],
                    "sideEffects": "None",
                }
            ],
        }
    )
    try:
        yield
    finally:
        hooks.delete_mutating_webhook_configuration(namespace)
        server.shutdown()
