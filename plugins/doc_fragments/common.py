# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all modules of this collection have in common; a module with another behaviour in check mode or diff mode describes it itself."""


class ModuleDocFragment:
    """Documentation of the authors, check mode, diff mode and the codes of failures."""

    DOCUMENTATION = r"""
author:
  - The fleet.imaging contributors (@fleet-imaging)
attributes:
  check_mode:
    support: full
    description: The module changes nothing.
  diff_mode:
    support: none
    description: The module shows no differences.
notes:
  - If the module fails, RV(ignore:codes) is a list of the reasons, as codes of C(docs/codes.md) for playbooks to decide by. It is empty when no code
    is more specific than the message.
"""
