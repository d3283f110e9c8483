# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module that runs on a laptop detached from the connection that started it (``async_wrapper``), seen from the controller.

This is the one file that depends on how ActionBase starts and polls asynchronous modules.
"""

import contextlib
import json
import posixpath
import re
import secrets
import shlex
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ansible.errors import AnsibleConnectionFailure
from ansible.module_utils.common.json import Direction, get_module_decoder
from ansible.plugins.action import ActionBase

from ..module_utils.errors import ImagingError
from ..module_utils.printable import printable
from ..module_utils.run_file import CONNECTED, FOLDER_SCRIPT, LISTENING, SUFFIX, WAITING, Run, unpack_run
from ..module_utils.ticket import TICKET, Ticket
from ..module_utils.timeouts import Timeouts
from .connection_errors import NO_LOGIN, UNKNOWN_HOST_KEY, known_error

MAX_RUNTIME = 7 * 24 * 3600
"""Seconds after which async_wrapper ends a module; far beyond any transfer, which has time limits of its own."""

TRIES = 3
"""How often a laptop is asked when its answer can't be read, as when somebody has just sent a message to all terminals."""

SHOWN = 300
"""Characters of such an answer that are shown."""

KILLED = (
    "If a restore was going on, its disk may not boot. Look at the laptop's console and kernel log (dmesg), boot the live medium if it was "
    "rebooted, and run again."
)

T = TypeVar("T")


class LaptopShell:
    """Runs shell commands over Ansible's connection, and finds their answers among whatever else is printed on it."""

    def __init__(self, action: ActionBase, host: str, timeouts: Timeouts) -> None:
        """``host``: the laptop's name in the inventory."""
        self._action = action
        self._host = host
        self._timeouts = timeouts
        self.patience = timeouts.link_timeout
        """Seconds for which a lost connection is tried again."""

    def ask(self, command: str, parse: Callable[[str], T], become: bool = True) -> T:
        """Return what a shell command prints, as ``parse`` reads it, which raises ValueError for an answer that it can't read.

        sudo and the start files of shells may print anything on the same connection, so the answer stands between two marked lines. Raises
        ImagingError with what was printed when no answer is found in ``TRIES`` tries, and AnsibleConnectionFailure.
        """
        for attempt in range(TRIES):
            time.sleep(attempt)
            mark = secrets.token_hex(8)
            # The marked lines are put together on the laptop, so that an echo of the command does not contain them.
            framed = f'm={mark}; {{ echo; echo "<$m"; {command}; echo; echo "$m>"; }} 2>/dev/null'
            answer = self._execute(framed, become)
            printed = str(answer.get("stdout", "")).replace("\r\n", "\n")
            found = re.search(rf"^<{mark}\n(.*?)\n?^{mark}>$(.*)", printed, re.DOTALL | re.MULTILINE)
            if found is not None:
                if not become and found[2].strip():
                    raise self._noise_error(found[2])
                try:
                    return parse(found[1].strip())
                except ValueError:
                    pass
        said = "\n".join((printed, str(answer.get("stderr", ""))))
        raise ImagingError(
            f"A shell command on this laptop gave no answer that can be read ({self._by(become)}, exit status {answer.get('rc')}). It printed "
            f"{_shown(said)}. To see that yourself: ansible {self._host} {'--become ' if become else ''}-m raw -a id"
        )

    def check_login_shell(self) -> None:
        """Raise ImagingError when the user's shell prints after an answer: Ansible would take its last line for the answer."""
        self.ask("echo ready", str, become=False)

    def _execute(self, command: str, become: bool) -> dict[str, Any]:
        """Run a command, again and again while the connection is down; raises the last failure of that, or a refusal to log in at once."""
        deadline = time.monotonic() + self.patience
        pause = self._timeouts.shell_pause
        while True:
            try:
                answer: dict[str, Any] = self._action._low_level_execute_command(command, sudoable=become)
                return answer
            except AnsibleConnectionFailure as failure:
                if known_error(str(failure)) in (NO_LOGIN, UNKNOWN_HOST_KEY) or time.monotonic() > deadline:
                    raise
                time.sleep(pause)
                pause = min(self._timeouts.max_pause, 2 * pause)
                self._action._connection.reset()

    def _by(self, become: bool) -> str:
        plugin = getattr(self._action._connection, "become", None) if become else None
        return f"through {plugin.name}" if plugin is not None else "as the user that logs in"

    def _noise_error(self, said: str) -> ImagingError:
        return ImagingError(
            f"The login shell of this laptop's user prints text after a command has ended: {_shown(said)}. Ansible would take that for the "
            "command's answer. Change the shell's start files (~/.bashrc, ~/.zshenv, /etc/bash.bashrc; look for a trap on EXIT) so that they "
            "print nothing in a shell that is not interactive, and run again."
        )


