# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes text from outside fit for a terminal."""

from __future__ import annotations

DOCUMENTATION = r"""
name: printable
short_description: Make text from outside fit to be shown
version_added: 0.1.0
author:
  - The fleet.imaging contributors (@fleet-imaging)
description:
  - Replaces control characters, characters that change the direction of text, and invisible characters by their codes.
options:
  _input:
    description: A value. Anything but a string is converted to one first.
    type: raw
    required: true
"""

EXAMPLES = r"""
- name: Show a label
  ansible.builtin.debug:
    msg: "{{ label | fleet.imaging.printable }}"
"""

RETURN = r"""
_value:
  description: The text as one line, without white space at its ends, for example C(\x1b[2J) for an escape sequence.
  type: str
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.fleet.imaging.plugins.module_utils.printable import printable


class FilterModule:
    """The filter of this name."""

    def filters(self) -> Mapping[str, Callable[[Any], str]]:
        """Filters by name."""
        return {"printable": lambda value: printable(str(value))}
