"""What the tests of the whole share: one server for the session, a client of it, and lines that fail."""

import fcntl
import gc
import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import hypothesis
import pytest
from peers import C2S, MEMORY, S2C, Against, check_nothing_is_left, close_all, no_hang, tcp_pair
from processes import USER, Argument, Client, Fault, Proxy, Result, Running, Server, clean_environment, make
from transfers import TREE, written

import sft.disk.staging
from client import main as run_client
from server import main as run_server
from sft.disk import amounts
from sft.disk.root import PARTIAL_AREA
from sft.disk.staging import StagingArea
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules, UserFolder
from sft.wire.channel import Channel
from sft.wire.workers import Engine

MakeServer = Callable[..., Server]
MakeProxy = Callable[..., Proxy]
RunHere = Callable[..., Result]

# Thousands of files are flushed to the disk one by one: in memory, where there is enough, that takes seconds.
_MEMORY, _ENOUGH = "/dev/shm", 2 << 30
if "PYTEST_DEBUG_TEMPROOT" not in os.environ and os.path.isdir(_MEMORY) and shutil.disk_usage(_MEMORY).free > _ENOUGH:
    os.environ["PYTEST_DEBUG_TEMPROOT"] = _MEMORY

# Started in the background of a script, we and all our programs would ignore what the tests send them.
signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("untimed")

_boxes = count(1)


gc.disable()  # while thousands of tests are found, which are no garbage: it takes 0.6 s to look at them again and again


def pytest_collection_finish() -> None:
    """What the tests themselves leave is collected; what was found is not looked at, which takes 0.1 s each time."""
    gc.enable()
    gc.freeze()


@contextmanager
def serving(server: Server, *flags: str) -> Iterator[Server]:
    """Run it for the whole session; it may end with no error."""
    server.start(*flags)
    try:
        yield server
        assert server.stop() == 0
        assert server.errors() == ""
    finally:
        server.close()


@pytest.fixture(scope="session")
def accounts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Accounts files, by who is in them: made once for all workers, for each password's hash takes 0.3 s."""
    place = tmp_path_factory.getbasetemp()
    place = (place.parent if "PYTEST_XDIST_WORKER" in os.environ else place) / "accounts"
    with open(f"{place}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            for names in ((USER,), (USER, "bob")):
                made = Server(Path(f"{place}.new", "+".join(names)))
                for name in names:
                    made.add(name)
            os.rename(f"{place}.new", place)
    return {each.name: each / "accounts.txt" for each in place.iterdir()}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, accounts: dict[str, Path]) -> Iterator[Server]:
    """A server with the account `USER`, for all tests that need nothing special of it."""
    made = Server(tmp_path_factory.mktemp("server"), accounts[USER])
    with serving(made):
        yield made


@pytest.fixture(scope="session")
def besieged(tmp_path_factory: pytest.TempPathFactory, accounts: dict[str, Path]) -> Iterator[Server]:
    """The server of the hostile tests, with two accounts, and files beside its storage that nobody may reach."""
    made = Server(tmp_path_factory.mktemp("besieged"), accounts[f"{USER}+bob"])
    (made.folder / "outside").mkdir()
    (made.folder / "outside" / "secret").write_text("nobody may read or change this")
    with serving(made, "--log-level=debug"):
        yield made
        honest = Client(made.port, made.folder / "honest")(make(made.folder / "last"), "last")
        assert (honest.status, honest.err) == (0, "")


@pytest.fixture(autouse=True)
def no_process_stays() -> Iterator[None]:
    """Whatever becomes of a test, its clients end with it."""
    yield
    Running.kill_all()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The storage folder of `storage`."""
    return tmp_path / "received"


@pytest.fixture
def exact() -> Iterator[None]:
    """Each file counts for as many bytes as it has, so that small numbers do; `test_quota.py` has the others."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(amounts, "LEAST_BYTES", 0)
        yield


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    """A storage folder in this process, with the rules that a server has by default."""
    before = len(os.listdir("/dev/fd"))
    made = Storage(tmp_path / "received", Rules())
    yield made
    made.close()
    assert len(os.listdir("/dev/fd")) == before, "descriptors leak"


@pytest.fixture
def alice(storage: Storage) -> Iterator[UserFolder]:
    """Alice's folder; no descriptor and no memory outlives a test."""
    before = len(os.listdir("/dev/fd"))
    folder = storage.user("alice")
    yield folder
    folder.close()
    assert len(os.listdir("/dev/fd")) == before
    assert folder.anonymous.in_memory == 0


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that nobody may reach, with a file that nobody may change."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "target").write_bytes(b"precious")
    return place


