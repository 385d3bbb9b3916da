"""Stochastic gradient descent with momentum and weight decay, as both residual-net papers train."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

from minires.arguments import require_flag, require_number
from minires.function import origin_of_call
from minires.tensor import Parameter, Tensor
from minires_kernels import update
from minires_kernels.arrays import Array, array_module, on_device

Form = Literal["torch", "caffe"]
_SHOWN = 4
"""How many groups stand in an optimizer's repr."""
_NUMBERS = ("lr", "momentum", "weight_decay")


class SGD:
    """Gradient descent with momentum, L2 weight decay and, if asked, Nesterov's look-ahead.

    ``parameters``: Parameters, or groups of them: dictionaries with the key ``"parameters"`` and any of ``lr``,
    ``momentum``, ``weight_decay``, ``nesterov`` to override the defaults for that group (as in no decay for batch norm:
    see :func:`decay_groups`). The groups are in ``self.groups``, where a schedule changes ``lr``.

    ``form`` "torch": v := momentum v + g, parameter -= lr v. "caffe", the papers' framework: v := momentum v + lr g,
    parameter -= v. They differ only when lr changes. g = grad + weight_decay * parameter. The formulas with nesterov
    are in :mod:`minires_kernels.update`.

    Raises ValueError for negative settings, an unknown form, nesterov without momentum, no parameters at all, or a
    parameter that comes twice; TypeError for anything that isn't a Parameter.
    """

    def __init__(
        self,
        parameters: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        *,
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        form: Form = "torch",
    ) -> None:
        if form not in ("torch", "caffe"):
            raise ValueError(f"SGD: form must be 'torch' or 'caffe', got {form!r}")
        self.form = form
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov}
        if not isinstance(parameters, Iterable) or isinstance(parameters, Tensor):
            raise TypeError(
                f"SGD: expected Parameters or groups of them, got {type(parameters).__name__}; pass a list, as "
                "module.parameters() gives it"
            )
        items: list[Any] = list(parameters)
        given = items if items and isinstance(items[0], Mapping) else [{"parameters": items}]
        self.groups: list[dict[str, Any]] = [_checked_group(group, defaults) for group in given]
        every = [parameter for group in self.groups for parameter in group["parameters"]]
        if not every:
            raise ValueError(
                "SGD: got no parameters; pass module.parameters() or groups of them (a generator gives them once: "
                "call it anew)"
            )
        if len({id(parameter) for parameter in every}) != len(every):
            raise ValueError("SGD: a parameter appears twice; each belongs to one group, once")
        self._velocities: dict[Parameter, Array] = {}

    def __repr__(self) -> str:
        shown = [_group_text(group) for group in self.groups[:_SHOWN]]
        more = [f"{len(self.groups) - _SHOWN} more groups"] if len(self.groups) > _SHOWN else []
        return f"SGD({'; '.join([*shown, *more])}, form={self.form!r})"

    def step(self) -> None:
        """Move every parameter that has a gradient, in place. The first step starts from velocity 0.

        A velocity follows its parameter to another dtype or device. Raises ValueError or TypeError, before any
        parameter has moved, when a gradient or a velocity doesn't have its parameter's shape or dtype, and when a
        parameter can't be written.
        """
        origin = origin_of_call()
        moves = [move for index, group in enumerate(self.groups) for move in self._moves(index, group)]
        for parameter, velocity, move in moves:
            if velocity is not None:
                self._velocities[parameter] = velocity
            move()
            parameter.changed(origin)

    def _moves(
        self, index: int, group: Mapping[str, Any]
    ) -> Iterator[tuple[Parameter, Array | None, Callable[[], None]]]:
        """(parameter, velocity, what moves it) of each update that ``step`` does in this group, each checked."""
        checked = _checked_settings(group)  # a schedule, or somebody by hand, may have changed them
        momentum = checked["momentum"]
        settings = checked["lr"], momentum, checked["weight_decay"], checked["nesterov"], self.form == "caffe"
        for place, parameter in enumerate(group["parameters"]):
            if parameter.grad is None:
                continue
            velocity = self._velocity(parameter) if momentum else None
            try:
                move = update.prepared(parameter.data, parameter.grad, velocity, *settings)
            except (TypeError, ValueError) as misfit:
                raise type(misfit)(
                    f"SGD: parameter {place} of group {index} can't be moved, so none was: {misfit}; "
                    f"{_cure(parameter.data, parameter.grad, velocity)}"
                ) from None
            yield parameter, velocity, move

    def _velocity(self, parameter: Parameter) -> Array:
        """Its velocity, where the parameter is and of its dtype: a net may be converted between two steps."""
        velocity, data = self._velocities.get(parameter), parameter.data
        if velocity is None:
            return array_module(data).zeros_like(data)
        if type(velocity) is type(data) and velocity.dtype is data.dtype:
            return velocity
        return on_device(velocity, parameter.device).astype(parameter.dtype, copy=False)

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for group in self.groups:
            for parameter in group["parameters"]:
                parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """``velocities``: position -> array (copies), ``groups``: their settings, and ``form``; for checkpoints."""
        every = [parameter for group in self.groups for parameter in group["parameters"]]
        velocities = {i: self._velocities[p].copy() for i, p in enumerate(every) if p in self._velocities}
        settings = [{name: value for name, value in group.items() if name != "parameters"} for group in self.groups]
        return {"velocities": velocities, "groups": settings, "form": self.form}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave. Raises ValueError, before any change, when it doesn't fit."""
        if not isinstance(state, Mapping) or not {"velocities", "groups", "form"} <= set(state):
            given = ", ".join(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
            raise ValueError(f"SGD: a state has velocities, groups and form, as state_dict gives them; got {given}")
        every = [parameter for group in self.groups for parameter in group["parameters"]]
        if len(state["groups"]) != len(self.groups):
            raise ValueError(f"SGD: the state has {len(state['groups'])} groups, this optimizer {len(self.groups)}")
        if state["form"] != self.form:
            raise ValueError(
                f"SGD: the state is of form {state['form']!r}, this optimizer {self.form!r}: a velocity means another "
                "thing in each"
            )
        for group, settings in zip(self.groups, state["groups"], strict=True):
            own = [name for name in group if name != "parameters"]
            if set(settings) != set(own):
                raise ValueError(
                    f"SGD: a group of the state has {', '.join(settings)}; of this optimizer {', '.join(own)}"
                )
            _checked_settings(settings)
        for position, velocity in state["velocities"].items():
            fits = 0 <= int(position) < len(every)
            if not fits or (velocity.shape, velocity.dtype) != (every[int(position)].shape, every[int(position)].dtype):
                target = f"{every[int(position)].shape} {every[int(position)].dtype}" if fits else "not there"
                raise ValueError(
                    f"SGD: velocity {position} is {velocity.shape} {velocity.dtype}, its parameter {target}"
                )
        self._velocities = {every[int(i)]: velocity.copy() for i, velocity in state["velocities"].items()}
        for group, settings in zip(self.groups, state["groups"], strict=True):
            group.update(settings)


def decay_groups(named_parameters: Iterable[tuple[str, Parameter]], weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for :class:`SGD`: weights (two axes and more) with ``weight_decay``; gamma, beta and biases without.

    The papers don't say what they decay; their authors' later code decays the weights only (Goyal et al. 2017).
    """
    weights: list[Parameter] = []
    others: list[Parameter] = []
    for _, parameter in named_parameters:
        (weights if parameter.ndim >= 2 else others).append(parameter)
    return [{"parameters": weights, "weight_decay": weight_decay}, {"parameters": others, "weight_decay": 0.0}]


def _group_text(group: Mapping[str, Any]) -> str:
    count = sum(parameter.size for parameter in group["parameters"])
    settings = ", ".join(f"{name}={value}" for name, value in group.items() if name != "parameters")
    return f"{len(group['parameters'])} parameters of {count:,} numbers, {settings}"


def _cure(parameter: Array, grad: Array, velocity: Array | None) -> str:
    if velocity is not None and velocity.shape != parameter.shape:
        return "its data was replaced since the last step; make a new SGD for the net's parameters"
    if (grad.shape, grad.dtype) != (parameter.shape, parameter.dtype):
        return "its gradient isn't of its data; call zero_grad(), then backward again"
    return "replace the array: parameter.data = parameter.data.copy()"


def _checked_group(group: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(group, Mapping):
        raise TypeError(f"SGD: expected groups, which are dictionaries, got {type(group).__name__} among them")
    unknown = set(group) - {"parameters", *defaults}
    if unknown or "parameters" not in group:
        cure = "; PyTorch's 'params' is called 'parameters' here" if "params" in unknown else ""
        raise ValueError(f"SGD: a group has 'parameters' and any of {', '.join(defaults)}, got "
                         f"{', '.join(map(str, group))}{cure}")  # fmt: skip
    return {**_checked_settings({**defaults, **group}), "parameters": _checked_parameters(group["parameters"])}


def _checked_settings(group: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a group, as Python's numbers: NumPy's would widen float32 arrays."""
    settings: dict[str, Any] = {name: require_number("SGD", name, group[name], least=0) for name in _NUMBERS}
    require_flag("SGD", "nesterov", group["nesterov"])
    if group["nesterov"] and not settings["momentum"]:
        raise ValueError("SGD: nesterov needs momentum > 0")
    return {**settings, "nesterov": bool(group["nesterov"])}


def _checked_parameters(parameters: Any) -> list[Parameter]:
    if not isinstance(parameters, Iterable) or isinstance(parameters, Tensor):
        raise TypeError(f"SGD: a group's parameters are a list, got {type(parameters).__name__}; write [parameter]")
    every = list(parameters)
    if not every and isinstance(parameters, Iterator):
        raise ValueError(
            "SGD: a group's parameters come from a generator that gives none: one that was used before is empty; pass "
            "a list, or call module.parameters() anew"
        )
    for parameter in every:
        if not isinstance(parameter, Parameter):
            raise TypeError(f"SGD: expected Parameters, got {type(parameter).__name__}; pass module.parameters()")
    return every
