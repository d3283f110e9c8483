# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real servers for images: nginx with TLS, and SeaweedFS with the API of S3. Their certificates are made for each test run."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .laptop import free_ports

START = 20.0
"""Seconds that a server may take to start on a busy machine; alone, each takes a second at the most."""

TOKEN = "a-token-of-the-lab"
S3_KEYS = {"AWS_ACCESS_KEY_ID": "labkey", "AWS_SECRET_ACCESS_KEY": "labsecret", "AWS_DEFAULT_REGION": "us-east-1"}
BUCKET = "lab-images"
USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
"""The uses of a key that a certificate names."""


class Authority:
    """A certificate authority, and certificates of it, as files of a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Authority {folder.name}")])
        usage = dict.fromkeys(USAGES, False) | {"key_cert_sign": True, "crl_sign": True}
        certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
        )
        self.certificate = self._write("authority.pem", certificate.sign(self._key, hashes.SHA256()))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            # Python asks for both since 3.13.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )

    def _write(self, name: str, certificate: x509.Certificate) -> Path:
        path = self._folder / name
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def issue(self, name: str, addresses: Sequence[str] = ()) -> tuple[Path, Path]:
        """Make a certificate for IP addresses, and its key; returns the files."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key)
        if addresses:
            names = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        key_file = self._folder / f"{name}.key"
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return self._write(f"{name}.pem", builder.sign(self._key, hashes.SHA256())), key_file


@dataclass(frozen=True)
class Server:
    """A running server: its URL, and the authority that its certificate is of."""

    url: str
    authority: Authority
    log: Path

    @property
    def ca(self) -> str:
        """The path of the authority's certificate."""
        return str(self.authority.certificate)


@contextlib.contextmanager
def _running(command: Sequence[str], address: str, port: int, log: Path) -> Iterator[None]:
    """Run a server for as long as the context lasts."""
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            end = time.monotonic() + START
            while True:
                with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
                    break
                assert process.poll() is None and time.monotonic() < end, log.read_text()
                time.sleep(0.05)
            yield
        finally:
            process.kill()


NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log {folder}/access.log; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi; sendfile on;
  map $http_authorization $known {{ default 0; "Bearer {token}" 1; }}
  server {{
    listen {address}:{port} ssl; root {images};
    ssl_certificate {certificate}; ssl_certificate_key {key};
    ssl_client_certificate {authority}; ssl_verify_client optional;
    location / {{ }}
    location /token/ {{ alias {images}/; if ($known = 0) {{ return 401; }} }}
    location /client/ {{ alias {images}/; if ($ssl_client_verify != SUCCESS) {{ return 403; }} }}
    location /moved/ {{ rewrite ^/moved/(.*)$ https://{address}:{port}/$1 redirect; }}
    location /whole/ {{ alias {images}/; max_ranges 0; }}
  }}
}}
"""


@contextlib.contextmanager
def nginx(folder: Path, images: str, address: str = "127.0.0.1", inside: Sequence[str] = ()) -> Iterator[Server]:
    """Serve a folder by nginx: at ``/``, for a bearer token at ``/token/``, for a client's certificate at ``/client/``, by a redirect at ``/moved/``,
    and without ranges at ``/whole/``. ``inside`` is the beginning of a command that runs another one in a network namespace.
    """
    authority = Authority(folder / "authority")
    certificate, key = authority.issue("server", [address])
    (port,) = free_ports(1)
    config = folder / "nginx.conf"
    config.write_text(
        NGINX.format(
            folder=folder,
            images=images,
            address=address,
            port=port,
            token=TOKEN,
            certificate=certificate,
            key=key,
            authority=authority.certificate,
        )
    )
    command = [*inside, "nginx", "-c", str(config), "-e", str(folder / "error.log")]
    with _running(command, address, port, folder / "output.log"):
        yield Server(f"https://{address}:{port}", authority, folder / "access.log")


def s3_client(server: Server) -> Any:
    """Return a client of boto3 for a server of :func:`s3_server`."""
    names = ("aws_access_key_id", "aws_secret_access_key", "region_name")
    keys = dict(zip(names, S3_KEYS.values(), strict=True))
    return boto3.client("s3", endpoint_url=server.url, verify=server.ca, **keys)


def _wait_for_bucket(server: Server) -> None:
    client, end = s3_client(server), time.monotonic() + START
    while True:
        try:
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"")
        except ClientError:
            assert time.monotonic() < end, server.log.read_text()
            time.sleep(0.1)
        else:
            client.delete_object(Bucket=BUCKET, Key="ready")
            return


@contextlib.contextmanager
def s3_server(folder: Path, address: str = "127.0.0.1", inside: Sequence[str] = ()) -> Iterator[Server]:
    """Run SeaweedFS with an empty bucket, BUCKET, for whoever has S3_KEYS, over TLS. ``inside`` is as of :func:`nginx`."""
    authority = Authority(folder / "authority")
    certificate, key = authority.issue("server", [address])
    keys = {"accessKey": S3_KEYS["AWS_ACCESS_KEY_ID"], "secretKey": S3_KEYS["AWS_SECRET_ACCESS_KEY"]}
    identities = [{"name": "lab", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List"]}]
    (folder / "identities.json").write_text(json.dumps({"identities": identities}))
    parts = ("master", "volume", "filer", "s3", "admin")
    ports = dict(zip([*parts, *(f"{part}.grpc" for part in parts)], free_ports(2 * len(parts)), strict=True))
    ports.update({"s3.iceberg": 0, "s3.lance": 0})  # not served
    (folder / "data").mkdir()
    command = [*inside, "weed", "mini", f"-dir={folder / 'data'}", f"-ip={address}", f"-ip.bind={address}"]
    command += [
        f"-{part}.port{dot}{kind}={port}" for name, port in ports.items() for part, dot, kind in [name.partition(".")]
    ]
    command += ["-webdav=false", "-admin.ui=false", "-master.telemetry=false", f"-bucket={BUCKET}"]
    command += [f"-s3.config={folder / 'identities.json'}", f"-s3.cert.file={certificate}", f"-s3.key.file={key}"]
    log = folder / "weed.log"
    try:
        with _running(command, address, ports["s3"], log):
            server = Server(f"https://{address}:{ports['s3']}", authority, log)
            _wait_for_bucket(server)
            yield server
    finally:
        for part in parts:  # its sockets have fixed places
            for name in (f"{part}-{ports[part]}", f"{part}-grpc-{ports[f'{part}.grpc']}"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"/tmp/seaweedfs-{name}.sock")
