"""Self-signed certificates, made with openssl."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

OPENSSL_IS_ABSENT = shutil.which("openssl") is None
"""If true, tests that need a certificate are skipped."""

LONG_AGO = "20200201000000Z"
_BEGINNING = "20200101000000Z"
FAR_OFF = "20491231235959Z"
# `openssl req` can set an end in the past since version 3.4, `openssl ca` in all versions.
_AUTHORITY = """
[ca]
default_ca = own
[own]
database = {folder}/{name}.index
rand_serial = yes
new_certs_dir = {folder}
default_md = sha256
policy = names
x509_extensions = extensions
[names]
commonName = supplied
[extensions]
subjectAltName = DNS:{host}
basicConstraints = CA:TRUE
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The files of a certificate and its key."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """Return the TLS context of a server with this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


def self_signed(
    folder: Path, name: str, *, host: str = "localhost", ends: str = FAR_OFF
) -> Certificate:
    """Make a certificate for a host, valid from 2020 until `ends`."""
    made = Certificate(certificate=folder / f"{name}.pem", key=folder / f"{name}.key")
    authority, request = folder / f"{name}.cnf", folder / f"{name}.csr"
    authority.write_text(_AUTHORITY.format(folder=folder, name=name, host=host), "utf-8")
    (folder / f"{name}.index").touch()
    _openssl(f"req -new -newkey rsa:2048 -nodes -subj /CN={name} -keyout {made.key} -out {request}")
    _openssl(
        f"ca -selfsign -batch -notext -config {authority} -keyfile {made.key}"
        f" -startdate {_BEGINNING} -enddate {ends} -in {request} -out {made.certificate}"
    )
    return made


def _openssl(arguments: str) -> None:
    command = f"openssl {arguments}"
    subprocess.run(command.split(), check=True, capture_output=True)
