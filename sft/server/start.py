"""Starting the server: from its settings to listening sockets; on the very first start an account is made, too.

Rules: whatever can fail comes before anything is made: the first account is the last step, so a start that failed can
simply be repeated. What an administrator must know is printed, the rest is in the log.
"""

import contextlib
import gc
import logging
import os
from collections.abc import Callable
from pathlib import Path

from config import DEFAULT_PORT, ServerSettings
from crypto_utils import check_library
from sft.accounts.format import check_account_name
from sft.accounts.store import Accounts
from sft.common.errors import UsageError
from sft.common.open_files import raise_limit_of_files
from sft.common.packages import check_installed
from sft.common.private_files import check_area
from sft.common.started import as_started
from sft.console.json_lines import JsonLines
from sft.console.log import STANDARD_ERROR, LogStyle, add_audit_log, no_log, open_log
from sft.console.log_lines import TextLines
from sft.console.screen import announce, note, say
from sft.disk.root import PARTIAL_AREA
from sft.disk.storage import Storage
from sft.server.admin import first_account, open_accounts
from sft.server.control import Control
from sft.server.health import Health
from sft.server.hooks import command_of
from sft.server.http_answers import HttpAnswers
from sft.server.listener import Listener, listen
from sft.server.live import Live
from sft.server.on_terminal import OnTerminal
from sft.server.reload import Reload, rules_of
from sft.server.service_manager import ServiceManager
from sft.server.signals import Signals, learn_of_children
from sft.wire.workers import Engine


def serve(
    settings: ServerSettings,
    load: Callable[[], ServerSettings],
    version: str,
    has_terminal: bool,
    advice: Callable[[str], str],
) -> None:
    """Listen and store, until a signal. Raises UsageError when the server can't be started.

    `load` gives the settings anew. `has_terminal`: somebody reads what is printed, and can stop the server. `advice`
    names this server's settings in the commands of a text.
    """
    learn_of_children()
    check_library()
    command_of(settings.on_delivered)
    if settings.metrics is not None:
        check_installed("prometheus_client")
    # A few dozen small files make as many objects as Python by default searches for cycles, and none is in one.
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    is_first = _is_first_start(settings, has_terminal)
    place = settings.server_log
    log = _open_log(settings)
    log.info("%s", version)

    def accounts_of_file() -> Accounts:
        return open_accounts(settings.accounts, lambda line: log.error("%s", advice(line)))

    accounts = None if is_first else accounts_of_file()
    storage = _open_storage(settings, log)
    raise_limit_of_files()
    signals = Signals()
    with contextlib.ExitStack() as opened:
        # It needs threads: without them there is no server.
        engine = opened.enter_context(contextlib.closing(Engine(settings.memory)))
        listening = listen(settings.listen, settings.port)
        asked = None if settings.health is None else HttpAnswers("health", settings.health)
        scraped = None if settings.metrics is None else HttpAnswers("metrics", settings.metrics)
        addresses = ", ".join(_shown(each.getsockname()) for each in listening)
        announce(f"listening on {addresses}")
        announce(
            f"storing under {settings.storage}",
            f"accounts in {settings.accounts}, {_shown_log(place)}",
        )
        if asked is not None:
            opened.callback(asked.close)
            announce(f"health at http://{asked.place}/health")
        if scraped is not None:
            opened.callback(scraped.close)
            announce(f"metrics at http://{scraped.place}/metrics")
        if accounts is None:
            name = _own_username()
            _show_first_account(name, first_account(settings.accounts, name), listening[0].getsockname()[1])
            accounts = accounts_of_file()
        elif not accounts.names():
            note(advice("warning: there are no accounts; run: python server.py adduser NAME"))
        if has_terminal:
            log.addHandler(OnTerminal(announce))
        log.info("listening on %s, storing under %s", addresses, settings.storage)
        load_again = Reload(settings, load, log, storage)
        listener = Listener(settings, storage, accounts, log, signals, engine, ServiceManager(), load_again)
        shared = listener.shared
        live = Live(shared.activity, shared.throttle, listener.running, lambda: signals.stops > 0, log)
        control = opened.enter_context(contextlib.closing(Control(settings.accounts, live.answer, log)))
        listener.also("answering commands", control.start)
        if asked is not None:
            asked.serve({"/health": Health(accounts, storage, lambda: signals.stops > 0, log).answer})
        if scraped is not None:
            from sft.server.metrics import Metrics

            numbers = Metrics(
                shared.activity, shared.hooks, live.not_logged_in, accounts, storage, lambda: signals.stops > 0
            )
            scraped.serve({"/metrics": numbers.answer})
        listener.run(listening)


def _open_log(settings: ServerSettings) -> logging.Logger:
    style = LogStyle(settings.log_size, settings.log_kept, JsonLines if settings.log_format == "json" else TextLines)
    log = no_log("sft.server")
    log.setLevel(settings.log_level.upper())
    if settings.server_log is not None:
        log = open_log("sft.server", settings.server_log, settings.log_level, style=style)
    if settings.audit_log is not None:
        add_audit_log(log, settings.audit_log, style)
    return log


def _open_storage(settings: ServerSettings, log: logging.Logger) -> Storage:
    storage = Storage(settings.storage, rules_of(settings))
    check_area(settings.storage / PARTIAL_AREA)
    try:
        is_shared, why_no_quotas = storage.try_sharing()
    except OSError as problem:
        cause = f"can't use the storage folder {settings.storage} ({problem.strerror})"
        raise UsageError(cause, "Repair it, or name another") from None
    if why_no_quotas:
        note(f"warning: accounts with a quota are refused: {why_no_quotas}")
        log.error("accounts with a quota are refused: %s", why_no_quotas)
    elif is_shared:
        log.info(
            "other machines may use this file system; whether they see at once what this one writes can't be tried"
        )
    return storage


def _is_first_start(settings: ServerSettings, has_terminal: bool) -> bool:
    """Whether an account is to be made: on a terminal, where there are neither accounts nor files yet.

    Raises UsageError where there are no accounts otherwise.
    """
    if Accounts.exists(settings.accounts):
        return False
    if has_terminal and not _holds_files(settings.storage):
        return True
    raise UsageError(f"there are no accounts yet ({settings.accounts})", "Run: python server.py adduser NAME")


def _holds_files(storage: Path) -> bool:
    """Whether users have folders there: then their accounts are somewhere else, or were lost."""
    try:
        return any(name != PARTIAL_AREA for name in os.listdir(storage))
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _own_username() -> str:
    """The name of the user who runs this, if it can be a username here; else `user`."""
    import getpass

    try:
        name = getpass.getuser().lower()
        check_account_name(name)
    except (OSError, KeyError, ImportError, UsageError):
        return "user"
    return name


def _show_first_account(name: str, password: str, port: int) -> None:
    say("", "This is the first start, so an account was made. Its password is shown only now:", "")
    say(f"    username   {name}", f"    password   {password}", "")
    say("On the sending machine:", "")
    port_flag = "" if port == DEFAULT_PORT else f"--port {port} "
    say(as_started("    python client.py ") + f"{port_flag}secret.txt {name}@{os.uname().nodename}:", "")


def _shown_log(place: Path | None) -> str:
    if place is None:
        return "no log"
    return "log on standard error" if place == STANDARD_ERROR else f"log in {place}"


def _shown(address: tuple[object, ...]) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in str(address[0]) else f"{address[0]}:{address[1]}"
