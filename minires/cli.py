"""The command line, thin: it parses, calls, prints. ``minires --help`` lists the commands."""

from __future__ import annotations

import io
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from minires.data import Dataset, Loader
    from minires.training import Epoch, Trainer


def _models(incomplete: str) -> list[str]:
    from minires import models

    return [name for name in models.names() if name.startswith(incomplete)]


def _data_sets(incomplete: str) -> list[str]:
    from minires import data

    return [name for name in data.names() if name.startswith(incomplete)]


app = typer.Typer(
    help="MiniRes: a from-scratch deep-learning engine for understanding residual networks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

ModelName = Annotated[str, typer.Argument(help="such as resnet20 or preact_resnet110", autocompletion=_models)]
DATA_HELP = "digits (embedded), mnist, cifar10 or cifar100"
ImageShape = Annotated[str | None, typer.Option(help="channels, height, width; default: 3,32,32 or 3,224,224")]
DataRoot = Annotated[Path | None, typer.Option("--root", help="folder that holds the data set's own folder")]


def main() -> None:
    """Run the command line. A mistake of the user's ends in one sentence and exit status 2, not in a traceback.

    Ctrl-C ends in status 130, SIGTERM in 143, as a shell would say it.
    """
    from minires.training import DivergenceError

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a × or a ‖ that a terminal can't show is no reason to stop
    former = signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except OSError as error:
        _stop(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except MemoryError as error:
        _stop(f"there is too little memory. {error}".strip())
    except (ValueError, TypeError, ImportError, DivergenceError) as error:
        _stop(str(error))
    finally:
        signal.signal(signal.SIGTERM, former)


def _print_version(wanted: bool) -> None:
    if wanted:
        import minires

        print(f"minires {minires.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_print_version,
                                          help="Print the version and exit.")] = False,
) -> None:  # fmt: skip
    pass


@app.command()
def demo(
    folder: Annotated[Path | None, typer.Option(help="new or empty; default: runs/demo-1, -2 ...")] = None,
    epochs: Annotated[int, typer.Option(min=2, help="epochs for each net")] = 20,
) -> None:
    """Train plain and residual nets on real digits: the degradation problem and its cure, in a few minutes."""
    from minires.training.demo import EPOCHS, run_demo, shortfalls

    missed = shortfalls(run_demo(folder, epochs=epochs))
    if missed and epochs >= EPOCHS:
        typer.echo("not as expected: " + "; ".join(missed), err=True)
        raise typer.Exit(1)


