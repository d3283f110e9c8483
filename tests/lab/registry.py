# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the registry of a Windows has, as far as it is looked at. There is no Windows here to take it from."""

from __future__ import annotations

from .hives import Values

CURRENT_VERSION = r"Microsoft\Windows NT\CurrentVersion"
SETUP_STATE = r"Microsoft\Windows\CurrentVersion\Setup\State"
READY = "IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE"
SOFTWARE: Values = {
    CURRENT_VERSION: {
        "ProductName": "Windows 10 Pro",
        "EditionID": "Professional",
        "CurrentBuild": "22631",
        "DisplayVersion": "23H2",
    },
    SETUP_STATE: {"ImageState": READY},
}
SYSTEM: Values = {
    "Setup": {"SetupType": 2, "CmdLine": "oobe\\windeploy.exe"},
    "Select": {"Current": 1},
    r"ControlSet001\Control\ComputerName\ComputerName": {"ComputerName": "REFERENCE"},
    r"ControlSet001\Control\Session Manager\Environment": {"PROCESSOR_ARCHITECTURE": "AMD64"},
}
"""What a Windows 11 has there that sysprep has made ready."""
