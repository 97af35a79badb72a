"""What all connections of a server process share.

Rules: each part may be used from several threads at once. It holds the parts and does nothing with them.
"""

import logging
import threading

from sft.accounts.store import Accounts
from sft.common.log_limits import LineLimit, SourceLimits
from sft.common.rate_limit import RateLimiters
from sft.disk.root import PARTIAL_AREA
from sft.disk.storage import Storage
from sft.server.activity import Activity
from sft.server.attempts import Attempts
from sft.server.hooks import Hooks
from sft.transfer.places import Places
from sft.transfer.shrinking import Compress
from sft.wire.workers import Engine

_ATTEMPTS = ".attempts"  # no user's name begins so


class Shared:
    """One of these for each server process; `stopping` is set when it begins to stop."""

    def __init__(
        self,
        accounts: Accounts,
        storage: Storage,
        log: logging.Logger,
        engine: Engine,
        max_connections_per_user: int,
        compress: Compress,
        shared_counts: bool = False,
    ) -> None:
        self.accounts, self.storage, self.log, self.engine = accounts, storage, log, engine
        self.max_connections_per_user, self.compress = max_connections_per_user, compress
        attempts = storage.path / PARTIAL_AREA / _ATTEMPTS if shared_counts else None
        self.throttle, self.activity = Attempts(log, attempts), Activity()
        self.limiters, self.hooks = RateLimiters(), Hooks(log)
        self.line_limits: dict[str, LineLimit] = {}  # of each user, whatever the number of connections
        self.strangers = SourceLimits(log)
        self.places = Places()
        self.stopping = threading.Event()
