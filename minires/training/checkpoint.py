"""Checkpoints: a net's state and how to build it, in one safetensors file. Reading one runs no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minires import models
from minires.display import brief_fields
from minires.nn import Module
from minires_kernels.arrays import to_cpu

FORMAT = "minires/1"


@dataclass(frozen=True)
class Checkpoint:
    """``model``: its name; ``options``: those of ``models.create``; ``state``: its state_dict; ``notes``: the rest."""

    model: str
    options: dict[str, Any]
    state: dict[str, Any]
    notes: dict[str, Any]

    __repr__ = brief_fields

    def build(self) -> Module:
        """The net, with its state, in evaluation mode."""
        net = models.create(self.model, **self.options)
        net.load_state_dict(self.state)
        return net.eval()


def save_checkpoint(
    path: str | Path, net: Module, *, model: str, options: Mapping[str, Any], notes: Mapping[str, Any]
) -> None:
    """Write ``net``'s state to ``path``. The old file is replaced only when the new one is complete.

    ``model`` and ``options`` are what :func:`minires.models.create` needs to build it again (no rng); ``notes`` is
    anything that JSON can hold, such as the epoch.
    """
    numpy_format = _safetensors()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    description = {"format": FORMAT, "model": model, "options": dict(options), "notes": dict(notes)}
    state = {name: to_cpu(array) for name, array in net.state_dict().items()}
    numpy_format.save_file(state, unfinished, metadata={"minires": json.dumps(description)})
    unfinished.replace(path)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read what :func:`save_checkpoint` wrote. Raises FileNotFoundError, or ValueError for a file that isn't one."""
    _safetensors()
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"load_checkpoint: there is no file {path}; `minires train` writes best.safetensors")
    try:
        with safe_open(path, framework="numpy") as file:
            description = json.loads((file.metadata() or {})["minires"])
            if description["format"] != FORMAT:
                raise ValueError(f"its format is {description['format']!r}, and this version reads {FORMAT!r}")
            model, options, notes = (description[key] for key in ("model", "options", "notes"))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"load_checkpoint: {path} isn't a MiniRes checkpoint, or is damaged ({error})") from error
    return Checkpoint(model, options, state, notes)


def _safetensors() -> Any:
    try:
        from safetensors import numpy as numpy_format
    except ImportError as missing:
        raise ImportError("checkpoints need safetensors: pip install safetensors") from missing
    return numpy_format
