"""The quota of one account against a model of it, in any order of what connections do."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from quota_files import begin, fill, on_disk

from sft.common.errors import Code, Refused
from sft.disk.amounts import Amount, Quota
from sft.disk.anonymous import AnonymousFile
from sft.disk.partials import PartialFile
from sft.disk.staging import StagingArea
from sft.disk.storage import Storage
from sft.disk.temporary import Settled, TemporaryFile
from sft.disk.user_folder import Rules

pytestmark = pytest.mark.usefixtures("exact")

NAMES = st.sampled_from(["a", "b", "x/a", "x/y/b"])

SIZES = st.sampled_from([0, 1, 50, 5_000, 66_000, 90_000])

QUOTA = Quota(250_000, 9)


class Model(RuleBasedStateMachine):
    """One process; what it must have reserved and counted is known at any time."""

    @initialize()
    def start(self) -> None:
        import tempfile

        self.place = tempfile.TemporaryDirectory()
        self.root = Path(self.place.name) / "received"
        self.storage = Storage(self.root, Rules())
        self.folder = self.storage.user("alice", quota=QUOTA)
        self.visible: dict[str, int] = {}
        self.folders: set[str] = set()  # there, or reserved for by this connection
        self.kept: dict[str, int] = {}
        self.under_way: dict[str, tuple[TemporaryFile, int]] = {}

    def expected(self) -> Amount:
        sizes = [*self.visible.values(), *self.kept.values(), *(size for _, size in self.under_way.values())]
        return Amount(sum(sizes), len(sizes) + len(self.folders))

    def fits(self, more: Amount) -> bool:
        left = QUOTA.left(self.expected() + more)
        return (left.bytes >= 0 or not more.bytes) and (left.files >= 0 or not more.files)

    @rule(name=NAMES, size=SIZES, pipe=st.booleans(), policy=st.sampled_from(["fail", "replace"]))
    def begin(self, name: str, size: int, pipe: bool, policy: str) -> None:
        if name in self.under_way:
            return
        there = self.visible.get(name)
        if there is not None and policy == "fail":
            return
        resumable = size > 65_536 and not pipe
        found = self.kept.get(name, 0) if resumable else 0
        parents = {str(each) for each in Path(name).parents} - {".", *self.folders}
        need = Amount(max(0 if pipe else size, found) - found, 0 if resumable and name in self.kept else 1)
        fits = self.fits(need) and self.fits(Amount(need.bytes, need.files + len(parents)))
        try:
            partial = begin(self.folder, name, None if pipe else size, policy)
        except Refused as problem:
            assert problem.code is Code.QUOTA and not fits
            if resumable and self.kept.get(name) == 0:  # nothing to resume from
                del self.kept[name]
            return
        assert fits
        if resumable:
            self.kept.pop(name, None)
        self.folders |= parents
        self.under_way[name] = partial, max(0 if pipe else size, found)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), how=st.sampled_from(["commit", "discard", "keep", "grow"]))
    def end(self, data: st.DataObject, how: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.under_way)))
        partial, size = self.under_way.pop(name)
        length = size if partial.incoming.size is not None else data.draw(st.sampled_from([0, 10, 70_000, 200_000]))
        length = max(length, partial.size)
        if how == "keep":
            length = (partial.size + length) // 2
        more = Amount(max(length - size, 0), 0)
        self.under_way[name] = partial, size
        fits = self.fits(more)
        try:
            fill(partial, length)
        except Refused as problem:
            assert problem.code is Code.QUOTA and not fits
            del self.under_way[name]
            partial.discard()
            return
        assert fits or partial.incoming.size is not None
        if how == "grow":
            self.under_way[name] = partial, max(size, length)
            return
        del self.under_way[name]
        if how == "discard":
            partial.discard()
        elif how == "keep":
            if partial.keep():
                self.kept[name] = length
        else:
            if partial.incoming.size is not None and length < partial.incoming.size:
                fill(partial, partial.incoming.size)
            parents = {str(each) for each in Path(name).parents} - {".", *self.folders}  # which were removed meanwhile
            (outcome,) = self.folder.publish([partial])
            if isinstance(outcome, Settled):
                self.visible[name] = partial.size
                self.folders |= parents
            else:
                assert outcome.code is Code.EXISTS or (outcome.code is Code.QUOTA and parents)

    @precondition(lambda self: self.visible)
    @rule(data=st.data())
    def remove_by_hand(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.visible)))
        (self.root / "alice" / name).unlink()
        del self.visible[name]
        self.recount()

    @precondition(lambda self: self.visible)
    @rule(data=st.data(), to=NAMES)
    def move(self, data: st.DataObject, to: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.visible)))
        parents = {str(each) for each in Path(to).parents} - {".", *self.folders}
        fits = self.fits(Amount(0, len(parents)))
        try:
            self.folder.changes.move(tuple(name.split("/")), tuple(to.split("/")), lambda: None)
        except Refused as problem:
            if problem.code is Code.QUOTA:
                assert not fits
                return
            assert problem.code is Code.EXISTS and to in self.visible
        else:
            assert to not in self.visible
            self.visible[to] = self.visible.pop(name)
        self.folders |= parents

    @precondition(lambda self: self.visible or self.folders)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        home = self.root / "alice"
        name = data.draw(st.sampled_from(sorted([*self.visible, *self.folders])))
        there = {str(each.relative_to(home)) for each in home.rglob("*") if each.is_dir()}
        try:
            self.folder.changes.remove(tuple(name.split("/")), True, self.folder.changes.removal(lambda: None))
        except Refused as problem:
            assert problem.code is Code.NOT_FOUND and name not in there | set(self.visible)
            return
        gone = {each for each in (*self.visible, *there) if each == name or each.startswith(f"{name}/")}
        self.folders -= gone & there
        self.visible = {each: size for each, size in self.visible.items() if each not in gone}

    @rule()
    def recount(self) -> None:
        self.storage.ledgers.recount("alice")

    @rule(how=st.sampled_from(["end", "die"]))
    def connect_anew(self, how: str) -> None:
        """The connection ends, or its process dies: then a new one counts what lies there."""
        for name, (partial, _) in list(self.under_way.items()):
            if how == "end":
                if partial.keep():
                    self.kept[name] = partial.size
            else:
                for descriptor in (partial.descriptor, getattr(partial, "_journal_descriptor", -1)):
                    if descriptor >= 0:
                        os.close(descriptor)
                if isinstance(partial, PartialFile):
                    self.kept[name] = partial.size
                elif isinstance(partial, AnonymousFile) and partial._name:  # stays until the sweep
                    self.kept[partial._name] = partial.size
        self.under_way.clear()
        if how == "die":
            StagingArea._owners.clear()
            ledger = self.folder.allowance._ledger
            assert ledger is not None
            ledger._write_down = lambda spare: None  # type: ignore[method-assign]
            mine = self.storage.ledgers._processes._ours
            if mine is not None:
                os.close(mine[1])
                self.storage.ledgers._processes._ours = None
        self.folder.close()
        self.folder, home = self.storage.user("alice", quota=QUOTA), self.root / "alice"
        self.folders = {str(each.relative_to(home)) for each in home.rglob("*") if each.is_dir()}

    @invariant()
    def ledger_is_right(self) -> None:
        if not hasattr(self, "folder"):
            return
        ledger = self.folder.allowance._ledger
        assert ledger is not None
        used = ledger.used()
        assert used is not None
        assert used - ledger._spare == self.expected()
        there = on_disk(self.root)
        assert there.bytes <= used.bytes <= 250_000
        assert there.files <= used.files <= 9

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            for partial, _ in self.under_way.values():
                partial.discard()
            self.folder.close()
            self.storage.close()
            self.place.cleanup()


def test_ledger_follows_the_model() -> None:
    few = settings(max_examples=20, stateful_step_count=25, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Model, settings=few)


@pytest.mark.long
def test_ledger_follows_the_model_for_long() -> None:
    many = settings(max_examples=600, stateful_step_count=50, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Model, settings=many)
