"""A network of the user's own: `architecture: custom` with `custom: module:function`.

In: the name of a function that the process can import. Out: the module that it builds, looked at before hours of work.
"""

from __future__ import annotations

import importlib

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from rfuav_trainer.errors import InvalidConfigurationError
from rfuav_trainer.networks import memory_fit

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
    except Exception as error:  # whatever the user's module raises while it is read
        raise InvalidConfigurationError(
            f"model.custom: {name} cannot be imported ({type(error).__name__}: {error}): "
            "use an image that contains the module, or mount it and add its folder to PYTHONPATH in podTemplate.env",
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
    with torch.no_grad(), torch.random.fork_rng([]):
        _blank_scores(name, network.eval(), classes, image_size)
    network.train(training)
    _check_save(name, network)


def check_training(name: str, network: nn.Module, classes: int, image_size: int) -> None:
    """One step without an end: forward and backward as a training takes them, leaving the network as it was.

    Raises:
        InvalidConfigurationError: it works in eval() alone.
    """
    with memory_fit.undisturbed(network, torch.device("cpu")):
        scores = _blank_scores(name, network.train(), classes, image_size)
        try:
            scores.float().logsumexp(dim=1).mean().backward()  # type: ignore[no-untyped-call]
        except Exception as error:  # whatever the user's code raises
            raise InvalidConfigurationError(
                f"model.custom: backward() of the network of {name} fails: {type(error).__name__}: {error}",
                reason=REASON,
            ) from error


def _blank_scores(name: str, network: nn.Module, classes: int, image_size: int) -> torch.Tensor:
    """Of two pictures that lie in memory as all do, in the mode that the network is in."""
    where = "train()" if network.training else "eval()"
    pictures = torch.zeros(2, 3, image_size, image_size).contiguous(memory_format=torch.channels_last)
    try:
        if any(is_lazy(parameter) for parameter in network.parameters()):
            network(pictures)  # lazy layers have no shape before
        scores = channels_last(network)(pictures)
    except Exception as error:  # whatever the user's code raises
        raise InvalidConfigurationError(
            f"model.custom: in {where} the network of {name} fails for pictures (2, 3, {image_size}, {image_size}): "
            f"{type(error).__name__}: {error}; if the error is about view: pictures and weights are in channels-last "
            "memory format, so write reshape or flatten",
            reason=REASON,
        ) from error
    if not isinstance(scores, torch.Tensor) or tuple(scores.shape) != (2, classes):
        given = tuple(scores.shape) if isinstance(scores, torch.Tensor) else f"a {type(scores).__name__}"
        raise InvalidConfigurationError(
            f"model.custom: in {where} the network of {name} maps two pictures to {given}: return one tensor "
            f"(2, {classes}), without auxiliary outputs",
            reason=REASON,
        )
    return scores


def channels_last(network: nn.Module) -> nn.Module:
    """The network with the channels of its weights last, which processors and tensor cores take without turning them.

    One with weights of five dimensions stays as it is: they have no such order.
    """
    if any(parameter.dim() == 5 for parameter in network.parameters()):  # noqa: PLR2004
        return network
    return network.to(memory_format=torch.channels_last)


def _check_save(name: str, network: nn.Module) -> None:
    """The first number of each weight as it would be saved: what cannot be is known before the first epoch."""
    from safetensors.torch import save  # noqa: PLC0415

    try:
        save({key: value.detach().reshape(-1)[:1].clone() for key, value in network.state_dict().items()})
    except Exception as error:  # whatever is in the user's state dict
        raise InvalidConfigurationError(
            f"model.custom: the weights of {name} cannot be saved ({type(error).__name__}: {error}): its state_dict "
            "may contain only tensors of plain numbers",
            reason=REASON,
        ) from error
