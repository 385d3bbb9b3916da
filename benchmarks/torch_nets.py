"""The same net in PyTorch, module by module, weights and state copied: for witnesses and as a peer, nothing else."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn as torch_nn
from torch.nn import functional

from minires import models, nn


def mirror(net: nn.Module) -> torch_nn.Module:
    """A PyTorch module of the same structure, names, parameters and state as ``net`` (in ``net``'s dtype).

    Raises TypeError for a module that it doesn't know.
    """
    twin = _mirror(net)
    twin.to({"float32": torch.float32, "float64": torch.float64}[str(next(net.parameters()).dtype)])
    twin.load_state_dict({name: torch.from_numpy(array) for name, array in net.state_dict().items()})
    return twin


def _mirror(module: nn.Module) -> torch_nn.Module:
    match module:
        case nn.Conv2d():
            channels = module.in_channels, module.out_channels
            geometry = module.kernel_size, module.stride, module.padding, module.dilation, module.groups
            return torch_nn.Conv2d(*channels, *geometry, bias=module.bias is not None)  # type: ignore[arg-type]
        case nn.BatchNorm2d():
            return torch_nn.BatchNorm2d(module.num_features, module.eps, module.momentum)
        case nn.Linear():
            return torch_nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
        case nn.Sequential():
            return torch_nn.Sequential(*(_mirror(child) for child in module))
        case nn.Identity():
            return torch_nn.Identity()
        case nn.MaxPool2d():
            return torch_nn.MaxPool2d(module.kernel_size, module.stride, module.padding)  # type: ignore[arg-type]
        case nn.AdaptiveAvgPool2d():
            return torch_nn.AdaptiveAvgPool2d(module.output_size)  # type: ignore[arg-type]
        case nn.Flatten():
            return torch_nn.Flatten()
        case models.SubsampleAndPad():
            return _SubsampleAndPad(module.channels, module.stride)
    for kind, forward in _FORWARDS.items():
        if type(module) is kind:
            return _Mirrored(module, forward)
    raise TypeError(f"torch_nets: no PyTorch twin for {type(module).__name__}")


class _SubsampleAndPad(torch_nn.Module):
    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride

    def forward(self, x: Any) -> Any:
        missing = self.channels - x.shape[1]
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, missing))


class _Mirrored(torch_nn.Module):
    """A module with the children of ``module`` and the forward pass that is written below for its class."""

    def __init__(self, module: nn.Module, forward: Any) -> None:
        super().__init__()
        for name, child in module.named_children():
            setattr(self, name, _mirror(child))
        self.activates = getattr(module, "activates", None)
        self._forward = forward

    def forward(self, x: Any) -> Any:
        return self._forward(self, x)


def _plain(net: Any, x: Any) -> Any:
    return functional.relu(net.bn2(net.conv2(functional.relu(net.bn1(net.conv1(x))))))


def _basic(net: Any, x: Any) -> Any:
    return functional.relu(net.bn2(net.conv2(functional.relu(net.bn1(net.conv1(x))))) + net.downsample(x))


def _bottleneck(net: Any, x: Any) -> Any:
    inner = functional.relu(net.bn2(net.conv2(functional.relu(net.bn1(net.conv1(x))))))
    return functional.relu(net.bn3(net.conv3(inner)) + net.downsample(x))


def _preactivation(net: Any, x: Any) -> Any:
    activated = x if net.activates == "nothing" else functional.relu(net.bn1(x))
    shortcut = net.downsample(x if net.activates == "residual" else activated)
    inner = net.conv2(functional.relu(net.bn2(net.conv1(activated))))
    return shortcut + (net.conv3(functional.relu(net.bn3(inner))) if hasattr(net, "conv3") else inner)


def _resnet(net: Any, x: Any) -> Any:
    x = net.maxpool(functional.relu(net.bn1(net.conv1(x))))
    return net.fc(net.flatten(net.avgpool(_stages(net, x))))


def _preactivation_resnet(net: Any, x: Any) -> Any:
    x = net.conv1(x)
    if hasattr(net, "bn1"):
        x = net.maxpool(functional.relu(net.bn1(x)))
    return net.fc(net.flatten(net.avgpool(functional.relu(net.bn_last(_stages(net, x))))))


def _stages(net: Any, x: Any) -> Any:
    for name, child in net.named_children():
        if name.startswith("layer"):
            x = child(x)
    return x


_FORWARDS: dict[type[nn.Module], Any] = {
    models.PlainBlock: _plain,
    models.BasicBlock: _basic,
    models.Bottleneck: _bottleneck,
    models.PreActivationBlock: _preactivation,
    models.PreActivationBottleneck: _preactivation,
    models.ResNet: _resnet,
    models.PreActivationResNet: _preactivation_resnet,
}
