"""The command line, thin: it parses, calls, prints. ``minires --help`` lists the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

app = typer.Typer(
    help="MiniRes: a from-scratch deep-learning engine for understanding residual networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DataName = Annotated[str, typer.Option("--data", help="digits (embedded), mnist, cifar10 or cifar100")]
ImageShape = Annotated[str | None, typer.Option(help="channels, height, width; default: 3,32,32 or 3,224,224")]
DataRoot = Annotated[Path | None, typer.Option("--root", help="folder that holds the data set's own folder")]


def main() -> None:
    """Run the command line. A mistake of the user's ends in one sentence and exit status 2, not in a traceback."""
    from minires.training import DivergenceError

    try:
        app()
    except (ValueError, TypeError, FileNotFoundError, ImportError, DivergenceError) as error:
        _stop(str(error))


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="where the results go")] = Path("runs/demo"),
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
    model: Annotated[str, typer.Argument(help="such as resnet20, plain56 or preact_resnet110")],
    data: DataName = "digits",
    root: DataRoot = None,
    folder: Annotated[Path, typer.Option(help="where the log and the checkpoints go")] = Path("runs/train"),
    epochs: Annotated[int, typer.Option(min=1)] = 20,
    batch_size: Annotated[int, typer.Option(min=1)] = 100,
    lr: Annotated[float, typer.Option(help="divided by 10 at the milestones")] = 0.1,
    milestone: Annotated[list[int] | None, typer.Option(help="an epoch; may be repeated; default: 60 % of all")] = None,
    warmup_steps: Annotated[int, typer.Option(min=0, help="steps at a tenth of the lr before it begins")] = 0,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    nesterov: bool = False,
    shortcut: Annotated[str | None, typer.Option(help="A, B or C")] = None,
    widths: Annotated[str | None, typer.Option(help="channels of each stage, such as 8,16,32")] = None,
    augment: Annotated[bool, typer.Option(help="pad 4, random crop, random flip")] = False,
    seed: int = 0,
) -> None:
    """Train a net, with a log (log.csv) and checkpoints (last.safetensors, best.safetensors) in FOLDER."""
    import numpy as np

    from minires import data as data_sets
    from minires import models, optim
    from minires.training import Epoch, Trainer, progress, save_checkpoint

    images = data_sets.load(data, root)
    options: dict[str, Any] = {"in_channels": images.image_shape[0], "num_classes": len(images.classes)}
    options |= {"shortcut": shortcut} if shortcut else {}
    options |= {"widths": [_integer(width, "widths") for width in widths.split(",")]} if widths else {}
    rng = np.random.default_rng(seed)
    net = models.create(model, rng=rng, **options)
    transform = data_sets.crop_and_flip if augment else None
    loader = data_sets.Loader(images.train, batch_size, rng=rng, transform=transform)
    groups = optim.decay_groups(net.named_parameters(), weight_decay)
    optimizer = optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)
    milestones = [epoch * len(loader) for epoch in milestone or [max(1, epochs * 6 // 10)]]
    schedule = optim.MultiStepLR(optimizer, milestones, warmup_steps=warmup_steps, warmup_lr=lr / 10)

    def keep(epoch: Epoch, is_best: bool) -> None:
        for name in ("last", "best") if is_best else ("last",):
            notes = {"data": data, "epoch": epoch.epoch, "test_error": epoch.test_error}
            save_checkpoint(folder / f"{name}.safetensors", net, model=model, options=options, notes=notes)

    with progress(model, epochs) as shown:
        trainer = Trainer(net, optimizer, schedule=schedule, log=folder / "log.csv", progress=shown, after_epoch=keep)
        try:
            trainer.fit(loader, epochs, test=images.test)
        except KeyboardInterrupt:
            typer.echo(f"stopped after {len(trainer.history)} of {epochs} epochs", err=True)
    if not trainer.history:
        raise typer.Exit(1)
    print(f"{trainer.history[-1]}\nwritten to {folder}: log.csv, last.safetensors, best.safetensors")


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="a file that `minires train` wrote")],
    data: DataName = "digits",
    root: DataRoot = None,
) -> None:
    """Print a checkpoint's loss, top-1 and top-5 error on the test images."""
    from minires import data as data_sets
    from minires.training import evaluate as evaluate_net
    from minires.training import load_checkpoint

    loss, error, error5 = evaluate_net(load_checkpoint(checkpoint).build(), data_sets.load(data, root).test)
    print(f"loss {loss:.4f}   top-1 error {error:.2f} %   top-5 error {error5:.2f} %")


@app.command()
def summary(
    model: Annotated[str, typer.Argument(help="such as resnet20 or preact_resnet110")],
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
    model: Annotated[str, typer.Argument(help="such as resnet20 or preact_resnet110")] = "resnet20",
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
    shape = [_integer(length, "image") for length in image.split(",")]
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"image must be channels,height,width, each at least 1, got {image!r}")
    return shape


def _integer(text: str, option: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{option}: expected integers separated by commas, got {text!r}") from None


def _stop(message: str) -> NoReturn:
    typer.echo(f"minires: {message}", err=True)
    raise SystemExit(2)
