"""Training: the loop, its log, checkpoints, errors, plots, and the demonstration."""

from minires.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from minires.training.metrics import top_k_errors
from minires.training.progress import progress
from minires.training.trainer import DivergenceError, Epoch, Trainer, evaluate
from minires.training.warmup import WarmUp, warm_up
from minires.training.writing import run_folder, write_file

__all__ = [
    "Checkpoint",
    "DivergenceError",
    "Epoch",
    "Trainer",
    "WarmUp",
    "evaluate",
    "load_checkpoint",
    "progress",
    "run_folder",
    "save_checkpoint",
    "top_k_errors",
    "warm_up",
    "write_file",
]
