"""Classes whose objects are values: messages, what was announced, what was found.

Rules: a value is never changed. The type checker holds that; at run time Python's own freezing would cost, for each
object, as much as everything else that is done with it, and there are up to a hundred thousand of some in a second.
"""

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

_Class = TypeVar("_Class")


@dataclass_transform(frozen_default=True)
def value(made: type[_Class]) -> type[_Class]:
    """A dataclass with slots, compared and hashed by its fields; frozen as far as types are checked."""
    return dataclass(slots=True, unsafe_hash=True)(made)
