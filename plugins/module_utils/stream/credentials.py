# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who an end of a link is: its name, the certificate that proves the name, and the TLS settings that follow from both.

Each run of ``ansible-playbook`` has a certificate authority of its own (``plugin_utils/run_authority.py``). It gives every end a certificate, which
holds the end's name as its only subject alternative name, a URI (RFC 5280, 4.2.1.6): ``fleet.imaging:controller``, or
``fleet.imaging:laptop/NAME`` with the host's name in the inventory, percent-encoded (RFC 3986, 2.1).
"""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass, field
from typing import Any, Mapping
from urllib.parse import quote, unquote

from ..errors import ImagingError

CONTROLLER = "controller"
"""The role of the end that leads a run."""

LAPTOP = "laptop"
"""The role of a machine whose disk is read or written."""

SCHEME = "fleet.imaging"
URI = re.compile(rf"{re.escape(SCHEME)}:({CONTROLLER}|{LAPTOP}/([A-Za-z0-9_.~%-]+))")

MAX_PEM_SIZE = 3 << 10
"""Maximum size of a certificate or key in bytes. It has to fit into a pipe, which may have as little as 4 KiB (pipe(7))."""

OPEN_FILES = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
"""Where the descriptors of this process have paths."""


@dataclass(frozen=True)
class Name:
    """The name of an end: its role, and for a laptop the name of the host in the inventory."""

    role: str
    host: str = ""

    def __str__(self) -> str:
        return f"{self.role} {self.host}".rstrip()

    @property
    def uri(self) -> str:
        """The name as it stands in a certificate."""
        return f"{SCHEME}:{self.role}" + (f"/{quote(self.host, safe='')}" if self.host else "")

    @classmethod
    def from_uri(cls, uri: str) -> Name:
        """Read a name as it stands in a certificate; raises ValueError."""
        found = URI.fullmatch(uri)
        if found is None:
            raise ValueError("not the name of an end")
        return cls(LAPTOP, unquote(found[2], errors="strict")) if found[2] else cls(CONTROLLER)

    @classmethod
    def from_certificate(cls, certificate: Mapping[str, Any]) -> Name:
        """Read the name in a verified certificate, in the form of ``SSLObject.getpeercert``; raises ValueError unless there is exactly one."""
        names = certificate.get("subjectAltName", ())
        if len(names) != 1 or names[0][0] != "URI":
            raise ValueError("not exactly one name")
        return cls.from_uri(names[0][1])


THE_CONTROLLER = Name(CONTROLLER)


@dataclass(frozen=True)
class Credentials:
    """What an end proves its name with, and how it checks others: its private key, its certificate, and the run's authority, all PEM.

    The same credentials serve for connecting and for listening, except those of the controller, which only connects.
    """

    key: str = field(repr=False)
    certificate: str
    authority: str

    def context(self, server_side: bool) -> ssl.SSLContext:
        """The settings of TLS for one side: version 1.3, both ends with a certificate of the run's authority; raises ImagingError.

        No clock matters, because the certificates are valid at all times: the authority's key is gone when its run is over.
        """
        if not getattr(ssl, "HAS_TLSv1_3", False):
            raise ImagingError(
                f"A link needs TLS 1.3, and Python's ssl module here is built with {ssl.OPENSSL_VERSION}, which lacks it: use a live system with "
                "OpenSSL 1.1.1 or newer."
            )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # the name is no DNS name: the caller of the handshake checks it
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
        if server_side:
            context.num_tickets = 0  # nobody resumes a session, so each link proves both names anew
        try:
            context.load_verify_locations(cadata=self.authority)
            load_pair(context, self.certificate, self.key)
        except (OSError, ValueError) as error:
            raise ImagingError(f"The certificates of this run can't be used ({error}). Run again.") from error
        return context


def load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Load a certificate and its key, which ``ssl`` takes from files only, through pipes, so that they are on no disk."""
    opened: list[int] = []
    try:
        for text in (certificate, key):
            data = text.encode("ascii")
            if len(data) > MAX_PEM_SIZE:
                raise ValueError("it is too large")
            reading, writing = os.pipe()
            opened.append(reading)
            try:
                os.write(writing, data)
            finally:
                os.close(writing)
        certificate_path, key_path = (f"{OPEN_FILES}/{descriptor}" for descriptor in opened)
        context.load_cert_chain(certificate_path, key_path, _no_password)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _no_password() -> str:
    """OpenSSL asks for the password of an encrypted key, by default on the terminal."""
    raise ValueError("the key is encrypted")
