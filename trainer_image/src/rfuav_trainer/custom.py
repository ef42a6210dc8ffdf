"""A network of the user's own: `architecture: custom` with `custom: module:function`.

In: the name of a function that the process can import. Out: the module that it builds, looked at before hours of work.
"""

from __future__ import annotations

import importlib

import torch
from torch import nn

from rfuav_trainer.errors import InvalidConfigurationError

REASON = "CustomModel"


def build(name: str, classes: int, image_size: int) -> nn.Module:
    """Call `name` (module:function) with the number of classes and the side of the pictures.

    Raises:
        InvalidConfigurationError: it cannot be imported, fails, or returns something that does not map
            (n, 3, image_size, image_size) to (n, classes).
    """
    where, _, function = name.partition(":")
    try:
        make = getattr(importlib.import_module(where), function)
    except (ImportError, AttributeError) as error:
        raise InvalidConfigurationError(
            f"model.custom: {name} cannot be imported ({error}): name an image that has the module, or mount it and "
            "put its folder on PYTHONPATH in podTemplate.env",
            reason=REASON,
        ) from error
    try:
        network = make(classes, image_size)
    except Exception as error:  # whatever the user's code raises
        raise InvalidConfigurationError(
            f"model.custom: {name}({classes}, {image_size}) fails: {type(error).__name__}: {error}", reason=REASON
        ) from error
    if not isinstance(network, nn.Module):
        raise InvalidConfigurationError(
            f"model.custom: {name} returns a {type(network).__name__}: return a torch.nn.Module", reason=REASON
        )
    _check(name, network, classes, image_size)
    return network


def _check(name: str, network: nn.Module, classes: int, image_size: int) -> None:
    """Two blank pictures through it, and a save; both leave the network and the random state as they were."""
    training = network.training
    try:
        with torch.no_grad(), torch.random.fork_rng([]):
            shape = tuple(network.eval()(torch.zeros(2, 3, image_size, image_size)).shape)
    except Exception as error:  # whatever the user's code raises
        raise InvalidConfigurationError(
            f"model.custom: the network of {name} cannot take pictures (2, 3, {image_size}, {image_size}): "
            f"{type(error).__name__}: {error}",
            reason=REASON,
        ) from error
    if shape != (2, classes):
        raise InvalidConfigurationError(
            f"model.custom: the network of {name} maps two pictures to {shape}: it should be (2, {classes})",
            reason=REASON,
        )
    network.train(training)
    _check_save(name, network)


def _check_save(name: str, network: nn.Module) -> None:
    """The first number of each weight as it would be saved: what cannot be is known before the first epoch."""
    from safetensors.torch import save  # noqa: PLC0415

    try:
        save({key: value.detach().reshape(-1)[:1].clone() for key, value in network.state_dict().items()})
    except Exception as error:  # whatever is in the user's state dict
        raise InvalidConfigurationError(
            f"model.custom: the weights of {name} cannot be saved ({type(error).__name__}: {error}): its state_dict "
            "should hold tensors of plain numbers alone",
            reason=REASON,
        ) from error
