"""Classes whose objects are values: messages, what was announced, what was found.

Rules: a value is never changed. The type checker holds that; at run time Python's own freezing is too dear: to make an
object of eight fields takes 3.3 us frozen and 1.3 us so, and a small file costs about eight objects at each end and
less than 200 us of CPU in all (Python 3.11, all three on the same busy machine).

`dataclass` would make the same classes, and takes 0.8 ms for each: the twenty that a client needs before it says hello
take 14 ms so, and 3 ms as they are made here, of 170 ms for its whole start.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform

_Class = TypeVar("_Class")
_Value = TypeVar("_Value")


@dataclass_transform(frozen_default=True)
def value(made: type[_Class]) -> type[_Class]:
    """A class with slots for the fields that it declares, compared and hashed by them; frozen as far as types go."""
    fields = tuple(made.__annotations__)
    own = dict(vars(made))
    defaults = {name: own.pop(name) for name in fields if name in own}
    for name in ("__dict__", "__weakref__"):
        own.pop(name, None)
    content: Callable[[Any], Any] = attrgetter(*fields) if fields else _nothing

    def equal(self: Any, other: object) -> bool:
        return content(self) == content(other) if other.__class__ is self.__class__ else NotImplemented

    def hash_of(self: Any) -> int:
        return hash(content(self))

    own |= {"__slots__": fields, "__match_args__": fields, "__qualname__": made.__qualname__, "__repr__": _shown}
    own |= {"__init__": _initializer(fields, defaults), "__eq__": equal, "__hash__": hash_of}
    with_slots: type[_Class] = type(made)(made.__name__, made.__bases__, own)  # type: ignore[misc]
    return with_slots


def replace(old: _Value, **changes: object) -> _Value:
    """The same value with other fields."""
    kept: dict[str, Any] = {name: getattr(old, name) for name in old.__class__.__slots__}  # type: ignore[attr-defined]
    return old.__class__(**(kept | changes))


def _nothing(_: object) -> tuple[()]:
    return ()


def _shown(self: Any) -> str:
    fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
    return f"{self.__class__.__qualname__}({fields})"


def _initializer(fields: tuple[str, ...], defaults: dict[str, Any]) -> Callable[..., None]:
    """A method that sets the fields; written as text, because one that loops over them takes three times as long."""
    takes = [f"{name}=defaults[{name!r}]" if name in defaults else name for name in fields]
    lines = [f"self.{name} = {name}" for name in fields] or ["pass"]
    made: dict[str, Any] = {"defaults": defaults}
    source = f"def __init__({', '.join(['self', *takes])}):\n " + "\n ".join(lines)
    exec(source, made)  # noqa: S102 -- of names in our own source, as `dataclass` does
    initializer: Callable[..., None] = made["__init__"]
    return initializer
