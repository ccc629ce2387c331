"""A certificate: browsers give a camera only to pages of this machine or to encrypted ones."""

import hashlib
import shutil
import socket
import ssl
import subprocess
import tempfile
from pathlib import Path

from kdedge_runtime.errors import MissingDependency, UsageError

__all__ = ["certified", "self_signed"]


def certified(certificate: Path) -> ssl.SSLContext:
    """Speak HTTPS with a PEM file of a private key and its certificate.

    Raises:
        UsageError: it is no such file.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate)
    except OSError as error:  # ssl.SSLError is one
        raise UsageError(
            f"--cert {certificate} cannot be used ({error.strerror or error}). Expected a PEM file with a private key "
            "and its certificate: `cat key.pem cert.pem > both.pem`."
        ) from error
    return context


def self_signed() -> tuple[ssl.SSLContext, str]:
    """Make a certificate for this run, that no authority vouches for: browsers warn of it once.

    Returns:
        It, and its SHA-256 fingerprint as browsers show it, so that a careful person can compare.

    Raises:
        MissingDependency: the program `openssl` is not installed.
    """
    openssl = shutil.which("openssl")
    if openssl is None:
        raise MissingDependency(
            "Other machines' browsers open a camera on encrypted pages only, and making a certificate needs openssl, "
            "which is not installed. Type `apt install openssl`, or name a certificate: --cert FILE."
        )
    host = socket.gethostname()
    with tempfile.TemporaryDirectory() as folder:
        pem = Path(folder) / "both.pem"
        command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-days", "30", "-subj", "/CN=kdedge", "-addext", f"subjectAltName=DNS:{host},DNS:localhost"]
        made = subprocess.run(
            [*command, "-keyout", pem, "-out", pem.with_suffix(".crt")], capture_output=True, text=True
        )
        if made.returncode:
            raise UsageError(f"openssl made no certificate: {made.stderr.strip()[-200:]} Name one: --cert FILE.")
        text = pem.with_suffix(".crt").read_text()
        pem.write_text(pem.read_text() + text)
        context = certified(pem)
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(text)).hexdigest().upper()
    return context, ":".join(digest[place : place + 2] for place in range(0, len(digest), 2))
