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
    WAITING,
)
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.ticket import Ticket

LONGEST = 7 * 24 * 3600
"""Seconds after which async_wrapper ends a module; far beyond any transfer, which has time limits of its own."""

ENDING_TIME = 10.0
"""Seconds that a module which was told to end may take."""

RESULT_TIME = 5.0
"""Seconds within which async_wrapper has written down what a module that has ended said."""

NO_ANSWER = "No start of json char found"
"""What async_wrapper says of a module that ended without a word."""

KILLED = (
    "The module on this laptop was killed before it gave its result: by somebody, or because memory ran out (dmesg tells). If a restore was "
    "going on, its disk may not boot. Run again: it goes on from there."
)

REMOVE_REST = (
    r"""if [ -z "$p" ] && [ -e "$f" ]; then s=$(sed -n 's/.*"scratch": "\([^"]*\)".*/\1/p' "$f"); """
    r"""case "$s" in */../*) ;; /*/ansible_*_payload_*) rm -rf -- "$s" ;; esac; rm -f -- "$f"; fi"""
)
"""Shell words that remove the run's file and the folder of a module whose process is gone; needs those that find it."""

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
        self._folder = ""
        self._was_there = False
        """Whether the module has published anything."""

    def hand_over(self, ticket: Ticket) -> str:
        """Put the run's ticket into the module's own temporary folder, mode 0600; returns its path."""
        action = self._action
        shell = action._connection._shell
        if shell.tmpdir is None:
            action._make_tmp_path()
        self._folder = str(shell.tmpdir)
        path: str = shell.join_path(shell.tmpdir, "ticket")
        action._transfer_data(path, ticket.pack())
        action._remote_chmod([path], "0600")
        action._fixup_perms2([shell.tmpdir, path], execute=False)
        return path

    def start(self, name: str, arguments: dict[str, Any]) -> None:
        """Start the module; raises ImagingError when it can't even be started."""
        task = self._action._task
        saved, task.async_val = task.async_val, LONGEST
        try:
            started = self._action._execute_module(name, arguments, task_vars=self._task_vars, wrap_async=True)
        finally:
            task.async_val = saved
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
        self._was_there = True
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
        if self._result is None:
            status = self._patiently(lambda: self._async_status("status"))
            if "could not find job" in str(status.get("msg", "")):
                raise ImagingError(
                    "The module on this laptop is gone without a result: the laptop was rebooted, or somebody killed the module. If a restore "
                    "was going on, its disk does not boot. Boot the live medium, and run again."
                )
            if status.get("finished"):
                self._result = {key: value for key, value in status.items() if key not in ASYNC_KEYS}
                if NO_ANSWER in str(self._result.get("msg", "")):
                    self._result["msg"] = KILLED
        return self._result is not None

    def _is_gone(self) -> bool:
        """Whether the module's process is not there any more; its result may still come."""
        script = f'{self._find_process()} [ -n "$p" ] || echo gone'
        return self._was_there and self._shell(script).strip() == "gone"

    def _find_process(self) -> str:
        """Shell words that set f to the run's file and p to its process, if that is there."""
        return (
            f"f={self._run_file()}; "
            r"""p=$(sed -n 's/.*"pid": \([0-9]*\).*/\1/p' "$f" 2>/dev/null); """
            r"""[ -n "$p" ] && grep -aq AnsiballZ "/proc/$p/cmdline" 2>/dev/null || p=; """
        )

    def has_ended(self) -> bool:
        """Whether the module has ended, in whatever way, asked once: false when the laptop can't be asked."""
        patience, self._patience = self._patience, 0.0
        try:
            return self.ended() or self._is_gone()
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
        gone_since: float | None = None
        try:
            while not self.ended():
                if not self._is_gone():
                    gone_since = None
                elif gone_since is None:
                    gone_since = time.monotonic()
                elif time.monotonic() - gone_since > RESULT_TIME:
                    raise ImagingError(KILLED)
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
        self._patience = 0.0
        script = f'{self._find_process()} [ -z "$p" ] || kill -TERM "$p"'
        deadline = time.monotonic() + ENDING_TIME
        try:
            # Again and again, because a module that has only just been started says a little later who it is.
            while self._job and not self.ended() and time.monotonic() < deadline:
                self._action._low_level_execute_command(script)
                time.sleep(0.2)
        except Exception:  # whatever is wrong with the connection: the module ends by itself within the link timeout
            pass

    def clean_up(self) -> None:
        """Remove what is left on the laptop: the job's file, and what processes that were killed could not remove. Never raises."""
        if not self._job:
            return
        self._patience = 0.0
        try:
            self._async_status("cleanup")
            self._shell(self._find_process() + REMOVE_REST)
            if self._folder and (self._result is not None or self._is_gone()):
                self._shell(f"rm -rf -- {shlex.quote(self._folder)}")
        except Exception:  # as above
            pass


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
