# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module that runs on a laptop detached from the connection that started it (``async_wrapper``), seen from the controller.

This is the one file that depends on how ActionBase starts and polls asynchronous modules.
"""

from __future__ import annotations

import json
import posixpath
import shlex
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.run_folder import (
    CONNECTED,
    FOLDER_SCRIPT,
    LISTENING,
    PAYLOAD,
    WAITING,
)
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.ticket import Ticket

LONGEST = 7 * 24 * 3600
"""Seconds after which async_wrapper ends a module; far beyond any transfer, which has time limits of its own."""

ENDING_TIME = 10.0
"""Seconds that a module which was told to end may take."""

CLEANING_TIME = 10.0
"""Seconds for which a connection that is lost just when everything is done is tried again, so that nothing is left on the laptop."""

GONE_TIME = 5.0
"""Seconds after which a module whose process is gone will not have a result any more: async_wrapper stores it at once."""

KILLED = (
    "If a restore was going on, its disk does not boot. Look at the laptop's console and kernel log (dmesg), boot the live medium if it was "
    "rebooted, and run again."
)

T = TypeVar("T")


class DetachedModule:
    """Starts the module of an action's name, follows what it publishes, and collects its result."""

    def __init__(self, action: ActionBase, task_vars: dict[str, Any], run_id: str, patience: float) -> None:
        """``patience``: seconds for which a lost connection to the laptop is tried again."""
        self._action = action
        self._task_vars = task_vars
        self._run_id = run_id
        self._patience = patience
        self._job: dict[str, str] = {}
        self._result: dict[str, Any] | None = None
        self._reachable = True
        self._tmpdir: str | None = None
        self._seen = False
        self._gone_since: float | None = None

    def hand_over(self, ticket: Ticket) -> str:
        """Put the run's ticket into the module's own temporary folder, mode 0600; returns its path."""
        action = self._action
        shell = action._connection._shell
        if shell.tmpdir is None:
            action._make_tmp_path()
        # Ansible forgets it once the module is started: the rest is async_wrapper's, which may be killed.
        self._tmpdir = shell.tmpdir
        path: str = shell.join_path(shell.tmpdir, "ticket")
        action._transfer_data(path, ticket.pack())
        action._remote_chmod([path], "0600")
        action._fixup_perms2([shell.tmpdir, path], execute=False)
        return path

    def start(self, name: str, arguments: dict[str, Any]) -> None:
        """Start the module; raises ImagingError when it can't even be started."""
        task, shell = self._action._task, self._action._connection._shell
        saved, task.async_val = task.async_val, LONGEST
        async_dir = self._action.get_shell_option("async_dir", default="~/.ansible_async")
        # A folder of the run's own, see laptop.job.
        shell.set_option("async_dir", posixpath.join(async_dir, self._run_id))
        try:
            started = self._action._execute_module(name, arguments, task_vars=self._task_vars, wrap_async=True)
        finally:
            task.async_val = saved
            shell.set_option("async_dir", async_dir)
        if started.get("failed") or "ansible_job_id" not in started:
            raise ImagingError(f"The module could not be started: {started.get('msg', started)}")
        self._job = {"jid": str(started["ansible_job_id"]), "_async_dir": posixpath.dirname(started["results_file"])}

    def _patiently(self, work: Callable[[], T]) -> T:
        """Do something over the connection, again and again while that is down; raises the last failure."""
        deadline = time.monotonic() + self._patience
        pause = 0.5
        while True:
            try:
                return work()
            except AnsibleConnectionFailure:
                if time.monotonic() > deadline:
                    raise
                time.sleep(pause)
                pause = min(5.0, 2 * pause)
                self._action._connection.reset()

    def published(self) -> dict[str, Any]:
        """What the module publishes of itself (``laptop.run_folder.Run``); empty when there is nothing."""
        answer = self._shell(f"cat {self._run_file()} 2>/dev/null || true")
        try:
            value = json.loads(answer)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def _run_file(self) -> str:
        return f'"$({FOLDER_SCRIPT})"/{shlex.quote(self._run_id)}.json'

    def _shell(self, command: str) -> str:
        answer = self._patiently(lambda: self._action._low_level_execute_command(command))
        return str(answer.get("stdout", ""))

    def wait_for_port(self) -> int | None:
        """The port on which the module listens; None when it has ended instead. Raises ImagingError when neither comes."""
        deadline = time.monotonic() + self._patience
        pause = 0.05
        while True:
            run = self.published()
            port = run.get("port")
            if run.get("state") in (LISTENING, CONNECTED, WAITING) and isinstance(port, int) and 0 < port < 65536:
                self._seen = True
                return port
            if self.ended():
                return None
            if time.monotonic() > deadline:
                raise ImagingError(
                    f"The module neither listened nor ended within {self._patience:.0f} seconds on this laptop."
                )
            time.sleep(pause)
            pause = min(1.0, 2 * pause)

    def ended(self) -> bool:
        """Whether the module has a result, or is gone without one; raises AnsibleConnectionFailure."""
        if self._result is None and not self._works():
            status = self._patiently(lambda: self._async_status("status"))
            if "could not find job" in str(status.get("msg", "")):
                raise ImagingError(
                    "The module on this laptop is gone without a result: the laptop was rebooted, the module was killed, or it did not hear of "
                    f"this controller for the link timeout. {KILLED}"
                )
            if status.get("finished"):
                self._result = _own_words({key: value for key, value in status.items() if key not in ASYNC_KEYS})
            elif self._seen:
                self._note_gone()
        return self._result is not None

    def _works(self) -> bool:
        """Whether the module's process is there. To ask that costs a tenth of asking Ansible for the result."""
        job = shlex.quote(posixpath.join(self._job["_async_dir"], self._job["jid"]))
        said = self._shell(WORKS.format(file=self._run_file(), job=job)).strip()
        if said == "alive":
            self._gone_since = None
        return said == "alive" or (said == "starting" and not self._seen)

    def _note_gone(self) -> None:
        """Raise ImagingError when the module's process has been gone for so long that no result will come."""
        self._gone_since = self._gone_since or time.monotonic()
        if time.monotonic() - self._gone_since > GONE_TIME:
            raise ImagingError(f"The module on this laptop, or what waits for its result there, was killed. {KILLED}")

    def has_ended(self) -> bool:
        """The same, asked once: false when the laptop can't be asked."""
        patience, self._patience = self._patience, 0.0
        try:
            return self.ended()
        except AnsibleConnectionFailure:
            return False
        finally:
            self._patience = patience

    def _async_status(self, mode: str) -> dict[str, Any]:
        arguments = dict(self._job, mode=mode)
        result: dict[str, Any] = self._action._execute_module(
            "ansible.legacy.async_status", arguments, task_vars=self._task_vars
        )
        if result.get("unreachable"):
            raise AnsibleConnectionFailure(str(result.get("msg")))
        return result

    def collect(self, within: float) -> dict[str, Any]:
        """The module's result, waited for; raises ImagingError when none comes and the module is gone or stuck."""
        deadline = time.monotonic() + within
        try:
            while not self.ended():
                if time.monotonic() > deadline:
                    state = self.published().get("state", "gone")
                    raise ImagingError(
                        f"The module on this laptop gave no result within {within:.0f} seconds (it is {state}): it was killed, or the laptop is "
                        "in trouble (out of memory, rebooting). Look at its console, then run again."
                    )
                time.sleep(0.2)
        except AnsibleConnectionFailure as error:
            raise ImagingError(
                f"The data went through, but Ansible can't reach the laptop any more to learn how it ended ({error}). Run again when it can."
            ) from error
        return self._result or {}

    def stop(self) -> None:
        """End the module if it still runs, and wait until it has. Never raises: the laptop may be out of reach."""
        if not self._job:
            return
        self._patience = 0.0
        script = LIVES.format(file=self._run_file()) + '; if [ -n "$alive" ]; then kill -TERM "$p"; fi'
        deadline = time.monotonic() + ENDING_TIME
        try:
            # The connection that is kept may be a dead one, on which everything waits until SSH notices after two minutes.
            self._action._connection.reset()
            # Again and again, because a module that has only just been started says a little later who it is.
            while not self.ended() and time.monotonic() < deadline:
                self._action._low_level_execute_command(script)
                time.sleep(0.2)
        except AnsibleConnectionFailure:
            self._reachable = False  # the module ends by itself within the link timeout
        except Exception:  # it has ended without a result
            pass

    def clean_up(self) -> None:
        """Remove the job's folder on the laptop, and the module's. Never raises.

        async_wrapper removes the module's folder as well, and the module its own file, unless they were killed.
        """
        if not self._job or not self._reachable:
            return
        folders = [self._job["_async_dir"], self._tmpdir]
        remove = " ".join(["rm -rf --", *(shlex.quote(folder) for folder in folders if folder)])
        self._patience = min(self._patience, CLEANING_TIME)
        try:
            self._shell(f"{remove}; {BURY.format(file=self._run_file())}")
        except Exception:  # whatever is wrong with the connection
            pass


