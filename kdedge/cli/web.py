"""The `kdedge web` command."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["web"]


def web(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Model file written by kdedge export; fp32 is fastest.")
    ],
    listen: Annotated[
        str,
        typer.Option(
            metavar="[HOST:]PORT",
            help="Address to listen on. 0.0.0.0:PORT admits other devices, with a token over HTTPS.",
        ),
    ] = "127.0.0.1:8090",
    cert: Annotated[
        Path | None,
        typer.Option(help="PEM file with a private key and its certificate. [default: a self-signed certificate]"),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(envvar="KDEDGE_TOKEN", help="Access token required from other machines. [default: generated]"),
    ] = None,
) -> None:
    """Run a model in the browser of a laptop or phone. The browser uses its camera or microphone."""
    import os
    import threading

    from kdedge_runtime.model import Model
    from kdedge_runtime.precision import FP32
    from kdedge_runtime.server import AccessPolicy, Address
    from kdedge_runtime.server.browser.page_server import WebServer, sensor_of
    from kdedge_runtime.server.tls import self_signed_context, tls_context
    from kdedge_runtime.stream.runner import stopped_by_signals

    loaded = Model.load(model)
    sensor_of(loaded)  # refuses other samples before all else
    policy = AccessPolicy.at(
        Address.parse(listen, "--listen"), token, is_printed=token != os.environ.get("KDEDGE_TOKEN")
    )
    if loaded.metadata.precision != FP32.name:
        typer.echo(
            f"This model is {loaded.metadata.precision}. Browsers run fp32 faster: serve the fp32 file instead.",
            err=True,
        )
    tls, fingerprint = None, None
    if cert is not None:
        tls = tls_context(cert, "--cert")
    elif not policy.address.is_loopback:
        tls, fingerprint = self_signed_context("--cert")
    server = WebServer(policy, loaded, tls)
    server.start("kdedge-web")
    typer.echo(server.url)
    if fingerprint is not None:
        typer.echo(
            f"The browser will warn about the certificate because it is self-signed. SHA-256: {fingerprint}", err=True
        )
    stop = threading.Event()
    with stopped_by_signals(stop):
        stop.wait()
    server.close()
