"""``lungstage gateway``, which serves the DICOM network, and the commands for its queue."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lungstage.appliance.cli.options import JsonOption

if TYPE_CHECKING:
    from lungstage.appliance.gateway.settings import GatewaySettings

gateway = typer.Typer(
    help="Receive studies from the DICOM network into the inbox, and send reports from the outbox.\n\n"
    'It prints "ready" when it has started. docs/gateway.md explains the settings.\n'
    "The commands below need the same settings: lungstage gateway --config FILE queue",
    invoke_without_command=True,
)


@gateway.callback()
def serve(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", readable=False, help="Settings file of the gateway (TOML).", show_default=False
        ),
    ] = None,
) -> None:
    """Start the gateway, unless a subcommand is given."""
    from lungstage.appliance.config.settings import SettingsError
    from lungstage.appliance.gateway.settings import load_gateway

    if config is None:
        raise SettingsError(
            "Give the gateway's settings file: lungstage gateway --config /etc/lungstage/gateway.toml. "
            "docs/gateway.md has an example."
        )
    context.obj = settings = load_gateway(config)
    if context.invoked_subcommand is None:
        serve_network(settings, config)


def serve_network(settings: GatewaySettings, config: Path) -> None:
    """Serve until SIGTERM or SIGINT."""
    from lungstage.appliance.config import logs
    from lungstage.appliance.config.extras import needing

    logs.configure(settings.log_format)
    signals: list[int] = []  # a list, because setting an Event is not safe in a signal handler
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: signals.append(number))
    with needing("gateway"):
        from lungstage.appliance.gateway import server
    server.serve(settings, config, lambda: bool(signals), lambda: print("ready", flush=True))  # noqa: T201


@gateway.command()
def queue(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the documents that are not sent yet, and count all by destination and state."""
    from lungstage.appliance.config.extras import needing

    with needing("gateway"):
        from lungstage.appliance.gateway import administration
    waiting = administration.queue_of(context.obj)
    rows = [administration.row(delivery) for delivery in waiting.open_deliveries()]
    counts = [{"to": to, "state": state, "count": count} for (to, state), count in waiting.counts().items()]
    if as_json:
        typer.echo(json.dumps({"deliveries": rows, "counts": counts}, indent=2))
        return
    for row in rows:
        typer.echo("  ".join(str(row[key]) for key in ("id", "state", "kind", "document", "to", "attempts", "why")))
    for one in counts:
        typer.echo(f"{one['to']}: {one['count']} {one['state']}")


@gateway.command()
def retry(
    context: typer.Context,
    number: Annotated[int, typer.Argument(metavar="ID", help="Number of the delivery, from lungstage gateway queue.")],
) -> None:
    """Send one document again now."""
    from lungstage.appliance.config.extras import needing

    with needing("gateway"):
        from lungstage.appliance.gateway import administration
    administration.queue_of(context.obj).retry(number)
    typer.echo(f"Delivery {number} will be tried again.")


@gateway.command()
def test(
    context: typer.Context,
    destination: Annotated[
        str, typer.Argument(metavar="DEST", help="Name or address of a destination in the settings file.")
    ],
) -> None:
    """Check that a destination can be reached. Nothing is stored there."""
    from lungstage.appliance.config.extras import needing

    with needing("gateway"):
        from lungstage.appliance.gateway import administration
    typer.echo(administration.prove(context.obj, destination))
