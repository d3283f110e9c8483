# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Record what a terminal shows of the real playbooks, and put it into README.md.

Usage: record.py INVENTORY
INVENTORY is that of a lab that is up (tests/lab/lab up --laptops 3 --disk-size 2G). Its laptops are captured, restored and compared in
a pseudo-terminal, with a home folder of its own for the image store, and the confirmation is typed. Of what the terminal showed whole
tasks are left out, and nothing else is changed.
"""

from __future__ import annotations

import os
import pty
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).absolute().parents[2]
README = ROOT / "README.md"
BEGIN, END = "<!-- recording, made by tests/tools/record.py -->\n", "<!-- end of recording -->\n"
COMMANDS = [
    "capture.yml -l reference -e imaging_image=win11-lab",
    "restore.yml -l lab_laptops",
    "verify.yml -l lab_laptops",
    "images.yml -e imaging_verify_images=true",
]
# Tasks that only prepare something.
LEFT_OUT = re.compile(
    r"TASK \[(.*Validating arguments|.*Keep the result|.*List the laptop|.*Remember the selected|.*Check that nothing holds"
    r"|.*Check whether the content|.*Examine the content|.*Refuse a disk|.*Release /dev"
    r"|Check all variables|Open the image|Check that one image|Read the store)"
)
# Tasks that were skipped on every host.
SKIPPED = re.compile(r"TASK [^\n]*(\nskipping: [^\n]*)+")
QUESTION = re.compile(rb"Type '(.*?)' to go on")
# With these Ansible wipes the line with the answer off the terminal. A recording keeps it.
WIPE = re.compile(r"\^M\x1b\[\r\x1b\[\x1b\[K")


def main(arguments: list[str]) -> int:
    """Record all commands; return the first exit status that is not 0, and change nothing then, or 0."""
    if len(arguments) != 1:
        sys.exit(__doc__)
    recorded = []
    with tempfile.TemporaryDirectory(prefix="fleet-home-", dir="/var/tmp") as home:
        environment = terminal_environment(Path(arguments[0]), home)
        for command in COMMANDS:
            status, screen = in_terminal(["ansible-playbook", *command.split()], environment)
            recorded.append(f"$ ansible-playbook {command}\n\n{shortened(shown(screen))}\n")
            print(recorded[-1])
            if status:
                return status
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text("".join([before, BEGIN, "```console\n", "\n".join(recorded), "```\n", END, after]))
    return 0


def terminal_environment(inventory: Path, home: str) -> dict[str, str]:
    """Return the environment of somebody who set Ansible up for this inventory and has no images yet."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    path = os.pathsep.join([str(ROOT / ".venv/bin"), os.environ["PATH"]])
    settings = {"ANSIBLE_INVENTORY": str(inventory.absolute()), "ANSIBLE_NOCOLOR": "1"}
    return own | settings | {"HOME": home, "PATH": path, "TERM": "dumb"}


def in_terminal(command: list[str], environment: Mapping[str, str]) -> tuple[int, bytes]:
    """Run a command in a terminal, and type what it asks for; return its exit status and everything that the terminal got."""
    process, terminal = pty.fork()
    if not process:
        os.chdir(ROOT / "playbooks")
        os.execvpe(command[0], command, environment)
    screen = b""
    answered = False
    while True:
        try:
            screen += os.read(terminal, 65536)
        except OSError:  # EIO: the terminal's other side was closed
            break
        question = QUESTION.search(screen)
        if question and not answered:
            time.sleep(1)  # as a person takes: Ansible asks first and sets the terminal up then
            os.write(terminal, question[1] + b"\r")
            answered = True
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), screen


def shown(screen: bytes) -> str:
    """Return the lines that were shown, without the blanks at their ends."""
    text = WIPE.sub("", screen.decode(errors="replace"))
    return "\n".join(line.rstrip() for line in text.replace("\r\n", "\n").split("\n"))


def shortened(text: str) -> str:
    """Return a playbook's output with dots in place of the tasks that are left out."""
    # A question comes in the middle of a task's output.
    blocks = re.split(r"\n+(?=PLAY |TASK |\[Ask)", text.strip("\n"))
    kept: list[str] = []
    for block in blocks:
        if not LEFT_OUT.match(block) and not SKIPPED.fullmatch(block):
            kept.append(block)
        elif kept[-1] != "...":
            kept.append("...")
    return "\n\n".join(kept)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