class DetachedModule:
    """Starts the module of an action's name, follows what it publishes, and collects its result."""

    def __init__(self, action: ActionBase, task_vars: dict[str, Any], run_id: str, timeouts: Timeouts) -> None:
        self._action = action
        self._task_vars = task_vars
        self._run_id = run_id
        self._timeouts = timeouts
        self._shell = LaptopShell(action, str(task_vars.get("inventory_hostname", "all")), timeouts)
        self._job = ""
        """The folder of the module's result, quoted for a shell."""
        self._result: dict[str, Any] | None = None
        self._reachable = True
        self._tmpdir: str | None = None
        self._seen = False
        self._gone_since: float | None = None
        self.networks = ""
        """The laptop's networks, as it says (``Run.networks``), once it listens."""

    @property
    def folders(self) -> tuple[str, str]:
        """What a later task needs to find the module again (:meth:`adopt`)."""
        return self._job, self._tmpdir or ""

    def adopt(self, folders: tuple[str, str]) -> None:
        """Follow a module that an earlier task has started."""
        self._job, self._tmpdir = folders
        self._seen = True

    def hand_over(self, ticket: Ticket) -> str:
        """Put the run's ticket into the module's own temporary folder, mode 0600; returns its path.

        Raises ImagingError when the laptop's shell is one that Ansible can't work with.
        """
        action = self._action
        shell = action._connection._shell
        self._shell.check_login_shell()
        if shell.tmpdir is None:
            action._make_tmp_path()
        # Ansible forgets it once the module is started: the rest is async_wrapper's, which may be killed.
        self._tmpdir = shell.tmpdir
        path: str = shell.join_path(shell.tmpdir, TICKET)
        action._transfer_data(path, ticket.pack())
        action._remote_chmod([path], "0600")
        action._fixup_perms2([shell.tmpdir, path], execute=False)
        return path

    def start(self, name: str, arguments: dict[str, Any]) -> None:
        """Start the module; raises ImagingError when it can't even be started."""
        task, shell = self._action._task, self._action._connection._shell
        saved, task.async_val = task.async_val, MAX_RUNTIME
        async_dir = self._action.get_shell_option("async_dir", default="~/.ansible_async")
        # A folder of the run's own, see laptop.job.
        own = posixpath.join(async_dir, self._run_id)
        shell.set_option("async_dir", own)
        try:
            started = self._action._execute_module(name, arguments, task_vars=self._task_vars, wrap_async=True)
        finally:
            task.async_val = saved
            shell.set_option("async_dir", async_dir)
        self._job = _path(own)
        # What async_wrapper says is not framed. Where Ansible could not make it out, the job's file tells whether it started.
        unread = "module_stdout" in started
        if "ansible_job_id" not in started and not (
            unread and self._shell.ask(f"ls -A {self._job} 2>/dev/null || true", str)
        ):
            said = f" It printed {_shown(started['module_stdout'])}." if unread else ""
            self._job = ""
            raise ImagingError(f"The module could not be started: {started.get('msg', started)}{said}")

    def published(self) -> Run | None:
        """What the module publishes of itself; None when there is nothing. Raises ImagingError when it can't be read."""
        return self._shell.ask(PUBLISHED.format(file=self._run_file()), self._run)

    def _run(self, text: str) -> Run | None:
        """What PUBLISHED printed; raises ValueError for anything else."""
        if text == NONE:
            return None
        run = unpack_run(f"{text}\n")
        if run.run_id != self._run_id:
            raise ValueError("another run's, or cut")
        return run

    def _run_file(self) -> str:
        return f'"$({FOLDER_SCRIPT})"/{shlex.quote(self._run_id)}{SUFFIX}'

    def wait_for_port(self) -> int | None:
        """The port on which the module listens; None when it has ended instead. Raises ImagingError when neither comes."""
        patience, pause = self._timeouts.port, self._timeouts.port_first_pause
        deadline = time.monotonic() + patience
        while True:
            run = self.published()
            if run is not None and run.state in (LISTENING, CONNECTED, WAITING) and 0 < run.port < 65536:
                self._seen, self.networks = True, run.networks
                return run.port
            if self.ended():
                return None
            if time.monotonic() > deadline:
                raise ImagingError(
                    f"The module neither listened nor ended within {patience:.0f} seconds on this laptop."
                )
            time.sleep(pause)
            pause = min(self._timeouts.port_max_pause, 2 * pause)

    def ended(self) -> bool:
        """Whether the module has a result, or is gone without one; raises AnsibleConnectionFailure."""
        if self._result is None:
            state = self._shell.ask(STATE.format(file=self._run_file(), job=self._job), _state)
            if isinstance(state, dict) and not ("started" in state and not state.get("finished")):
                self._result = _module_message(state)
            elif state == GONE and self._seen:
                raise ImagingError(
                    "The module on this laptop ended without a result: the laptop was rebooted, the module was killed, or it lost contact with "
                    f"this controller for longer than the link timeout. {KILLED}"
                )
            elif state == GONE or (self._seen and state != ALIVE):
                self._note_gone()
            else:
                self._gone_since = None
        return self._result is not None

    def _note_gone(self) -> None:
        """Raise ImagingError when the module's process has been gone for so long that no result will come."""
        self._gone_since = self._gone_since or time.monotonic()
        if time.monotonic() - self._gone_since > self._timeouts.gone:
            raise ImagingError(f"The module on this laptop, or what waits for its result there, was killed. {KILLED}")

    def has_ended(self) -> bool:
        """Like :meth:`ended`, but asked once; false when the laptop can't be asked."""
        patience, self._shell.patience = self._shell.patience, 0.0
        try:
            return self.ended()
        except AnsibleConnectionFailure:
            return False
        finally:
            self._shell.patience = patience

    def collect(self, within: float) -> dict[str, Any]:
        """The module's result, waited for; raises ImagingError when none comes and the module is gone or stuck."""
        deadline = time.monotonic() + within
        try:
            while not self.ended():
                if time.monotonic() > deadline:
                    run = self.published()
                    state = run.state if run else GONE
                    raise ImagingError(
                        f"The module on this laptop gave no result within {within:.0f} seconds (it is {state}): it was killed, or the laptop is "
                        "in trouble (out of memory, rebooting). Look at its console, then run again."
                    )
                time.sleep(self._timeouts.poll)
        except AnsibleConnectionFailure as error:
            raise ImagingError(
                f"The data went through, but Ansible can't reach the laptop any more to learn how it ended ({error}). Run again when it can."
            ) from error
        return self._result or {}

    def stop(self) -> None:
        """End the module if it still runs, and wait until it has. Never raises: the laptop may be out of reach."""
        if not self._job:
            return
        self._shell.patience = 0.0
        script = CHECK_ALIVE.format(file=self._run_file()) + '; if [ -n "$alive" ]; then kill -TERM "$p"; fi'
        deadline = time.monotonic() + self._timeouts.stop
        try:
            # The connection that is kept may be a dead one, on which everything waits until SSH notices after two minutes.
            self._action._connection.reset()
            # Again and again, because a module that has only just been started says a little later who it is.
            while not self.ended() and time.monotonic() < deadline:
                self._action._low_level_execute_command(script)
                time.sleep(self._timeouts.poll)
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
        folders = [self._job, _path(self._tmpdir or "")]
        remove = " ".join(["rm -rf --", *filter(None, folders)])
        self._shell.patience = min(self._shell.patience, self._timeouts.clean_up)
        try:
            self._shell.ask(f"{remove}; {REMOVE_STALE.format(file=self._run_file())}", str)
        except Exception:  # whatever is wrong with the connection
            with contextlib.suppress(Exception):
                # A user who could not become root has the ticket in a folder of his own.
                self._action._remove_tmp_path(self._tmpdir, force=True)