@app.command()
def train(
    model: ModelName,
    data: Annotated[str, typer.Option(help=DATA_HELP, autocompletion=_data_sets)] = "digits",
    root: DataRoot = None,
    folder: Annotated[Path | None, typer.Option(help="new or empty; default: runs/train/MODEL-DATA-1, -2 ...")] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 20,
    batch_size: Annotated[int, typer.Option(min=1)] = 100,
    lr: Annotated[float, typer.Option(help="divided by 10 at the milestones")] = 0.1,
    milestone: Annotated[
        list[int] | None, typer.Option(min=1, help="an epoch; may be repeated; default: 60 % of all")
    ] = None,
    warmup_steps: Annotated[int, typer.Option(min=0, help="steps at a tenth of the lr before it begins")] = 0,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    nesterov: bool = False,
    shortcut: Annotated[str | None, typer.Option(help="A, B or C")] = None,
    widths: Annotated[str | None, typer.Option(help="channels of each stage, such as 8,16,32")] = None,
    augment: Annotated[bool, typer.Option(help="pad 4, random crop, random flip")] = False,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Train a net, with a log (log.csv) and checkpoints (last.safetensors, best.safetensors) in a folder of its own."""
    import numpy as np

    from minires import data as data_sets
    from minires import models, optim
    from minires.training import Trainer, run_folder

    images = data_sets.load(data, root)
    options: dict[str, Any] = {"in_channels": images.image_shape[0], "num_classes": len(images.classes)}
    options |= {"shortcut": shortcut} if shortcut is not None else {}
    options |= {"widths": _integers(widths, "widths")} if widths is not None else {}
    rng = np.random.default_rng(seed)
    net = models.create(model, rng=rng, **options)
    transform = data_sets.crop_and_flip if augment else None
    loader = data_sets.Loader(images.train, batch_size, rng=rng, transform=transform)
    groups = optim.decay_groups(net.named_parameters(), weight_decay)
    optimizer = optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)
    milestones = [epoch * len(loader) for epoch in _milestones(milestone, epochs)]
    if warmup_steps >= [*milestones, epochs * len(loader)][0]:
        raise ValueError(f"warmup-steps: {warmup_steps} steps leave none at the full lr; an epoch has {len(loader)}")
    schedule = optim.MultiStepLR(optimizer, milestones, warmup_steps=warmup_steps, warmup_lr=lr / 10)
    with run_folder(folder, Path("runs/train") / f"{model}-{data}") as own:
        trainer = Trainer(net, optimizer, schedule=schedule, log=own / "log.csv")
        _fit(trainer, loader, epochs, images, own, {"model": model, "options": options, "data": images})


def _fit(
    trainer: Trainer, loader: Loader, epochs: int, images: Dataset, folder: Path, description: dict[str, Any]
) -> None:
    """Train, save the last and the best epoch in ``folder``, and say, however it ends, what is there."""
    from minires.training import progress, save_checkpoint

    saved: dict[str, int] = {}

    def keep(epoch: Epoch, is_best: bool) -> None:
        notes = {"epoch": epoch.epoch, "test_error": epoch.test_error}
        for name in ("last.safetensors", "best.safetensors") if is_best else ("last.safetensors",):
            save_checkpoint(folder / name, trainer.net, notes=notes, **description)
            saved[name] = epoch.epoch

    trainer.after_epoch = keep
    try:
        with progress(description["model"], epochs) as trainer.progress:
            trainer.fit(loader, epochs, test=images.test)
    except BaseException:
        typer.echo(f"stopped before epoch {epochs} was complete; {_written(folder, saved)}", err=True)
        raise
    print(_written(folder, saved))


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="a file that `minires train` wrote")],
    data: Annotated[
        str | None, typer.Option(help=f"{DATA_HELP}; default: what it was trained on", autocompletion=_data_sets)
    ] = None,
    root: DataRoot = None,
) -> None:
    """Print a checkpoint's loss, top-1 and top-5 error on the test images of the data that it was trained on."""
    from minires import data as data_sets
    from minires.training import evaluate as evaluate_net
    from minires.training import load_checkpoint

    saved = load_checkpoint(checkpoint)
    trained_on = saved.data.name if saved.data else saved.notes.get("data")
    if data is None and not isinstance(trained_on, str):
        raise ValueError(f"{checkpoint} doesn't say what it was trained on; name it with --data")
    images = data_sets.load(data or str(trained_on), root)
    if saved.data is not None:
        images = saved.data.normalize(images)
        if images.name != trained_on:
            typer.echo(f"trained on {trained_on}; {images.name} is other data, normalized alike", err=True)
    elif trained_on not in (None, images.name) or saved.options.get("num_classes") != len(images.classes):
        raise ValueError(f"{checkpoint} was trained on {trained_on or 'other classes'}, not on {images.name}")
    else:
        typer.echo(f"{checkpoint} doesn't say how its images were normalized; assumed: by the training images' mean "
                   f"and deviation, as those of {images.name} are here", err=True)  # fmt: skip
    loss, error, error5 = evaluate_net(saved.build(), images.test)
    print(f"{images.name}, {len(images.test)} test images: loss {loss:.4f}   top-1 error {error:.2f} %   "
          f"top-5 error {error5:.2f} %")  # fmt: skip


@app.command()
def summary(
    model: ModelName,
    image: ImageShape = None,
) -> None:
    """Print each layer: name, kind, shapes, parameters, multiply-adds. If one fails: those before it, and the error."""
    from minires import models
    from minires.inspection import summary as summarize

    shape = _image_shape(model, image)
    result = summarize(models.create(model, in_channels=shape[0]), shape)
    print(result)
    if result.error is not None:
        raise typer.Exit(1)


@app.command()
def warmup(
    model: ModelName = "resnet20",
    image: ImageShape = None,
    batch: Annotated[int | None, typer.Option(min=1, help="default: 128, or 8 for images above 64x64")] = None,
) -> None:
    """Compile what a training step of MODEL needs, so that the first one takes no longer than the others."""
    from minires import models
    from minires.training import progress, warm_up

    shape = _image_shape(model, image)
    net = models.create(model, in_channels=shape[0])
    with progress(model, epochs=1) as shown:
        result = warm_up(net, shape, batch or (8 if shape[1] * shape[2] > 64 * 64 else 128), progress=shown)
    print(result)


@app.command()
def doctor() -> None:
    """Say what is installed, what is missing, and the exact command that mends it."""
    from minires.doctor import examine

    for finding in examine():
        print(f"{finding.subject:14} {finding.found}" + (f"\n{'':14} -> {finding.cure}" if finding.cure else ""))


@app.command(context_settings={"ignore_unknown_options": True})
def mutate(
    tests: Annotated[list[str] | None, typer.Argument(help="pytest's arguments, such as tests/; none: our own")] = None,
    only: Annotated[list[str] | None, typer.Option(help="a mistake's name; may be repeated; default: all")] = None,
) -> None:
    """Score a test suite: plant one wrong backward pass after the other and see which of them it notices."""
    from minires.checking.mutants import MUTANTS
    from minires.checking.mutation import compare
    from minires.checking.suite import score_suite

    if tests:
        result = score_suite(tests, only or MUTANTS)
        print(result)
    else:
        result = compare(only or MUTANTS)
    raise typer.Exit(int(bool(result.survived)))


def _image_shape(model: str, image: str | None) -> list[int]:
    """(C, H, W) from the option ``--image``, or those for which the model's family was made."""
    if image is None:
        from minires import models

        depth = model[len(model.rstrip("0123456789")) :]
        return [3, 224, 224] if depth in map(str, models.IMAGENET_UNITS) else [3, 32, 32]
    shape = _integers(image, "image")
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"image must be channels,height,width, each at least 1, got {image!r}")
    return shape


def _integers(text: str, option: str) -> list[int]:
    numbers = []
    for part in text.split(","):
        try:
            numbers.append(int(part))
        except ValueError:
            raise ValueError(f"{option}: expected integers separated by commas, got {part!r}") from None
    return numbers


def _milestones(given: list[int] | None, epochs: int) -> list[int]:
    """After which epochs the lr falls: those that were given, or one after 60 % of all."""
    if not given:
        return [epochs * 6 // 10] if epochs > 1 else []
    if given != sorted(set(given)):
        raise ValueError(f"milestone: each must be later than the one before it, got {', '.join(map(str, given))}")
    if given[-1] >= epochs:
        raise ValueError(f"milestone: {given[-1]} is never passed in {epochs} epochs; choose at most {epochs - 1}")
    return given


def _written(folder: Path, saved: dict[str, int]) -> str:
    """What a training has written so far: the files, and of which epoch each is."""
    if not saved:
        return "no epoch was saved"
    files = "".join(f", {name} (epoch {epoch})" for name, epoch in saved.items())
    return f"written to {folder}: log.csv{files}"


def _terminate(signal_number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + signal_number)


def _stop(message: str) -> NoReturn:
    typer.echo(f"minires: {message}", err=True)
    raise SystemExit(2)
