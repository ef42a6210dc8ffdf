"""A second pair of eyes: follows pods, jobs, nodes and pools of a real API server by watches of its own.

Every event goes into an `Audit`, which says at the end which promises were broken.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cluster.audit import LISTED, Audit
from kubernetes import client

from rfuav_crds.contract import GROUP, PLURALS, VERSION


class Observer:
    """Feeds an `Audit` from the API server, one thread a kind, from the first list until `stop`."""

    def __init__(self, api: client.ApiClient) -> None:
        self.audit = Audit()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        core, custom = client.CoreV1Api(api), client.CustomObjectsApi(api)
        self._sources: dict[str, tuple[Any, tuple[str, ...]]] = {  # what the checks of pods read comes first
            "Node": (core.list_node, ()),
            **{
                kind: (custom.list_cluster_custom_object, (GROUP, VERSION, PLURALS[kind]))
                for kind in ("GPUPool", "TrainingJob", "InferenceJob")
            },
            "Pod": (core.list_pod_for_all_namespaces, ()),
        }
        self._api = api

    def start(self) -> None:
        """List every kind, then watch from there; returns when all lists are in."""
        for kind, (list_, args) in self._sources.items():
            listed = self._api.sanitize_for_serialization(list_(*args))
            for obj in listed["items"]:
                self.audit.event(kind, LISTED, obj, time.monotonic())
            thread = threading.Thread(
                target=self._follow,
                args=(kind, listed["metadata"]["resourceVersion"]),
                name=f"observe-{kind}",
                daemon=True,
            )
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End the watches."""
        self._stop.set()

    @property
    def watching(self) -> bool:
        """Whether every watch is still alive: a dead one would see nothing and find nothing."""
        return all(thread.is_alive() for thread in self._threads)

    def _follow(self, kind: str, revision: str) -> None:
        list_, args = self._sources[kind]
        while not self._stop.is_set():
            # At most a minute each, and on from the last revision: nothing between two of them is missed.
            answer = list_(
                *args,
                watch=True,
                resource_version=revision,
                timeout_seconds=60,
                allow_watch_bookmarks=True,
                _preload_content=False,
            )
            for line in answer:
                event = json.loads(line)
                if event["type"] == "ERROR":  # 410 above all: revisions are lost, and with them the proof
                    self.audit.break_(f"the observer lost its watch of {kind}: {event['object']}")
                    return
                revision = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self.audit.event(kind, event["type"], event["object"], time.monotonic())


@contextmanager
def observing(api: client.ApiClient) -> Iterator[Observer]:
    """An observer for the duration of a block."""
    observer = Observer(api)
    observer.start()
    try:
        yield observer
    finally:
        observer.stop()
