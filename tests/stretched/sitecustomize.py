"""For the programs that tests start: scrypt is worked out once for each input, and remembered in a folder.

Hundreds of them log in, mostly with one password at one server. What they get is scrypt's own answer, at its full cost
the first time; the other times it is read from where `STRETCHED` says. Python loads this file by itself, because
`processes.clean_environment` puts its folder on the path.
"""

import hashlib
import os
import sys
from importlib.machinery import PathFinder

TYPE_CHECKING = False  # of a module that takes 20 ms to load, like importlib.abc
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_KDF = "Crypto.Protocol.KDF"


class _Remembering:
    """Loads the library's module as it is, and puts the memory before its scrypt."""

    def __init__(self, own: "Loader") -> None:
        self._own = own

    def create_module(self, spec: "ModuleSpec") -> "ModuleType | None":
        return self._own.create_module(spec)

    def exec_module(self, module: "ModuleType") -> None:
        self._own.exec_module(module)
        scrypt = module.scrypt

        def remembered(*values: object, threads: int) -> bytes:
            place = os.path.join(os.environ["STRETCHED"], hashlib.sha256(repr(values).encode()).hexdigest())
            try:
                with open(place, "rb") as known:
                    return known.read()
            except FileNotFoundError:
                stretched: bytes = scrypt(*values, threads=threads)
                with open(f"{place}.{os.getpid()}", "wb") as new:
                    new.write(stretched)
                os.replace(new.name, place)
                return stretched

        module.scrypt = remembered  # type: ignore[attr-defined]


class _Finder:
    def find_spec(
        self, name: str, path: "Sequence[str] | None", target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        found = PathFinder.find_spec(name, path, target) if name == _KDF else None
        if found is not None and found.loader is not None:
            found.loader = _Remembering(found.loader)  # type: ignore[assignment]
        return found


if "STRETCHED" in os.environ:
    sys.meta_path.insert(0, _Finder())
