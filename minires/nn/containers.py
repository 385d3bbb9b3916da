"""Modules that hold modules or parameters in order or by name, as in PyTorch.

A plain list, tuple or dictionary of a module's does the same and gives the same names; these can also be called
(Sequential), refuse what doesn't belong in them when it is put there, and are modules themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, MutableSequence
from typing import Any, TypeVar

from minires.nn.module import Module
from minires.tensor import Parameter
from minires_kernels.window import is_integer, shown

Item = TypeVar("Item")


class _Held(Module):
    """What the containers share: items of one type, listed and reached as attributes under names of their own."""

    _accepts: type = Module
    _items: dict[str, Any]

    def _attributes(self) -> Iterator[tuple[str, Any]]:
        yield from ((name, value) for name, value in super()._attributes() if name != "_items")
        yield from self._items.items()

    def __getattr__(self, name: str) -> Any:
        """The item of that name, for code that follows a path with ``getattr``."""
        items = self.__dict__.get("_items", {})
        if name in items:
            return items[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__.get("_items", ()):
            self._items[name] = self._accepted(name, value)
        else:
            super().__setattr__(name, value)

    def _accepted(self, name: Any, item: Any) -> Any:
        if isinstance(item, self._accepts):
            return item
        cure = f"; unpack it: {type(self).__name__}(*items)" if isinstance(item, (list, tuple)) else ""
        raise TypeError(
            f"{type(self).__name__}: item {name} must be a {self._accepts.__name__}, got {type(item).__name__}{cure}"
        )

    def forward(self, *inputs: Any) -> Any:
        """Not for calling: raises TypeError. Call the items, in the order that you want."""
        raise TypeError(
            f"{type(self).__name__} only holds its items, it has no forward pass; call them one by one, or use "
            "nn.Sequential"
        )


class _List(_Held, MutableSequence[Item]):
    """A list of items named ``0``, ``1``, ...; a slice is a new one of the same items."""

    def __init__(self, items: Iterable[Item] = ()) -> None:
        self._items = {}
        self.extend(items)

    def _part(self, items: list[Any]) -> Any:
        raise TypeError(f"{type(self).__name__} must define _part")

    def _set(self, items: list[Any]) -> None:
        self._items = {str(i): self._accepted(i, item) for i, item in enumerate(items)}

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items.values())

    def __getitem__(self, position: int | slice) -> Any:
        name, count = type(self).__name__, len(self)
        if not isinstance(position, slice) and not is_integer(position):
            raise TypeError(f"{name}: a position is an integer or a slice, got {shown(position)}")
        try:
            chosen = list(self)[position]
        except IndexError:
            raise IndexError(f"{name}: there is no item {position}; it has {count} item{'s' * (count != 1)}") from None
        if not isinstance(position, slice):
            return chosen
        part = self._part(chosen)  # type: ignore[arg-type]
        part.training = self.training
        return part

    def __setitem__(self, position: int | slice, value: Any) -> None:
        items = list(self)
        items[position] = value
        self._set(items)

    def __delitem__(self, position: int | slice) -> None:
        items = list(self)
        del items[position]
        self._set(items)

    def __add__(self, other: Iterable[Item]) -> Any:
        return self._part([*self, *other])

    def insert(self, index: int, value: Item) -> None:
        """Put ``value`` before the item at ``index``."""
        items = list(self)
        items.insert(index, value)
        self._set(items)

    def extend(self, values: Iterable[Item]) -> None:
        """Append all ``values``, or none of them if one is refused."""
        if not isinstance(values, Iterable):
            name, kind = type(self).__name__, self._accepts.__name__
            raise TypeError(f"{name}: expected a list of {kind}s, got a {type(values).__name__}; write {name}([...])")
        self._set([*self, *values])

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """Where ``value`` itself is. Raises ValueError if it isn't in the list."""
        for position, item in list(enumerate(self))[start:stop]:
            if item is value:
                return position
        raise ValueError(f"{type(self).__name__}: {type(value).__name__} isn't one of its items")

    def __contains__(self, value: object) -> bool:
        return any(item is value for item in self)  # `==` compares parameters number by number


class ModuleList(_List[Module]):
    """Modules in a list, to be called one by one: ``nn.ModuleList([block, block])``.

    A list in all it can do: append, extend, insert, pop, slices. Raises TypeError for an item that isn't a Module.

    >>> net.blocks = nn.ModuleList(nn.Linear(4, 4, rng=rng) for _ in range(3))  # blocks.0.weight, blocks.1.weight, ...
    """

    def _part(self, items: list[Module]) -> ModuleList:
        return ModuleList(items)


class ParameterList(_List[Parameter]):
    """Parameters in a list: ``nn.ParameterList([minires.Parameter(array)])``, named ``0``, ``1``, ...

    A list in all it can do. Raises TypeError for an item that isn't a Parameter.

    >>> net.scales = nn.ParameterList(minires.Parameter([1.0]) for _ in range(3))  # scales.0, scales.1, scales.2
    """

    _accepts = Parameter

    def _part(self, items: list[Parameter]) -> ParameterList:
        return ParameterList(items)

    def configuration(self) -> str:
        """The shapes of its parameters."""
        return ", ".join(str(parameter.shape) for parameter in self)


class Sequential(_List[Module]):
    """Modules called one after the other, named ``0``, ``1``, ...; a list in all it can do.

    A slice is a Sequential of the same modules: ``net[:-1]`` is ``net`` without its head. Raises TypeError for an item
    that isn't a Module.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, rng=rng))
    """

    def __init__(self, *modules: Module) -> None:
        super().__init__(modules)

    def _part(self, items: list[Module]) -> Sequential:
        return Sequential(*items)

    def forward(self, x: Any) -> Any:
        """The last module's output."""
        for module in self._items.values():
            x = module(x)
        return x


class ModuleDict(_Held, MutableMapping[str, Module]):
    """Modules by name: ``nn.ModuleDict({"left": Branch(), "right": Branch()})``, in the order of insertion.

    A dictionary in all it can do. Raises TypeError for a name that isn't a string and an item that isn't a Module,
    ValueError for a name with a dot, which paths are made with.

    >>> net.heads = nn.ModuleDict({"digits": nn.Linear(64, 10, rng=rng)})  # heads.digits.weight, heads.digits.bias
    """

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] = ()) -> None:
        self._items = {}
        self.update(modules)

    def __getitem__(self, name: str) -> Module:
        module: Module = self._items[name]
        return module

    def __setitem__(self, name: str, module: Module) -> None:
        if not isinstance(name, str):
            raise TypeError(f"ModuleDict: a name must be a string, got {name!r}")
        if not name or "." in name:
            raise ValueError(f"ModuleDict: a name must not be empty or have a dot, got {name!r}")
        self._items[name] = self._accepted(name, module)

    def __delitem__(self, name: str) -> None:
        del self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    # a module is equal to itself alone, unlike a Mapping
    __eq__ = object.__eq__
    __hash__ = object.__hash__
