"""Values are compared, hashed and shown by their fields, and take no other ones."""

from typing import Generic, TypeVar

import pytest

from sft.common.values import replace, value

What = TypeVar("What")


@value
class Plain:
    """With a default, and a property."""

    name: str
    size: int = 7

    @property
    def double(self) -> int:
        return 2 * self.size


@value
class Other:
    name: str
    size: int


@value
class Of(Generic[What]):
    what: What


@value
class Empty:
    """Without a field."""


def test_value_has_its_fields_and_defaults() -> None:
    made = Plain("a")
    assert (made.name, made.size, made.double) == ("a", 7, 14)
    assert Plain(size=1, name="b") == Plain("b", 1)
    assert Of[int](3).what == 3
    assert Plain.__doc__ == "With a default, and a property."


@pytest.mark.parametrize("wrong", [(), ("a", 1, 2)])
def test_value_takes_exactly_its_fields(wrong: tuple[object, ...]) -> None:
    with pytest.raises(TypeError):
        Plain(*wrong)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        Plain("a").more = 1  # type: ignore[attr-defined]


def test_values_are_equal_by_class_and_fields() -> None:
    assert Plain("a", 1) == Plain("a", 1) and Plain("a", 1) != Plain("a", 2)
    others: list[object] = [Other("a", 1), ("a", 1), Plain("b", 1)]
    assert Plain("a", 1) not in others
    assert Empty() == Empty() and Of(1) != Of(2)
    assert len({Plain("a"), Plain("a", 7), Other("a", 7), Empty(), Empty(), Of(1), Of(1)}) == 4


def test_value_is_shown_and_matched_by_its_fields() -> None:
    assert repr([Plain("a"), Of("b"), Empty()]) == "[Plain(name='a', size=7), Of(what='b'), Empty()]"
    match Plain("a", 3):
        case Plain(name, 3):
            assert name == "a"
        case _:
            pytest.fail("it is not matched")


def test_replaced_field_leaves_the_others() -> None:
    old = Plain("a", 1)
    assert replace(old, size=2) == Plain("a", 2) and old == Plain("a", 1)
    with pytest.raises(TypeError):
        replace(old, more=1)