CHECK_ALIVE = (
    'f={file}; p=; s=; d=; while IFS== read -r k v; do case $k in pid) p=$v;; started) s=$v;; payload) d=$v;; esac; done 2>/dev/null <"$f"; '
    'case $p in *[!0-9]*) p=;; esac; alive=; if [ -n "$p" ] && grep -aq AnsiballZ "/proc/$p/cmdline" 2>/dev/null; then '
    't=$(cat "/proc/$p/stat" 2>/dev/null); set -- ${{t##*) }}; if [ "${{20}}" = "$s" ]; then alive=alive; fi; fi'
)
"""For a shell: finds out whether the module that wrote a run file is alive, by its process id ``p`` and start time. ``d`` is its payload."""

ALIVE, GONE, NONE = "alive", "gone", "none"
STATE = (
    CHECK_ALIVE
    + '; set -- {job}/j*[0-9]; if [ -n "$alive" ]; then echo alive; elif [ -e "$1" ]; then cat "$1"; else echo gone; fi'
)
"""For a shell: prints "alive", or else what async_wrapper has stored (that the module started, or its result), or "gone"."""

PUBLISHED = 'f={file}; if [ -e "$f" ]; then cat "$f"; else echo none; fi'
"""For a shell: prints a run file, or "none" where there is none."""

