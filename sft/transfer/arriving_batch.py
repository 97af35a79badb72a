"""One BATCH at the receiving end, from its arrival until its RECEIPTS.

Rules: it has no channel and no folder. Each of its files gets one outcome, in any order; the answer is made when all
have theirs, and covers what was stored or compared here, not what was announced. Only the thread that receives changes
it.
"""

from collections.abc import Iterable, Sequence

from crypto_utils import digest
from sft.common.errors import Refused
from sft.disk.temporary import Incoming, Settled
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
        id, transfer, policy = batch.id, batch.transfer, batch.policy
        self.puts: list[Put | Misnamed] = [
            Put(id, transfer, file.path, FILE, file.size, file.mtime, file.mode, policy) for file in batch.files
        ]
        for at in batch.not_allowed:
            self.puts[at] = Misnamed.in_batch(batch, at)
        count = self.left = len(self.puts)  # without an outcome yet
        components = sum([len(file.path) for file in batch.files])
        self.memory = memory_of(batch.header, components) // count  # that each file costs
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

    def placed(self, placed: Sequence[Incoming | Refused]) -> None:
        """The paths under which the files are to be published, as far as they may come."""
        self._paths = [() if isinstance(each, Refused) else each.path for each in placed]

    def settle(self, settled: Iterable[tuple[int, DiskOutcome | None]]) -> None:
        """What became of the files at some places; None: its content is wanted."""
        for at, became in settled:
            if isinstance(became, Refused):
                _forget_where(became)
            self._became[at] = became
            self.left -= 1

    def results(self, time: int) -> Results:
        """What became of each file that has its outcome already."""
        results: Results = []
        for put, became in zip(self.puts, self._became, strict=True):
            if isinstance(became, Refused):
                results.append((put, became))
            elif became is not None:
                results.append((put, _receipt(put, became, time)))
        return results

    def answer(self, time: int) -> tuple[Receipts, Results]:
        """RECEIPTS, and the result of each file but those that are wanted."""
        outcomes: list[Outcome] = []
        results: Results = []
        there: list[bytes] = []
        for put, path, became in zip(self.puts, self._paths, self._became, strict=True):
            if isinstance(became, Settled) and isinstance(put, Put):
                word = became.word
                there.append(became.sha256 or b"")
                results.append((put, _receipt(put, became, time)))
                # Nothing but the last name may be another one; the path at this end stays private.
                is_named = path != put.path or became.path[-1] == put.path[-1]
                outcomes.append(_PLAIN[word] if is_named else Outcome(word, became.path[-1]))
            elif isinstance(became, Refused):
                outcomes.append(Outcome(became.code.value))
                results.append((put, became))
            elif became is None:
                outcomes.append(_PLAIN["wanted"])
            else:
                raise RuntimeError("a name that is not allowed was settled")
        return Receipts(self.id, time, digest(b"".join(there)), tuple(outcomes)), results


def _receipt(put: Put | Misnamed, became: Settled, time: int) -> Receipt:
    return Receipt(put.id, became.path, became.size, became.sha256, time, became.word)


def _forget_where(problem: BaseException) -> None:
    """Let go of tracebacks: what their frames refer to would stay until the garbage collector runs.

    With long paths and a run of refusals that was 600 MB.
    """
    problem.__traceback__ = problem.__context__ = None
    if problem.__cause__ is not None:
        _forget_where(problem.__cause__)
