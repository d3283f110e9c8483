# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends the work of a controller's process in an orderly way, at Ctrl-C or when ansible-playbook itself is killed."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

PR_SET_PDEATHSIG = 1
"""Of linux/prctl.h."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)

WAKE_PAUSE = 0.1
"""Seconds after which a main thread that has not handled a signal is woken again."""


class Interrupted(BaseException):
    """Ctrl-C, or SIGTERM: clean up and go."""


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM raise Interrupted here, once: Ansible's worker would otherwise end itself without a word.

    A second signal (Ansible sends one right after Ctrl-C) must not hit the cleaning up, so both are ignored from the first one on.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    handled: list[int] = []

    def interrupt(number: int, _frame: Any) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        handled.append(number)
        raise Interrupted("the run was interrupted on the controller")

    saved = {number: signal.signal(number, interrupt) for number in SIGNALS}
    _die_with_parent(signal.SIGTERM)
    try:
        with _main_thread_woken(handled):
            yield
    finally:
        _die_with_parent(0)
        for number, handler in saved.items():
            signal.signal(number, handler)


def ignore_repeated_interrupts() -> Callable[[], None]:
    """Ignore every Ctrl-C after the first one, until the returned function is called. Only the main thread may call either.

    Ansible ends its work in order after the first one, and leaves the second one to the kernel, which ends the process at once: a person who
    types Ctrl-C twice would not be told what has become of the laptops.
    """
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        return lambda: None

    def interrupt(number: int, frame: Any) -> None:
        try:
            handler(number, frame)
        finally:
            signal.signal(number, signal.SIG_IGN)

    def heed() -> None:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    signal.signal(signal.SIGINT, interrupt)
    return heed


@contextlib.contextmanager
def _main_thread_woken(handled: list[int]) -> Iterator[None]:
    """Wake the main thread, which calls this, when a signal arrives, until it has put one into ``handled``.

    The kernel may deliver a signal to any thread of a process. Python runs the handler in the main thread, but does not wake that thread while it
    waits for a lock (``signal``, "Signals and threads").
    """
    main = threading.get_ident()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def wake() -> None:
        while arrived := os.read(reading, 1):
            while arrived[0] in SIGNALS and not handled and not ended.wait(WAKE_PAUSE):
                signal.pthread_kill(main, arrived[0])

    ended = threading.Event()
    waker = threading.Thread(target=wake, name="waker", daemon=True)
    waker.start()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        ended.set()
        os.close(writing)
        waker.join()
        os.close(reading)


def _die_with_parent(number: int) -> None:
    """Have the kernel send this process a signal when ansible-playbook itself is killed, whose workers would go on; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
