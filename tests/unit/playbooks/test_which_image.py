# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A forecast is of the image that a restore would take, and of none where a restore would take none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2.nativetypes
import pytest
import yaml

PLAYBOOKS = Path(__file__).resolve().parents[3] / "playbooks"
SOUND = {"name": "sound", "error": None}
OTHER = {"name": "other", "error": None}
DAMAGED = {"name": "damaged", "error": "It is damaged."}


def evaluated(expression: str, variables: dict[str, Any]) -> Any:
    return jinja2.nativetypes.NativeEnvironment().from_string(expression).render(variables)


def forecast(images: list[dict[str, Any]], named: str) -> Any:
    play = next(
        play for play in yaml.safe_load((PLAYBOOKS / "probe.yml").read_text()) if "image" in play.get("vars", {})
    )
    found = evaluated(play["vars"]["images"], {"store": {"images": images}, "named": named})
    return evaluated(play["vars"]["image"], {"images": found})


def restored(images: list[dict[str, Any]], named: str) -> Any:
    """What the assertion of a restore lets through, whose image_info lists the named image alone."""
    listed = [image for image in images if image["name"] == named] if named else images
    tasks = yaml.safe_load((PLAYBOOKS / "tasks/image.yml").read_text())
    conditions = tasks[-1]["ansible.builtin.assert"]["that"]
    met = all(evaluated(f"{{{{ {each} }}}}", {"store": {"images": listed}}) for each in conditions)
    return listed[0] if met else {}


@pytest.mark.parametrize("named", ["", "sound", "damaged", "missing"])
@pytest.mark.parametrize("images", [[], [SOUND], [DAMAGED], [SOUND, DAMAGED], [SOUND, OTHER, DAMAGED]])
def test_the_image_of_a_forecast_is_that_of_a_restore(images: list[dict[str, Any]], named: str) -> None:
    assert forecast(images, named) == restored(images, named)
