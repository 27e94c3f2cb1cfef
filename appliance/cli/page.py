"""``lungstage page``, which serves the worklist, and the commands for its users."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lungstage.appliance.cli.options import ConfigOption, InboxOption, OutboxOption, StateOption

if TYPE_CHECKING:
    from lungstage.appliance.page.accounts import Users
    from lungstage.appliance.page.settings import Site

page = typer.Typer(
    help="Show the worklist in a browser (web server), and manage its users (lungstage page users).\n\n"
    "Give --state, or the daemon's settings file with --config.\n"
    'The command prints the address to open on stderr, and then "ready".\n'
    "While there are no users, the address contains a token to log in.\n"
    "The token is shown only once. docs/page.md explains the page.",
    invoke_without_command=True,
)
users = typer.Typer(help="List, add, change or remove the users of the page.", no_args_is_help=True)
page.add_typer(users, name="users")

RoleOption = Annotated[
    Literal["view", "operate"] | None,
    typer.Option(
        "--role",
        help="view: look at studies. operate: also process them again and choose regions. A new user gets view.",
        show_default=False,
    ),
]


@page.callback()
def serve(
    context: typer.Context,
    bind: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Address to listen on; by default 127.0.0.1:8042.", show_default=False),
    ] = None,
    state: StateOption = None,
    inbox: InboxOption = None,
    outbox: OutboxOption = None,
    config: ConfigOption = None,
    new_token: Annotated[
        bool, typer.Option("--new-token", help="Make a new token. The old one is no longer valid.")
    ] = False,
) -> None:
    """Start the web server of the page, unless a subcommand is given."""
    if context.invoked_subcommand is not None:
        return
    from lungstage.appliance.page.settings import load_site

    serve_site(load_site(config, bind=bind, state=state, inbox=inbox, outbox=outbox), new_token=new_token)


def serve_site(site: Site, *, new_token: bool) -> None:
    """Serve the page of a state folder, and print its address."""
    from lungstage.appliance.config import logs
    from lungstage.appliance.config.extras import needing
    from lungstage.appliance.config.settings import setting_of

    with needing("page"):
        from lungstage.appliance.page import server
    logs.configure("json" if setting_of("log_format", site.config) == "json" else "text")

    def announce(address: str | None) -> None:
        print(f"lungstage: open {address}", file=sys.stderr, flush=True)  # noqa: T201
        print("ready", flush=True)  # noqa: T201

    server.serve(site, announce, new_token=new_token)


@users.command("list")
def list_users(state: StateOption = None, config: ConfigOption = None) -> None:
    """List the users and their roles."""
    for account in _users(state, config).all().values():
        typer.echo(f"{account.user}  {account.role}s")


@users.command("set")
def set_user(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the user.")],
    role: RoleOption = None,
    state: StateOption = None,
    config: ConfigOption = None,
    keep_password: Annotated[bool, typer.Option("--keep-password", help="Change the role only.")] = False,
) -> None:
    """Add a user, or change the password or role of one.

    The command asks for the password.
    If stdin is no terminal, it reads the password from there.
    """
    password = None
    if not keep_password:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True) if sys.stdin.isatty() else None
        password = password if password is not None else sys.stdin.readline().rstrip("\n")
    known = _users(state, config)
    known.set(name, password, role or (None if name in known.all() else "view"))


@users.command("remove")
def remove_user(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the user.")],
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Remove a user. The last user with the role operate cannot be removed."""
    _users(state, config).remove(name)


def _users(state: Path | None, config: Path | None) -> Users:
    from lungstage.appliance.config.extras import needing
    from lungstage.appliance.page.settings import load_site

    site = load_site(config, state=state)
    with needing("page"):
        from lungstage.appliance.page.accounts import Users
    return Users(site.users)
