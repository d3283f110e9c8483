# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows at the end of a failed or interrupted run which disks do not boot, and how to continue."""

DOCUMENTATION = """
name: outcome
type: notification
short_description: Shows which disks do not boot after a failed run, and the command to continue
version_added: 0.1.0
author:
  - The fleet.imaging contributors (@fleet-imaging)
description:
  - When a run with M(fleet.imaging.image_restore) fails for some laptops or is interrupted, its last lines say which disks do not boot now,
    which may not boot, and which were not touched, and show the command to continue with these laptops.
  - After a failed capture, the last lines say whether the stored part is kept, and show the command to continue.
  - When Ansible could not log in or become root, they name the missing option, as the message of the task does.
  - Values of variables whose names hold V(pass), V(secret) or V(token) are left out of the command.
requirements:
  - C(callbacks_enabled = fleet.imaging.outcome) in C(ansible.cfg), as in the folder C(playbooks) of the collection.
"""

import sys

from ansible_collections.fleet.imaging.plugins.plugin_utils.closing_lines import closing_lines
from ansible_collections.fleet.imaging.plugins.plugin_utils.run import Run
from ansible_collections.fleet.imaging.plugins.plugin_utils.run_callback import RunCallback


class CallbackModule(RunCallback):
    """Shows the closing lines of a run."""

    CALLBACK_NAME = "fleet.imaging.outcome"

    def finish(self, run: Run, interrupted: bool) -> None:
        for line in closing_lines(run, interrupted, sys.argv):
            self._display.display(line)
