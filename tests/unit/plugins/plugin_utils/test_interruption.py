# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys, threading
from ansible_collections.fleet.imaging.plugins.plugin_utils.interruption import Interrupted, interruptible

number = getattr(signal, sys.argv[1])

def send():
    signal.pthread_kill(threading.main_thread().ident if sys.argv[2] == "main" else threading.get_ident(), number)

before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
timer = threading.Timer(0.5, send)
try:
    with interruptible():
        timer.start()
        threading.Event().wait(60)
    print("was not interrupted")
except Interrupted:
    print("interrupted")
assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
assert signal.set_wakeup_fd(-1) == -1
timer.join()
assert threading.active_count() == 1
"""
"""The main thread waits for a lock, and a signal is delivered to it, or to another thread, as the kernel sometimes does."""


@pytest.mark.parametrize("thread", ["main", "other"])
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_signal_interrupts_whichever_thread_gets_it(number: str, thread: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, number, thread], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout.split() == ["interrupted"]


TWICE = """
import atexit, os, signal, threading, time
from ansible_collections.fleet.imaging.plugins.plugin_utils.interruption import ignore_repeated_interrupts

def as_ansible(number, _frame):
    signal.signal(number, signal.SIG_DFL)
    raise KeyboardInterrupt

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

def say():
    time.sleep(0.5)
    print("said", flush=True)
    heed()
    interrupt()
    time.sleep(10)
    print("was not interrupted again")

signal.signal(signal.SIGINT, as_ansible)
heed = ignore_repeated_interrupts()
atexit.register(say)
threading.Timer(0.3, interrupt).start()
try:
    time.sleep(10)
except KeyboardInterrupt:
    threading.Timer(0.2, interrupt).start()
"""


def test_ctrl_c_typed_twice_leaves_time_for_the_last_words() -> None:
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=20, check=False)
    assert done.stdout.split() == ["said"] and done.returncode == -signal.SIGINT, done