LIVES = (
    'f={file}; p=$(sed -n \'s/.*"pid": \\([0-9]*\\).*/\\1/p\' "$f" 2>/dev/null); alive=; '
    'if [ -n "$p" ] && grep -aq AnsiballZ "/proc/$p/cmdline" 2>/dev/null; then alive=alive; fi; echo "$alive"'
)
"""For a shell: says whether the module that a run file is of lives; ``p`` is its process id."""

WORKS = (
    LIVES + '; if [ -z "$alive" ] && [ "$(head -c 10 {job} 2>/dev/null)" = \'{{"started"\' ]; then echo starting; fi'
)
"""For a shell: says "alive", or "starting" while async_wrapper's file of the job says that there is no result yet, or nothing."""

BURY = (
    LIVES
    + '; if [ -z "$alive" ] && [ -e "$f" ]; then d=$(sed -n \'s/.*"payload": "\\('
    + PAYLOAD
    + '\\)".*/\\1/p\' "$f"); '
    't="${{TMPDIR:-/tmp}}/$d"; if [ -n "$d" ] && [ -d "$t" ] && [ ! -L "$t" ] && [ -O "$t" ]; then rm -rf -- "$t"; fi; rm -f -- "$f"; fi'
)
"""For a shell: removes what a killed module could not remove itself (``laptop.run_folder``)."""


def _own_words(result: dict[str, Any]) -> dict[str, Any]:
    """A module's result; what async_wrapper says of one that gave none (its command and a traceback of its own) in words for a person."""
    if not (result.get("failed") and "cmd" in result and ("data" in result or "outdata" in result)):
        return result
    said = str(result.get("stderr", "")).strip().splitlines()
    last = f" Its last words: {said[-1]}." if said else ""
    return dict(
        result, msg=f"The module on this laptop ended without a result: it was killed, or it crashed.{last} {KILLED}"
    )


ASYNC_KEYS = frozenset(
    (
        "ansible_job_id",
        "results_file",
        "started",
        "finished",
        "stdout",
        "stderr",
        "stdout_lines",
        "stderr_lines",
        "ansible_facts",
    )
)
