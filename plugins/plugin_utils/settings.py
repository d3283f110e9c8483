# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The variables of the playbooks: the one list of their names, defaults and valid values."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.common.text.formatters import human_to_bytes
from ansible.module_utils.parsing.convert_bool import boolean

from ..module_utils.arguments import BOUNDS, RELAY, RELAY_OFF, SETTABLE
from ..module_utils.disk.findings import CONTENT_CHECKS
from ..module_utils.disk.select import Wanted
from ..module_utils.engine.level import AUTO, HIGHEST, LOWEST, RECOMPRESSION, parse_level
from ..module_utils.errors import ImagingError
from ..module_utils.printable import without_secrets
from .formats.exporting import FORMATS
from .live.packages import FIRMWARE, FREE
from .stores.registry import FORMS, kind_of

PREFIX = "imaging_"

URL_CHARACTERS = re.compile(r"[!-~]+")
"""Printable ASCII; all else is written with % in a URL (RFC 3986, section 2)."""


class BadValue(Exception):
    """A value that a variable can't have; says what was expected, and what was likely meant."""

    def __init__(self, expected: str, meant: str = "") -> None:
        super().__init__(expected)
        self.expected = expected
        self.meant = meant


Read = Callable[[Any], Any]
"""Takes a value from an inventory or from ``-e``, where everything may be text, and returns it in its own type; raises BadValue."""


@dataclass(frozen=True)
class Setting:
    """A variable: its default, and how a value of it is read."""

    default: Any
    read: Read


def read_boolean(value: Any) -> bool:
    """A truth value in any of Ansible's spellings."""
    try:
        return bool(boolean(value, strict=True))
    except TypeError as error:
        raise BadValue("true or false", _closest(value, ("true", "false"))) from error


def read_text(value: Any) -> str:
    """Text; also a name that YAML takes for a number."""
    if isinstance(value, (list, dict, bool)):
        raise BadValue("text")
    return str(value)


def read_store(value: Any) -> str:
    """The location of an image store."""
    if not isinstance(value, str) or kind_of(value) is None:
        raise BadValue(FORMS)
    return str(value)


def read_folder(value: Any) -> str:
    """The path of a folder, which can't be empty."""
    if not isinstance(value, str) or not value.strip():
        raise BadValue("the path of a folder")
    return str(value)


