# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificate authority of a run of ansible-playbook: it gives each end of a link the certificate that proves its name.

The authority exists in memory only. Ansible works on each host in a process of its own, which it forks from the main process. Before the main
process forks the first process that runs an action plugin, it imports that plugin (``linear`` and ``free`` in ``ansible/plugins/strategy``), and
thereby this module. The authority is made right before the next fork, so all processes of the run have the same one, and it is gone with them.
"""

from __future__ import annotations

import os
from datetime import datetime

from ..module_utils.errors import ImagingError
from ..module_utils.stream.credentials import THE_CONTROLLER, Credentials, Name

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError as problem:
    MISSING: ImportError | None = problem
    """Why there can't be an authority."""
else:
    MISSING = None

FIRST_MOMENT = datetime(1950, 1, 1)
LAST_MOMENT = datetime(9999, 12, 31, 23, 59, 59)
"""The widest validity that a certificate can have (RFC 5280, 4.1.2.5): the clock of a live system may be wrong by decades."""


class Authority:
    """An authority: its key and its certificate.

    All keys are on the curve P-256, which every build of OpenSSL supports, also those that follow FIPS 140.
    """

    def __init__(self) -> None:
        if MISSING is not None:
            raise ImagingError(
                f"Links need the Python package cryptography for the Python that runs ansible-playbook ({MISSING}): install it (pip install "
                "cryptography). It is a requirement of ansible-core, too."
            ) from MISSING
        self._key = ec.generate_private_key(ec.SECP256R1())
        common_name = x509.NameAttribute(NameOID.COMMON_NAME, f"run {os.urandom(8).hex()}")
        self._subject = x509.Name([common_name])
        builder = self._builder(self._key.public_key(), self._subject, signs=True)
        self._certificate = builder.sign(self._key, hashes.SHA256())
        self.controller = self.issue(THE_CONTROLLER)
        """The controller's credentials, for all links of the run."""

    def issue(self, name: Name) -> Credentials:
        """Make a key, and a certificate for a name. With it, a laptop can connect and listen, the controller can only connect."""
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if name != THE_CONTROLLER:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        uri = x509.UniformResourceIdentifier(name.uri)
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            self._builder(key.public_key(), x509.Name([]), signs=False)
            .add_extension(x509.SubjectAlternativeName([uri]), critical=True)  # RFC 5280, 4.2.1.6: there is no subject
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(signer, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        return Credentials(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode(),
            certificate.public_bytes(pem).decode(),
            self._certificate.public_bytes(pem).decode(),
        )

    def _builder(self, key: ec.EllipticCurvePublicKey, subject: x509.Name, signs: bool) -> x509.CertificateBuilder:
        """The part of a certificate that the authority's own and others have in common. ``signs``: whether its key signs certificates."""
        usage = x509.KeyUsage(
            digital_signature=not signs,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=signs,
            crl_sign=signs,
            encipher_only=False,
            decipher_only=False,
        )
        return (
            x509.CertificateBuilder()
            .issuer_name(self._subject)
            .subject_name(subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(FIRST_MOMENT)
            .not_valid_after(LAST_MOMENT)
            .add_extension(x509.BasicConstraints(ca=signs, path_length=0 if signs else None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )


_authority: Authority | None = None


def run_authority() -> Authority:
    """Return the authority of this run; raises ImagingError."""
    global _authority
    if _authority is None:
        _authority = Authority()
    return _authority


if MISSING is None:
    os.register_at_fork(before=run_authority)