@pytest.fixture
def place(root: Path) -> Path:
    """Alice's staging area."""
    return root / PARTIAL_AREA / "alice"


@pytest.fixture
def nothing_leaks() -> Iterator[None]:
    """No descriptor, and no name in the table of holders, outlives a test."""
    assert not StagingArea._owners
    before = len(os.listdir("/dev/fd"))
    yield
    assert len(os.listdir("/dev/fd")) == before
    assert not StagingArea._owners


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a system where bytes on their way must have a name."""
    monkeypatch.setattr(sft.disk.staging, "ANONYMOUS", 0)


@pytest.fixture
def watched() -> Iterator[None]:
    """Ends a test that hangs."""
    with no_hang(60):
        yield


@pytest.fixture
def engine() -> Iterator[Engine]:
    """The threads that seal and open records, and the memory for these."""
    engine = Engine(MEMORY)
    yield engine
    engine.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where what alice sends becomes visible."""
    return tmp_path / "received/alice"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Where what is sent lies."""
    place = tmp_path / "here"
    place.mkdir()
    return place


@pytest.fixture
def into(tmp_path: Path) -> Path:
    """Where what is fetched lands; its neighbour must never change."""
    written(tmp_path / "outside/secret", b"untouched")
    return tmp_path / "into"


@pytest.fixture
def there(home: Path) -> Path:
    """A tree at the server, with an empty folder, and a link that is never given."""
    for name, content in TREE.items():
        written(home / name, content)
    (home / "d/empty").mkdir()
    (home / "d/link").symlink_to("x")
    os.utime(home / "d/x", ns=(5, 1_234_567_890_123_456_789))
    os.utime(home / "d", ns=(5, 1_200_000_000_000_000_000))
    return home


@pytest.fixture
def make_server(server: Server, tmp_path: Path) -> Iterator[MakeServer]:
    """Makes servers of the test's own, with the same account."""
    made: list[Server] = []

    def make(*flags: str, storage: Path | None = None) -> Server:
        made.append(Server(tmp_path / f"server {len(made) + 1}", server.accounts, storage))
        return made[-1].start(*flags)

    yield make
    for each in made:
        each.close()


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[RunHere]:
    """Runs one of the two programs within this process: enough to see how a command is refused."""
    monkeypatch.setattr(os, "environ", clean_environment())
    programs = {"client.py": run_client, "server.py": run_server}

    def run(program: str, *arguments: Argument, cwd: Path | None = None) -> Result:
        if cwd is not None:
            monkeypatch.chdir(cwd)
        try:
            status: object = programs[program]([str(each) for each in arguments])
        except SystemExit as ended:
            status = ended.code
        assert isinstance(status, int)
        return Result(status, *capsys.readouterr())

    yield run
    log = logging.getLogger("sft.client")
    for handler in log.handlers[:]:
        log.removeHandler(handler)
        handler.close()


@pytest.fixture
def client(server: Server, tmp_path: Path) -> Client:
    """A client of the session's server, with a log of the test's own."""
    server.forget_partials()
    return Client(server.port, tmp_path / "client")


@pytest.fixture
def proxy() -> Iterator[MakeProxy]:
    """Makes lines that fail."""
    with ExitStack() as made:

        def make(port: int, up: Fault | None = None, down: Fault | None = None) -> Proxy:
            line = Proxy(port, up, down)
            made.callback(line.close)
            return line

        yield make


@pytest.fixture
def box() -> str:
    """The name of a folder at the receiver that no other test uses."""
    return f"box{next(_boxes)}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder for sources."""
    made = tmp_path / "sources"
    made.mkdir()
    return made


@pytest.fixture
def against(engine: Engine) -> Iterator[Against]:
    """A channel, and a peer that is spoken by hand."""
    both = Against(engine)
    yield both
    both.close()


@pytest.fixture
def pair(engine: Engine) -> Iterator[tuple[Channel, Channel]]:
    """Two channels, connected to each other."""
    near, far = tcp_pair()
    one, two = Channel(near, C2S, S2C, engine), Channel(far, S2C, C2S, engine)
    yield one, two
    close_all(one, two)
    check_nothing_is_left(engine, one, two)
