# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the user to confirm what will be lost. No host is contacted."""

from typing import Any, ClassVar

from ansible.errors import AnsiblePromptInterrupt, AnsiblePromptNoninteractive

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.reasons import NOT_CONFIRMED
from ansible_collections.fleet.imaging.plugins.plugin_utils.controller_action import ControllerAction

NO_TERMINAL = "Where there is no terminal, set imaging_confirm_erase: true for every laptop"


class ActionModule(ControllerAction):
    """Action plugin of M(fleet.imaging.confirm)."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "about": {"type": "str", "required": True},
        "word": {"type": "str", "required": True},
        "unconfirmed": {"type": "list", "elements": "str", "required": True},
        "subject": {"type": "dict", "required": True},
    }

    def work(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Ask unless everything is confirmed in advance; raises ImagingError unless the answer is the expected word."""
        about, word, hosts = arguments["about"], arguments["word"], arguments["unconfirmed"]
        if hosts:
            self._ask(about, word, hosts)
        else:
            self._display.display(about)
        return {"changed": False, "confirmed": arguments["subject"]}

    def _ask(self, about: str, word: str, hosts: list[str]) -> None:
        whom = f"imaging_confirm_erase is not set for {', '.join(hosts)}.\n"
        try:
            typed = self._display.prompt_until(f"{about}\n\n{whom}Type '{word}' to go on, anything else to stop:")
        except AnsiblePromptNoninteractive:
            way_out = f"{NO_TERMINAL} (it is not set for {', '.join(hosts)})."
            problem = f"expected '{word}' to be typed, and there is no terminal. {way_out}"
        except AnsiblePromptInterrupt:
            problem = f"the question was interrupted before '{word}' was typed."
        else:
            answer = typed.decode(errors="replace").strip()
            if answer == word:
                return
            problem = f"expected '{word}', and {answer!r} was typed. Run the same command to be asked again."
        raise ImagingError(f"Nothing was touched: {problem}", [NOT_CONFIRMED])
