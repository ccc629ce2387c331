"""TLS certificates. Without them, tokens and images are sent unencrypted, and browsers block camera access."""

import hashlib
import shutil
import socket
import ssl
import subprocess
import tempfile
from pathlib import Path

from kdedge_runtime.errors import MissingDependency, UsageError

__all__ = ["tls_context", "self_signed_context"]


def tls_context(certificate: Path, option: str) -> ssl.SSLContext:
    """Create a TLS context from a PEM file of a private key and its certificate.

    Args:
        certificate: the PEM file.
        option: option name for error messages.

    Raises:
        UsageError: the file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate)
    except OSError as error:  # includes ssl.SSLError
        raise UsageError(
            f"{option} {certificate} cannot be used ({error.strerror or error}). Expected a PEM file with a private "
            "key and its certificate: `cat key.pem cert.pem > both.pem`."
        ) from error
    return context


def self_signed_context(option: str) -> tuple[ssl.SSLContext, str]:
    """Create a self-signed certificate for this run. Browsers show a warning once.

    Args:
        option: option that sets a certificate, for error messages.

    Returns:
        The TLS context, and the SHA-256 fingerprint in the format of browsers, for comparison.

    Raises:
        MissingDependency: the program `openssl` is not installed.
    """
    openssl = shutil.which("openssl")
    if openssl is None:
        raise MissingDependency(
            "A self-signed certificate needs openssl, which is not installed. Run `apt install openssl`, or pass a "
            f"certificate: {option} FILE."
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
            raise UsageError(
                f"openssl failed to create a certificate: {made.stderr.strip()[-200:]} Pass one: {option} FILE."
            )
        text = pem.with_suffix(".crt").read_text()
        pem.write_text(pem.read_text() + text)
        context = tls_context(pem, option)
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(text)).hexdigest().upper()
    return context, ":".join(digest[place : place + 2] for place in range(0, len(digest), 2))
