"""The commands that make services of daemon, page and gateway: ``install-service`` and ``uninstall-service``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lungstage.appliance.service.installation import Step

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
RootOption = Annotated[
    Path,
    typer.Option(
        "--root", file_okay=False, exists=True, resolve_path=True,
        help="Folder that stands in for /, to prepare an image: no user is made, and systemd is told nothing.",
    ),
]  # fmt: skip


def install_service(
    config: Annotated[
        Path, typer.Option("--config", help="TOML file of settings; where it is not there, a template is put there.")
    ] = Path("/etc/lungstage/lungstage.toml"),
    user: Annotated[
        str, typer.Option("--user", help="System user that the daemon runs as; made if need be.")
    ] = "lungstage",
    page: Annotated[
        bool, typer.Option("--page", help="Make the page a service, too; where it is one, it stays one.")
    ] = False,
    gateway: Annotated[
        bool, typer.Option("--gateway", help="Make the gateway a service, too; where it is one, it stays one.")
    ] = False,
    dry_run: DryRunOption = False,
    root: RootOption = Path("/"),
) -> None:
    """Make this installation a systemd service: user, settings, folders and unit. It is not started yet."""
    from lungstage.appliance.service import installation

    if not config.is_absolute():
        raise typer.BadParameter("a service's settings are named by their whole path", param_hint="--config")
    _check(dry_run, root)
    named = installation.places(*installation.this_installation(), config, user, root)
    if page or gateway:
        from lungstage.appliance.config.extras import needing

        with needing("page" if page else "gateway"):
            import uvicorn  # noqa: F401  (which a service without it would miss at every start)
        if gateway:
            with needing("gateway"):
                import pynetdicom  # noqa: F401
    _do(installation.to_install(named, root, page=page, gateway=gateway), dry_run, root)
    if not dry_run:
        typer.echo(f"Next: look through {config}, then")
        typer.echo(f"  runuser -u {user} -- {named.program} doctor --config {config}")
        typer.echo("  systemctl enable --now lungstage")
        if page:
            typer.echo("  systemctl enable --now lungstage-page")
        if gateway:
            typer.echo(f"Look through {config.with_name('gateway.toml')}, then")
            typer.echo("  systemctl enable --now lungstage-gateway")


def uninstall_service(dry_run: DryRunOption = False, root: RootOption = Path("/")) -> None:
    """Stop the services and remove their units. Settings, studies, reports, ledger and user are left."""
    from lungstage.appliance.service import installation

    _check(dry_run, root)
    steps = installation.to_uninstall(root)
    _do(steps, dry_run, root)
    left = "Settings, studies, reports, ledger and user are left as they are."
    typer.echo(left if steps else "There is no such service.")


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
