"""The commands for systemd services of daemon, page and gateway: ``install-service`` and ``uninstall-service``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lungstage.appliance.service.installation import Step

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show the steps without doing them.")]
RootOption = Annotated[
    Path,
    typer.Option(
        "--root", file_okay=False, exists=True, resolve_path=True,
        help="Folder to use instead of /, to prepare an image. No user is created, and systemd is not called.",
    ),
]  # fmt: skip


def install_service(
    config: Annotated[
        Path,
        typer.Option(
            "--config",
            metavar="FILE",
            help="Settings file of the daemon (TOML). If it does not exist, a template is written.",
        ),
    ] = Path("/etc/lungstage/lungstage.toml"),
    user: Annotated[
        str, typer.Option("--user", help="System user that the daemon runs as. It is created if it does not exist.")
    ] = "lungstage",
    page: Annotated[
        bool, typer.Option("--page", help="Also install the page as a service. If it is one already, it stays one.")
    ] = False,
    gateway: Annotated[
        bool,
        typer.Option("--gateway", help="Also install the gateway as a service. If it is one already, it stays one."),
    ] = False,
    dry_run: DryRunOption = False,
    root: RootOption = Path("/"),
) -> None:
    """Install the daemon as a systemd service. The service is not started yet.

    Run it as root. It makes the user, the settings file, the folders and the unit.
    Then it prints the next steps.
    """
    from lungstage.appliance.service import installation

    if not config.is_absolute():
        raise typer.BadParameter(
            "give the absolute path, for example /etc/lungstage/lungstage.toml", param_hint="--config"
        )
    _check(dry_run, root)
    named = installation.places(*installation.this_installation(), config, user, root)
    if page or gateway:
        from lungstage.appliance.config.extras import needing

        with needing("page" if page else "gateway"):
            import uvicorn  # noqa: F401  (without it, the service would fail at every start)
        if gateway:
            with needing("gateway"):
                import pynetdicom  # noqa: F401
    _do(installation.to_install(named, root, page=page, gateway=gateway), dry_run, root)
    if not dry_run:
        typer.echo(f"Next: check the settings in {config}. Then run:")
        typer.echo(f"  runuser -u {user} -- {named.program} doctor --config {config}")
        typer.echo("  systemctl enable --now lungstage")
        if page:
            typer.echo("  systemctl enable --now lungstage-page")
        if gateway:
            typer.echo(f"Check the settings in {config.with_name('gateway.toml')}. Then run:")
            typer.echo("  systemctl enable --now lungstage-gateway")


def uninstall_service(dry_run: DryRunOption = False, root: RootOption = Path("/")) -> None:
    """Stop the systemd services and remove their units.

    Settings, studies, reports, ledger and user are not removed.
    """
    from lungstage.appliance.service import installation

    _check(dry_run, root)
    steps = installation.to_uninstall(root)
    _do(steps, dry_run, root)
    left = "Settings, studies, reports, ledger and user were not removed."
    typer.echo(left if steps else "There is no service of lungstage to remove.")


def _check(dry_run: bool, root: Path) -> None:
    from lungstage.appliance.service import installation

    if not dry_run and root == installation.HOST:
        installation.check_host()


def _do(steps: list[Step], dry_run: bool, root: Path) -> None:
    from lungstage.appliance.service import installation

    for step in steps:
        typer.echo(str(step))
        if not dry_run:
            installation.perform([step], root)
        elif isinstance(step, installation.WriteFile):
            typer.echo(f"\n{step.text}")
