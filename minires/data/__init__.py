"""Data sets, loaders and augmentation. Everything is NumPy arrays; nothing is downloaded or unpickled."""

from minires.data.augmentation import crop_and_flip, random_crop, random_flip
from minires.data.card import DataCard
from minires.data.cifar import load_cifar10, load_cifar100
from minires.data.dataset import Dataset, Split
from minires.data.digits import load_digits
from minires.data.loader import Loader, Transform
from minires.data.mnist import load_mnist
from minires.data.registry import load, names

__all__ = [
    "DataCard",
    "Dataset",
    "Loader",
    "Split",
    "Transform",
    "crop_and_flip",
    "load",
    "load_cifar10",
    "load_cifar100",
    "load_digits",
    "load_mnist",
    "names",
    "random_crop",
    "random_flip",
]
