"""Tests that run through a table: `each_row` in the place of `pytest.mark.parametrize`, for rows without a set-up.

A test of its own for each row costs 4 ms, in each worker that collects it and in the one that runs it: of 10,000 rows
that were 40 s. Here the rows of a table are one test, which goes on after a row that fails and names all of them.

Rule: only where nothing is made for a row. A test that asks for a fixture gets it once for all rows, so what a row
changes (files, settings, a connection) would meet the next one: such a test keeps `parametrize`.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

import pytest
from _pytest.mark import ParameterSet

Test = TypeVar("Test", bound=Callable[..., None])


def each_row(
    names: str | Sequence[str], rows: Iterable[Any], ids: Iterable[object] | Callable[[Any], str] | None = None
) -> Callable[[Test], Test]:
    """Run the test with each of these rows. The arguments are those of `parametrize`, and two tables multiply."""
    columns = [name.strip() for name in names.split(",") if name.strip()] if isinstance(names, str) else list(names)
    table = [_row_of(row, len(columns)) for row in rows]
    assert table, f"no row for {names}"
    if ids is not None and not callable(ids):
        table = [(str(name), values) for name, (_, values) in zip(ids, table, strict=True)]

    def decorate(test: Test) -> Test:
        rest = [each for each in inspect.signature(test).parameters.values() if each.name not in columns]

        @functools.wraps(test)
        def run(*given: Any, **more: Any) -> None:
            failed: list[BaseException] = []
            for name, values in table:
                row = dict(zip(columns, values, strict=True))
                try:
                    test(*given, **more, **row)
                except (Exception, pytest.fail.Exception) as problem:
                    problem.add_note(f"in the row {name or _shown(row)}")
                    failed.append(problem)
            if len(failed) == 1:
                raise failed[0]
            if failed:
                raise BaseExceptionGroup(f"{len(failed)} of {len(table)} rows fail", failed)

        del run.__wrapped__
        run.__signature__ = inspect.Signature(rest)  # type: ignore[attr-defined]
        return cast(Test, run)

    return decorate


def _row_of(row: Any, width: int) -> tuple[str | None, tuple[Any, ...]]:
    """Its name, if it has one, and its values."""
    if isinstance(row, ParameterSet):
        assert not row.marks, "a row has no mark"
        return None if row.id is None else str(row.id), tuple(row.values)
    return None, tuple(row) if width > 1 else (row,)


def _shown(row: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}"[:200] for name, value in row.items())
