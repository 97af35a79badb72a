"""A question on the controlling terminal, and the one line that answers it.

Rules: it talks to the terminal itself, so that standard input stays free for content. A hidden answer is not shown, and
the terminal is left as it was found, whatever ends the question. Ctrl-C ends it at any moment: Python only looks at a
signal between two steps of its own, and one that comes after the last look and before a blocking read would wait for
the next key; so nothing here reads before there is a line, and what is waited for is the line or any signal. A signal
that stops the process (Ctrl-Z) or ends it finds the terminal as it was before the question; when the process goes on,
what was typed is gone and the question is asked again. It does not know what is asked, nor what an answer may be.
"""

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from sft.common.text import escape

if sys.platform != "win32":
    import termios

_ECHO_FLAGS = 3
_PIECE = 4096
_MOST_STOPS = 100
_LONGEST_YES = 100


def read_line(read: Callable[[], bytes], longest: int) -> bytes | None:
    """Bytes up to and with a newline, the end, or more than `longest`; None for an end before the first byte."""
    line = b""
    while not line.endswith(b"\n") and len(line) <= longest + len(b"\r\n"):
        piece = read()
        if not piece:
            return line or None
        line += piece
    return line


def confirm(question: str) -> bool:
    """Whether the answer on the terminal is yes; anything else, also no terminal, is no."""
    try:
        answer = ask_on_terminal(escape(question), hidden=False, longest=_LONGEST_YES)
    except OSError:
        return False
    return (answer or b"").strip().lower() in (b"y", b"yes")


if sys.platform == "win32":

    def ask_on_terminal(prompt: str, hidden: bool, longest: int) -> bytes | None:
        """The line that is typed; None for an end before an answer. Raises OSError without a terminal."""
        from getpass import getpass

        with open("CONIN$", encoding="utf-8") as keys, open("CONOUT$", "w", encoding="utf-8") as screen:
            if hidden:
                try:
                    answer = getpass(prompt) + "\n"
                except EOFError:
                    return None
            else:
                screen.write(prompt)
                screen.flush()
                answer = keys.readline(longest + len("\r\n"))
        return answer.encode("utf-8", "surrogatepass") or None

else:

    def ask_on_terminal(prompt: str, hidden: bool, longest: int) -> bytes | None:
        """The line that is typed; None for an end before an answer. Raises OSError without a terminal."""
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            return _ask_on(terminal, prompt.encode(), hidden, longest)
        except termios.error as error:
            raise OSError(*error.args) from None
        finally:
            os.close(terminal)

    def _ask_on(terminal: int, prompt: bytes, hidden: bool, longest: int) -> bytes | None:
        _wait_for_foreground(terminal)
        before = termios.tcgetattr(terminal)
        silent = termios.tcgetattr(terminal)
        silent[_ECHO_FLAGS] &= ~termios.ECHO

        def silence() -> None:
            if hidden:
                # What was typed ahead was shown, and the rest of an overlong line would reach the shell: both go.
                termios.tcsetattr(terminal, termios.TCSAFLUSH, silent)

        def show() -> None:
            os.write(terminal, prompt)

        def leave() -> None:
            # In the background the terminal is somebody else's; and on the way there it was left already.
            if hidden and os.tcgetpgrp(terminal) == os.getpgrp():
                termios.tcsetattr(terminal, termios.TCSAFLUSH, before)

        with _signals() as signalled, _leaving(silence, show, leave) as ask:
            try:
                ask()
                return read_line(lambda: _piece(terminal, signalled), longest)
            finally:
                leave()
                if hidden:
                    os.write(terminal, b"\n")

    def _wait_for_foreground(terminal: int) -> None:
        """Stop, as a read would stop us, until the terminal is ours: till then its state is somebody else's."""
        for _ in range(_MOST_STOPS):  # a process that nobody could continue is not stopped
            if os.tcgetpgrp(terminal) == os.getpgrp():
                break
            signal.pthread_kill(threading.get_ident(), signal.SIGTTIN)

    _STOPPING = (signal.SIGTSTP, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

    @contextlib.contextmanager
    def _leaving(
        silence: Callable[[], None], show: Callable[[], None], leave: Callable[[], None]
    ) -> Iterator[Callable[[], None]]:
        """Gives what calls `silence` and `show`; so does a process that goes on, whatever has stopped it.

        `leave` is called before a signal stops or ends the process.
        """

        def stop(number: int, frame: FrameType | None) -> None:
            leave()
            signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGCONT, signal.SIG_DFL)  # what follows is the one that shows
            signal.pthread_kill(threading.get_ident(), number)
            signal.signal(number, stop)
            go_on()

        def go_on(number: int = 0, frame: FrameType | None = None) -> None:
            # In the background the system stops us in here, and goes on in here: a handler would end that as an error.
            signal.signal(signal.SIGCONT, signal.SIG_DFL)
            silence()
            signal.signal(signal.SIGCONT, go_on)
            show()

        ours = [number for number in _STOPPING if signal.getsignal(number) is signal.SIG_DFL]
        went_on_by = signal.getsignal(signal.SIGCONT)
        try:
            for number in ours:
                signal.signal(number, stop)
            yield go_on
        finally:
            for number in ours:
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGCONT, went_on_by)

    @contextlib.contextmanager
    def _signals() -> Iterator[int]:
        """A descriptor that can be read from as soon as a signal has come."""
        signalled, rings = os.pipe()
        try:
            os.set_blocking(signalled, False)
            os.set_blocking(rings, False)
            rang_before = signal.set_wakeup_fd(rings)
            try:
                yield signalled
            finally:
                signal.set_wakeup_fd(rang_before)
        finally:
            os.close(signalled)
            os.close(rings)

    def _piece(terminal: int, signalled: int) -> bytes:
        """What is typed next, a line at a time; the handler of a signal that comes meanwhile runs, and may raise."""
        while True:
            waiting = select.poll()
            for descriptor in (terminal, signalled):
                waiting.register(descriptor, select.POLLIN)
            if signalled in [descriptor for descriptor, _ in waiting.poll()]:
                os.read(signalled, _PIECE)
            else:
                return os.read(terminal, _PIECE)
