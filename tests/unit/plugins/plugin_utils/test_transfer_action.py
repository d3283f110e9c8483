# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import Timeouts
from ansible_collections.fleet.imaging.plugins.plugin_utils.transfer_action import overridden


def test_a_test_may_change_figures_that_agree() -> None:
    assert overridden('{"first_link": 25}', 60) == Timeouts(first_link=25, link_timeout=60)
    for text in ("[]", "5", "{", '{"patience": 5}'):
        with pytest.raises(ImagingError, match="no JSON object of timeouts"):
            overridden(text, 60)
    with pytest.raises(ImagingError, match=r"first_attempt \(20 s\) must not be longer than first_patience \(5 s\)"):
        overridden('{"first_link": 5}', 60)
