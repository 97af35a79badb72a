"""One BATCH at the receiving end, from its arrival until its RECEIPTS.

Rules: it has no channel and no folder. Each of its files gets one outcome, in any order; the answer is made when all
have theirs, and covers what was stored or compared here, not what was announced. Only the thread that receives changes
it.
"""

from crypto_utils import new_digest
from sft.common.errors import Refused
from sft.disk.temporary import Incoming
from sft.disk.temporary import Outcome as DiskOutcome
from sft.transfer.items import memory_of
from sft.wire.batch import BATCH_WORDS, Batch, Outcome, Receipts
from sft.wire.messages import FILE, Misnamed, Put, Receipt

Results = list[tuple[Put | Misnamed, Receipt | Refused]]

_PLAIN = {word: Outcome(word) for word in BATCH_WORDS}


class ArrivingBatch:
    """The files of one BATCH, and what became of each."""

    __slots__ = ("_became", "_paths", "id", "left", "memory", "puts")

    is_small = True

    def __init__(self, batch: Batch) -> None:
        self.id = batch.id
        self.puts: list[Put | Misnamed] = [
            Put(batch.id, batch.transfer, file.path, FILE, file.size, file.mtime, file.mode, batch.policy)
            for file in batch.files
        ]
        for at in batch.not_allowed:
            self.puts[at] = Misnamed.in_batch(batch, at)
        count = self.left = len(self.puts)  # without an outcome yet
        components = [component for file in batch.files for component in file.path]
        self.memory = memory_of(batch.header, tuple(components)) // count  # that each file costs
        self._became: list[DiskOutcome | None] = [None] * count
        self._paths: list[tuple[str, ...]] = [()] * count

    @property
    def count(self) -> int:
        """How many files there are."""
        return len(self.puts)

    def put_at(self, at: int) -> Put:
        """The announced file at that place, which has a name that is allowed."""
        put = self.puts[at]
        if isinstance(put, Misnamed):
            raise RuntimeError("a name that is not allowed was stored")
        return put

    def placed(self, at: int, incoming: Incoming) -> None:
        """The file at that place is to be published under that path."""
        self._paths[at] = incoming.path

    def settle(self, at: int, became: DiskOutcome | None) -> None:
        """What became of the file at that place; None: its content is wanted."""
        if isinstance(became, Refused):
            _forget_where(became)
        self._became[at] = became
        self.left -= 1

    def answer(self, time: int) -> tuple[Receipts, Results]:
        """RECEIPTS, and the result of each file but those that are wanted."""
        outcomes: list[Outcome] = []
        results: Results = []
        there = new_digest()
        for put, path, became in zip(self.puts, self._paths, self._became, strict=True):
            if became is None:
                outcomes.append(_PLAIN["wanted"])
            elif isinstance(became, Refused):
                outcomes.append(Outcome(became.code.value))
                results.append((put, became))
            elif isinstance(put, Put):
                word = became.word
                there.update(became.sha256 or b"")
                is_ours = path != put.path  # the name at this end stays private
                name = None if is_ours or became.path[-1] == put.path[-1] else became.path[-1]
                outcomes.append(_PLAIN[word] if name is None else Outcome(word, name))
                results.append((put, Receipt(put.id, became.path, became.size, became.sha256, time, word)))
            else:
                raise RuntimeError("a name that is not allowed was settled")
        return Receipts(self.id, time, there.digest(), tuple(outcomes)), results


def _forget_where(problem: BaseException) -> None:
    """Let go of tracebacks: what their frames refer to would stay until the garbage collector runs.

    With long paths and a run of refusals that was 600 MB.
    """
    problem.__traceback__ = problem.__context__ = None
    if problem.__cause__ is not None:
        _forget_where(problem.__cause__)
