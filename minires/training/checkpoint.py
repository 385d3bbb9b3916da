"""Checkpoints: a net's state and how to build it, in one safetensors file. Reading one runs no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from minires import models
from minires.data import DataCard, Dataset
from minires.display import brief_fields
from minires.nn import Module
from minires.training.writing import write_file
from minires_kernels.arrays import to_cpu
from minires_kernels.window import shown

FORMAT = "minires/2"
READABLE = ("minires/1", FORMAT)  # 1 knows nothing of the data


@dataclass(frozen=True)
class Checkpoint:
    """``model``: its name; ``options``: those of ``models.create``; ``state``: its state_dict; ``notes``: the rest.

    ``data``: what it was trained on and how the images were normalized; None where nobody said it.
    """

    model: str
    options: dict[str, Any]
    state: dict[str, Any]
    notes: dict[str, Any]
    data: DataCard | None = None

    __repr__ = brief_fields

    def build(self) -> Module:
        """The net, with its state, in evaluation mode.

        Raises ValueError when there is no such net, or the state isn't its.
        """
        try:
            _refuse_larger_than(self.state, self.model, self.options)
            net = models.create(self.model, **self.options)
            net.load_state_dict(self.state)
        except (TypeError, AttributeError, KeyError, IndexError, OverflowError, ValueError) as error:
            raise ValueError(
                f"Checkpoint.build: this is no state of models.create({self.model!r:.50}, **{self.options!r:.200}): "
                f"{error!s:.2000}"
            ) from error
        return net.eval()


def save_checkpoint(
    path: str | Path,
    net: Module,
    *,
    model: str,
    options: Mapping[str, Any],
    notes: Mapping[str, Any],
    data: Dataset | None = None,
) -> None:
    """Write ``net``'s state to ``path``. The old file is replaced only when the new one is complete, on the disk.

    ``model`` and ``options`` are what :func:`minires.models.create` needs to build it again (no rng); ``notes`` is
    anything that JSON can hold, such as the epoch; ``data``: what the net was trained on, of which the checkpoint keeps
    the name, the classes, the shape of the images and their normalization. Raises TypeError for what JSON can't hold,
    ValueError for what is nested too deeply for it and for a path that isn't a file's, OSError where it can't be
    written.
    """
    numpy_format, path = _safetensors(), _path("save_checkpoint", path)
    card = None if data is None else DataCard.of(data).to_json()
    description = {"format": FORMAT, "model": model, "options": dict(options), "notes": dict(notes), "data": card}
    try:
        text = json.dumps(description)
    except RecursionError as error:
        raise ValueError(
            "save_checkpoint: options and notes are nested too deeply for JSON; keep lists and dictionaries flatter"
        ) from error
    except (TypeError, ValueError) as error:
        raise TypeError(f"save_checkpoint: options and notes must be what JSON can hold: {error}") from error
    state = {name: to_cpu(array) for name, array in net.state_dict().items()}
    write_file(path, numpy_format.save(state, metadata={"minires": text}))


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read what :func:`save_checkpoint` wrote. Raises FileNotFoundError, or ValueError for a file that isn't one."""
    _safetensors()
    from safetensors import SafetensorError, safe_open

    path = _path("load_checkpoint", path)
    if path.is_dir():
        raise ValueError(f"load_checkpoint: {path} is a folder; name a file in it, such as {path}/best.safetensors")
    if not path.is_file():
        raise FileNotFoundError(f"load_checkpoint: there is no file {path}; `minires train` writes best.safetensors")
    try:
        with safe_open(path, framework="numpy") as file:
            description = _parsed((file.metadata() or {}).get("minires"))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        card = description.get("data")
        data = None if card is None else DataCard.from_json(card)
    except (SafetensorError, RecursionError, OverflowError, LookupError, TypeError, ValueError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"load_checkpoint: {path} isn't a MiniRes checkpoint, or is damaged ({reason}); name a file that "
            "`minires train` or save_checkpoint wrote"
        ) from error
    model, options, notes = (description[key] for key in ("model", "options", "notes"))
    return Checkpoint(model, options, state, notes, data)


def _parsed(text: str | None) -> dict[str, Any]:
    """The description of a checkpoint. Raises KeyError, TypeError, ValueError or RecursionError for any other text."""
    if text is None:
        raise ValueError("it says nothing of MiniRes")
    description = json.loads(text, object_pairs_hook=_without_duplicates)
    if description["format"] not in READABLE:
        readable = " and ".join(map(repr, READABLE))
        raise ValueError(f"its format is {description['format']!r:.50}, and this version reads {readable}")
    for key, kind in (("model", str), ("options", dict), ("notes", dict)):
        if not isinstance(description[key], kind):
            raise TypeError(f"its {key} must be a {kind.__name__}, got {description[key]!r:.50}")
    return description  # type: ignore[no-any-return]


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError(f"a name stands twice among {[name for name, _ in pairs]!r:.100}")
    return result


def _refuse_larger_than(state: Mapping[str, Any], model: str, options: Mapping[str, Any]) -> None:
    """Raise ValueError for a net that is plainly larger than ``state``, before there is memory for it.

    Each layer has an array of its own; each unit a 3x3 convolution from its stage's width to that width; the first
    convolution a weight for each channel of the images and of the first stage; each class one for each of the last.
    """
    elements = sum(array.size for array in state.values())
    digits = model[len(model.rstrip("0123456789")) :]
    depth = int(digits) if 0 < len(digits) <= len(str(len(state))) else 0
    units = 1 if depth in models.IMAGENET_UNITS else max(1, (depth - 2) // 9)
    widths = options.get("widths") or (16,)  # the fewest of any net
    needed = max(
        9 * units * sum(width * width for width in widths),
        widths[0] * options.get("in_channels", 3),
        widths[-1] * (options.get("num_classes") or 10),
    )
    if not 0 < depth <= len(state) or needed > elements:
        raise ValueError(f"it would be larger than the {elements} numbers in {len(state)} arrays that are there")


def _path(op: str, path: Any) -> Path:
    if not isinstance(path, (str, PathLike)):
        raise TypeError(f"{op}: path must be a text or a pathlib.Path, got {shown(path)}")
    return Path(path)


def _safetensors() -> Any:
    try:
        from safetensors import numpy as numpy_format
    except ImportError as missing:
        raise ImportError("checkpoints need safetensors: pip install safetensors") from missing
    return numpy_format