REMOVE_STALE = (
    CHECK_ALIVE
    + '; if [ -z "$alive" ] && [ -e "$f" ]; then case $d in *[!A-Za-z0-9_.]*) d=;; ansible_*_payload_*) ;; *) d=;; esac; '
    't="${{TMPDIR:-/tmp}}/$d"; if [ -n "$d" ] && [ -d "$t" ] && [ ! -L "$t" ] && [ -O "$t" ]; then rm -rf -- "$t"; fi; rm -f -- "$f"; fi'
)
"""For a shell: removes what a killed module could not remove itself (``run_file.Run``)."""


def _path(path: str) -> str:
    """A path quoted for a shell, which still expands a "~" at its beginning, as async_wrapper does."""
    home, slash, rest = path.partition("/") if path.startswith("~") else ("", "", path)
    return home + slash + (shlex.quote(rest) if rest else "")


def _state(text: str) -> str | dict[str, Any]:
    """What STATE printed, a module's result decoded as Ansible does it; raises ValueError for anything else."""
    if text in (ALIVE, GONE):
        return text
    value = json.loads(text, cls=get_module_decoder("legacy", Direction.MODULE_TO_CONTROLLER))
    if not isinstance(value, dict):
        raise ValueError("no mapping")
    return value


def _shown(text: str) -> str:
    """What a laptop printed, for an error: without what Ansible prints itself, in one line and not too long."""
    lines = [line.strip() for line in text.splitlines()]
    said = printable(
        " | ".join(line for line in lines if line and not re.match(r"Shared connection to .* closed\.$", line))
    )
    short = said if len(said) <= SHOWN else f"{said[:SHOWN]}..."
    return f"'{short}'" if said else "nothing"


def _module_message(result: dict[str, Any]) -> dict[str, Any]:
    """A module's result. Where there is none, what async_wrapper stores instead (the command and a traceback) becomes a message."""
    own = {key: value for key, value in result.items() if key not in ASYNC_KEYS and not key.startswith("_ansible_")}
    if not (result.get("failed") and "cmd" in result and ("data" in result or "outdata" in result)):
        return own
    said = str(result.get("stderr", "")).strip().splitlines()
    last = f" Its last message was {_shown(said[-1])}." if said else ""
    return dict(
        own, msg=f"The module on this laptop ended without a result: it was killed, or it crashed.{last} {KILLED}"
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