def one_of(*choices: str) -> Read:
    """One of some words."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise BadValue(_alternatives(choices), _closest(value, choices))
        return str(value)

    return read


def number_in(least: int, most: int) -> Read:
    """A whole number between two bounds, both included."""

    def read(value: Any) -> int:
        try:
            number = int(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else least - 1
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise BadValue(f"a whole number from {least} to {most}")
        return number

    return read


def read_url(value: Any) -> str:
    """The URL of a folder on an HTTP server, or nothing. It is shown in messages, and so it holds no password."""
    if value == "":
        return ""
    expected = "http://HOST/FOLDER or https://HOST/FOLDER, without user, password, query and fragment"
    if not isinstance(value, str) or not URL_CHARACTERS.fullmatch(value):
        raise BadValue(expected)
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError as error:
        raise BadValue(expected) from error
    if not usable or "@" in parts.netloc or parts.query or parts.fragment:
        raise BadValue(expected)
    return value


def read_release(value: Any) -> str | bool:
    """When whatever holds a disk is ended: before captures, before restores as well, or never."""
    if value == "capture":
        return "capture"
    try:
        return read_boolean(value)
    except BadValue:
        choices = ("capture", "true", "false")
        raise BadValue(_alternatives(choices), _closest(value, choices)) from None


def read_relay(value: Any) -> str:
    """Whether laptops pass images on. YAML takes ``off`` for a truth value."""
    return str(one_of(*RELAY)(RELAY_OFF if value is False else value))


def read_level(value: Any) -> str:
    """A level of zstd."""
    try:
        parse_level(str(value))
    except ImagingError as error:
        raise BadValue(f"{AUTO}, or a whole number from {LOWEST} to {HIGHEST}") from error
    return str(value)


def read_recompress(value: Any) -> int | str:
    """A level of zstd at which images are compressed anew, or nothing."""
    return "" if value == "" else number_in(RECOMPRESSION[0], RECOMPRESSION[-1])(value)


def read_disk(value: Any) -> str | dict[str, str]:
    """The path of a disk, or a description of it."""
    if isinstance(value, str) and (not value or value.startswith("/")):
        return str(value)
    names = tuple(Wanted.__dataclass_fields__)
    expected = f"an absolute path such as /dev/nvme0n1, or a mapping with some of {', '.join(names)}"
    if not isinstance(value, Mapping) or not value:
        raise BadValue(expected)
    for name, wanted in value.items():
        if name not in names:
            raise BadValue(expected, _closest(name, names))
        if not isinstance(wanted, (str, int)) or isinstance(wanted, bool) or wanted == "":
            raise BadValue(f"{expected}; {name} is text")
        if name.endswith("_size") and not _is_size(str(wanted)):
            raise BadValue(f"{expected}; sizes as 200GB or 1TB")
    return {str(name): str(wanted) for name, wanted in value.items()}


def _is_size(text: str) -> bool:
    try:
        return bool(human_to_bytes(text))
    except ValueError:
        return False


def list_of(choices: tuple[str, ...] = ()) -> Read:
    """A list of texts, or the same separated by commas."""

    def read(value: Any) -> list[str]:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise BadValue("a list, or text that is separated by commas")
        names = [item.strip() for item in items if item.strip()]
        for name in names:
            if choices and name not in choices:
                raise BadValue(f"a list of any of {', '.join(choices)}", _closest(name, choices))
        return names

    return read


READERS: dict[str, Read] = {
    "store": read_store,
    "store_endpoint": read_url,
    "store_staging": read_folder,
    "mirror": read_url,
    "relay": read_relay,
    "compression_level": read_level,
}
"""How the values of some arguments of modules are read; the others by their choices, bounds or type."""


def argument(name: str, spec: Mapping[str, Any]) -> Setting:
    """The setting of an argument that the playbooks set by module_defaults."""
    if name in READERS or name in BOUNDS:
        return Setting(spec["default"], READERS[name] if name in READERS else number_in(*BOUNDS[name]))
    by_type = {"bool": read_boolean, "str": read_text, "path": read_text}
    return Setting(spec["default"], one_of(*spec["choices"]) if "choices" in spec else by_type[spec["type"]])


SETTINGS: dict[str, Setting] = {
    **{PREFIX + name: argument(name, spec) for table in SETTABLE.values() for name, spec in table.items()},
    "imaging_image": Setting("", read_text),
    "imaging_disk": Setting("", read_disk),
    "imaging_release": Setting("capture", read_release),
    "imaging_allow": Setting([], list_of(tuple(check.name for check in CONTENT_CHECKS))),
    "imaging_grow": Setting("none", read_text),
    "imaging_finish": Setting("none", one_of("none", "reboot", "poweroff")),
    "imaging_report": Setting(True, read_boolean),
    "imaging_confirm_erase": Setting(False, read_boolean),
    "imaging_install": Setting(False, read_boolean),
    "imaging_become": Setting(True, read_boolean),
    "imaging_source": Setting("", read_text),
    "imaging_export": Setting("", read_text),
    "imaging_export_format": Setting("", one_of("", *FORMATS)),
    "imaging_verify_images": Setting(False, read_boolean),
    "imaging_recompress": Setting("", read_recompress),
    "imaging_uploads": Setting("", one_of("", "finish", "drop")),
    "imaging_remove_images": Setting([], list_of()),
    "imaging_live_folder": Setting("~/fleet-live", read_folder),
    "imaging_live_ca": Setting("~/fleet-live-ca", read_folder),
    "imaging_live_authorized_keys": Setting([], list_of()),
    "imaging_live_mirror": Setting([], list_of()),
    "imaging_live_firmware": Setting(FREE, one_of(*FIRMWARE)),
    "imaging_live_packages": Setting([], list_of()),
    "imaging_live_update": Setting(False, read_boolean),
}
"""By name. inventory/group_vars/all.yml explains each."""


def replacement_of(variable: str) -> str:
    """Return the setting that replaced a former variable of a role; empty for any other variable."""
    found = re.fullmatch("(?:stream_image|verify_target)_(.+)", variable)
    return PREFIX + found[1] if found and any(found[1] in table for table in SETTABLE.values()) else ""


def read_settings(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Every setting's value by its name, and what is wrong with the variables that were given, in sentences.

    ``given`` are a host's variables that begin with the prefix, or were replaced by settings. One without a value has its default.
    """
    values = {name: setting.default for name, setting in SETTINGS.items()}
    problems = []
    for variable, value in sorted(given.items()):
        if replacement_of(variable):
            problems.append(f"The roles have no variable {variable} any more: set {replacement_of(variable)} instead.")
        elif variable not in SETTINGS:
            closest = _closest(variable[len(PREFIX) :], (name[len(PREFIX) :] for name in SETTINGS))
            problems.append(
                f"There is no variable {variable}{f': did you mean {PREFIX}{closest}?' if closest else '.'}"
            )
        elif value is not None:
            try:
                values[variable] = SETTINGS[variable].read(value)
            except BadValue as error:
                meant = f" (did you mean {error.meant}?)" if error.meant else ""
                problems.append(f"{variable} is {_shown(value)}, expected {error.expected}{meant}.")
    return values, problems


def module_arguments(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What of the settings is for the modules, by the action group or module that takes it, and by the names of its arguments."""
    return {taker: {name: values[PREFIX + name] for name in table} for taker, table in SETTABLE.items()}


def _shown(value: Any) -> str:
    text = repr(without_secrets(value)) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _closest(value: Any, choices: Iterable[str]) -> str:
    found = difflib.get_close_matches(str(value).lower(), list(choices), 1)
    return found[0] if found else ""


def _alternatives(choices: Iterable[str]) -> str:
    *others, last = (choice for choice in choices if choice)
    return f"{', '.join(others)} or {last}"
