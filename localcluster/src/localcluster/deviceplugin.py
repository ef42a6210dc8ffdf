"""Imitates NVIDIA's device plugin for one node: the kubelet, the scheduler and the pods then treat the slots as real.

In: the folder of the kubelet's device-plugin sockets. Out: `nvidia.com/gpu` in the node's status; each pod gets
NVIDIA_VISIBLE_DEVICES.
Run as `python -m localcluster.deviceplugin NODE FOLDER`.
"""

import os
import sys
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from localcluster.gpus import RESOURCE, Gpus

_SOCKET = "localcluster-gpu.sock"
_KUBELET = "kubelet.sock"
_LOOK_EVERY = 0.5  # seconds between two checks for a restarted kubelet

# The messages of k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1 that are used here. A trailing * marks a repeated
# field; other types are strings.
_FIELDS: dict[str, list[tuple[str, int, str]]] = {
    "RegisterRequest": [("version", 1, ""), ("endpoint", 2, ""), ("resource_name", 3, "")],
    "Empty": [],
    "DevicePluginOptions": [],
    "Device": [("ID", 1, ""), ("health", 2, "")],
    "ListAndWatchResponse": [("devices", 1, "Device*")],
    "ContainerAllocateRequest": [("devices_ids", 1, "*")],
    "AllocateRequest": [("container_requests", 1, "ContainerAllocateRequest*")],
    "EnvsEntry": [("key", 1, ""), ("value", 2, "")],
    "ContainerAllocateResponse": [("envs", 1, "EnvsEntry*")],
    "AllocateResponse": [("container_responses", 1, "ContainerAllocateResponse*")],
}


def _message_classes() -> dict[str, Any]:
    """Classes for the messages, built from the table above: no generated code to keep.

    A protobuf map is on the wire a repeated entry of key and value, which is how `envs` is written here.
    """
    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="deviceplugin.proto", package="v1beta1", syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind in fields:
            label = field_type.LABEL_REPEATED if kind.endswith("*") else field_type.LABEL_OPTIONAL
            field = message.field.add(name=field_name, number=number, label=label, type=field_type.TYPE_STRING)
            if kind.rstrip("*"):
                field.type, field.type_name = field_type.TYPE_MESSAGE, f".v1beta1.{kind.rstrip('*')}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"v1beta1.{name}")) for name in _FIELDS}


_MESSAGES = _message_classes()


def allocate(request: Any) -> Any:
    """Answer an AllocateRequest: each container sees the physical GPUs its slots lie on, each once."""
    response = _MESSAGES["AllocateResponse"]()
    for container in request.container_requests:
        physical = dict.fromkeys(device.split("::")[0] for device in container.devices_ids)
        envs = response.container_responses.add().envs
        envs.add(key="NVIDIA_VISIBLE_DEVICES", value=",".join(physical))
    return response


class _Plugin:
    """The server side: lists the slots for as long as it is asked, and answers allocations."""

    def __init__(self, device_ids: list[str]) -> None:
        self._device_ids = device_ids

    def list_and_watch(self, _request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        device = _MESSAGES["Device"]
        devices = [device(ID=one, health="Healthy") for one in self._device_ids]
        yield _MESSAGES["ListAndWatchResponse"](devices=devices)
        while context.is_active():  # the stream stays open: its end would mean to the kubelet that the devices are gone
            time.sleep(_LOOK_EVERY)

    def serve(self) -> grpc.Server:
        """Start a server on the socket in the working directory."""

        def unary(function: Any, request: str) -> Any:
            return grpc.unary_unary_rpc_method_handler(function, _MESSAGES[request].FromString, _encode)

        handlers = {
            "GetDevicePluginOptions": unary(lambda _r, _c: _MESSAGES["DevicePluginOptions"](), "Empty"),
            "Allocate": unary(lambda request, _c: allocate(request), "AllocateRequest"),
            "ListAndWatch": grpc.unary_stream_rpc_method_handler(
                self.list_and_watch, _MESSAGES["Empty"].FromString, _encode
            ),
        }
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("v1beta1.DevicePlugin", handlers)])
        server.add_insecure_port(f"unix:{_SOCKET}")
        server.start()
        return server


def _encode(message: Any) -> bytes:
    return bytes(message.SerializeToString())


def _register() -> None:
    """Tell the kubelet where the plugin listens."""
    request = _MESSAGES["RegisterRequest"](version="v1beta1", endpoint=_SOCKET, resource_name=RESOURCE)
    with grpc.insecure_channel(f"unix:{_KUBELET}") as channel:
        call = channel.unary_unary("/v1beta1.Registration/Register", _encode, _MESSAGES["Empty"].FromString)
        call(request, timeout=5, wait_for_ready=True)


def _inode(path: str) -> int | None:
    try:
        return Path(path).stat().st_ino
    except FileNotFoundError:
        return None


def run(node: str, folder: Path) -> None:
    """Serve for ever; register again whenever the kubelet restarts, which empties the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)  # a socket's path may be 107 characters long, and a cluster's folder may lie deep
    plugin = _Plugin(Gpus().device_ids(node))
    while True:
        kubelet = _inode(_KUBELET)
        if kubelet is None:
            time.sleep(_LOOK_EVERY)
            continue
        Path(_SOCKET).unlink(missing_ok=True)
        server = plugin.serve()
        own = _inode(_SOCKET)
        try:
            _register()
            while own is not None and (_inode(_KUBELET), _inode(_SOCKET)) == (kubelet, own):
                time.sleep(_LOOK_EVERY)
            print("the kubelet restarted: registering again", flush=True)
        except grpc.RpcError as error:
            print(f"registration failed, trying again: {error}", flush=True)
            time.sleep(_LOOK_EVERY)
        finally:
            server.stop(grace=0.2).wait()


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]))
