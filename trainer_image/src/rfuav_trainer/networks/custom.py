"""Networks of the user: `architecture: custom` with `custom: module:function`.

In: the name of an importable function. Out: the module that it builds, checked before hours of work.
"""

from __future__ import annotations

import importlib

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from rfuav_crds import reasons
from rfuav_trainer.errors import InvalidConfigurationError
from rfuav_trainer.networks import memory_fit


def build(name: str, classes: int, image_size: int) -> nn.Module:
    """Call `name` (module:function) with the number of classes and the image size.

    Raises:
        InvalidConfigurationError: it cannot be imported, fails, or returns something that does not map
            (n, 3, image_size, image_size) to (n, classes).
    """
    where, _, function = name.partition(":")
    try:
        make = getattr(importlib.import_module(where), function)
    except Exception as error:  # the user's module may raise anything
        raise InvalidConfigurationError(
            f"model.custom: {name} cannot be imported ({type(error).__name__}: {error}): "
            "use an image that contains the module, or mount it and add its folder to PYTHONPATH in podTemplate.env",
            reason=reasons.CUSTOM_MODEL,
        ) from error
    try:
        network = make(classes, image_size)
    except Exception as error:  # the user's code may raise anything
        raise InvalidConfigurationError(
            f"model.custom: {name}({classes}, {image_size}) fails: {type(error).__name__}: {error}",
            reason=reasons.CUSTOM_MODEL,
        ) from error
    if not isinstance(network, nn.Module):
        raise InvalidConfigurationError(
            f"model.custom: {name} returns a {type(network).__name__}: return a torch.nn.Module",
            reason=reasons.CUSTOM_MODEL,
        )
    _check(name, network, classes, image_size)
    return network


def _check(name: str, network: nn.Module, classes: int, image_size: int) -> None:
    """Run two blank pictures and a save, without changing the network and the random state."""
    training = network.training
    with torch.no_grad(), torch.random.fork_rng([]):
        _blank_scores(name, network.eval(), classes, image_size)
    network.train(training)
    _check_save(name, network)


def check_training(name: str, network: nn.Module, classes: int, image_size: int) -> None:
    """Run forward and backward as in training, without changing the network.

    Raises:
        InvalidConfigurationError: it works only in eval().
    """
    with memory_fit.undisturbed(network, torch.device("cpu")):
        scores = _blank_scores(name, network.train(), classes, image_size)
        try:
            scores.float().logsumexp(dim=1).mean().backward()  # type: ignore[no-untyped-call]
        except Exception as error:  # the user's code may raise anything
            raise InvalidConfigurationError(
                f"model.custom: backward() of the network of {name} fails: {type(error).__name__}: {error}",
                reason=reasons.CUSTOM_MODEL,
            ) from error


def _blank_scores(name: str, network: nn.Module, classes: int, image_size: int) -> torch.Tensor:
    """Scores of two blank pictures in channels-last format, in the current mode of the network."""
    where = "train()" if network.training else "eval()"
    pictures = torch.zeros(2, 3, image_size, image_size).contiguous(memory_format=torch.channels_last)
    try:
        if any(is_lazy(parameter) for parameter in network.parameters()):
            network(pictures)  # lazy layers get their shape here
        scores = channels_last(network)(pictures)
    except Exception as error:  # the user's code may raise anything
        raise InvalidConfigurationError(
            f"model.custom: in {where} the network of {name} fails for pictures (2, 3, {image_size}, {image_size}): "
            f"{type(error).__name__}: {error}; if the error is about view: pictures and weights are in channels-last "
            "memory format, so write reshape or flatten",
            reason=reasons.CUSTOM_MODEL,
        ) from error
    if not isinstance(scores, torch.Tensor) or tuple(scores.shape) != (2, classes):
        given = tuple(scores.shape) if isinstance(scores, torch.Tensor) else f"a {type(scores).__name__}"
        raise InvalidConfigurationError(
            f"model.custom: in {where} the network of {name} maps two pictures to {given}: return one tensor "
            f"(2, {classes}), without auxiliary outputs",
            reason=reasons.CUSTOM_MODEL,
        )
    return scores


def channels_last(network: nn.Module) -> nn.Module:
    """The network in channels-last format, which CPUs and tensor cores process without conversions.

    Does not convert networks with weights of five dimensions, which have no such format.
    """
    if any(parameter.dim() == 5 for parameter in network.parameters()):  # noqa: PLR2004
        return network
    return network.to(memory_format=torch.channels_last)


def _check_save(name: str, network: nn.Module) -> None:
    """Serialise the first number of each weight, to find errors before the first epoch."""
    from safetensors.torch import save  # noqa: PLC0415

    try:
        save({key: value.detach().reshape(-1)[:1].clone() for key, value in network.state_dict().items()})
    except Exception as error:  # the user's state dict may contain anything
        raise InvalidConfigurationError(
            f"model.custom: the weights of {name} cannot be saved ({type(error).__name__}: {error}): its state_dict "
            "may contain only tensors of plain numbers",
            reason=reasons.CUSTOM_MODEL,
        ) from error
