"""Settings of the page: the table ``[page]`` of the daemon's file, which the daemon itself passes over."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from lungstage.appliance.config.settings import (
    SettingsError,
    default_state,
    faults_of,
    given_settings,
    state_of,
    table_of,
)
from lungstage.appliance.contract.documents import Language

FOLDER = "page"
"""Of the page, below the state folder: the only one that it writes to, besides the requests."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the page listens."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine reaches it; a name that is not localhost may be anybody's."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def in_url(self) -> str:
        """As a URL has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def address_of(text: str) -> Address:
    """Read HOST:PORT; an IPv6 address stands in brackets."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ValueError("it is written HOST:PORT, say 127.0.0.1:8042")
    return Address(host, int(port))


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


_Path = Annotated[Path, AfterValidator(_absolute)]


class PageSettings(BaseModel):
    """How the page is served. Every field is a key of ``[page]``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bind: Annotated[str, AfterValidator(lambda text: address_of(text) and text)] = Field(
        "127.0.0.1:8042", description="Where it listens, as HOST:PORT; off loopback only with TLS."
    )
    tls_certificate: _Path | None = Field(None, description="Certificate chain in PEM.")
    tls_key: _Path | None = Field(None, description="Its private key in PEM.")
    behind_tls_proxy: bool = Field(
        False, description="Whether a reverse proxy on this machine speaks TLS to the browsers."
    )
    host_names: tuple[str, ...] = Field(
        (), description="Names that browsers reach it by, besides the one that it listens on."
    )
    language: Language = Field("en", description="Language for a browser that asks for none of en, de, fr.")
    users: _Path | None = Field(
        None, description="File of the users; default: page/users.json in the state folder. Without users: the token."
    )
    session_minutes: float = Field(
        30.0, gt=0, le=24 * 60, description="After how long without a click a session ends, in minutes."
    )
    session_hours: float = Field(12.0, gt=0, le=7 * 24, description="How long a session lasts at most, in hours.")

    @model_validator(mode="after")
    def _closed(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together")
        if self.tls_certificate is None and not self.address.is_loopback:
            raise ValueError(
                f"bind {self.bind} is not this machine alone, and there is no TLS. Set tls_certificate and tls_key in"
                " [page], or bind to 127.0.0.1"
            )
        return self

    @property
    def address(self) -> Address:
        """Where it listens."""
        return address_of(self.bind)

    @property
    def is_secure(self) -> bool:
        """Whether browsers speak TLS."""
        return self.tls_certificate is not None or self.behind_tls_proxy


@dataclass(frozen=True, slots=True)
class Site:
    """Everything that a page is served from.

    Attributes
    ----------
    state, outbox
        The daemon's folders; of the outbox only where documents lie. None: they are looked for where they were put.
    config
        The daemon's settings file, if any.
    page
        How it is served.
    knows_bundle
        Whether the settings name the daemon's bundle, without which no doctor can look.
    """

    state: Path
    outbox: Path | None
    inbox: Path | None
    config: Path | None
    page: PageSettings
    knows_bundle: bool = False

    @property
    def folder(self) -> Path:
        """The page's own folder."""
        return self.state / FOLDER

    @property
    def users(self) -> Path:
        """The file of the users."""
        return self.page.users or self.folder / "users.json"


def load_site(
    config: Path | None,
    *,
    bind: str | None = None,
    state: Path | None = None,
    inbox: Path | None = None,
    outbox: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Site:
    """Put the settings together; what the command line says outranks the file.

    Raises
    ------
    SettingsError
        They cannot be used: another key, a value that does not fit, no state folder, or no TLS where it must be.
    """
    given = {key: value for key, (value, _) in given_settings(config, environment).items()}
    outbox = outbox or _path(given.get("outbox"))
    values: dict[str, Any] = table_of("page", config)
    if bind is not None:
        values["bind"] = bind
    try:
        page = PageSettings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(f"[page] {faults_of(error, PageSettings)}") from error
    folder = state
    if folder is None and outbox is not None and given.get("state") is None:
        folder = default_state(outbox)
    return Site(
        _absolute(folder or state_of(None, config, environment)),
        None if outbox is None else _absolute(outbox),
        inbox or _path(given.get("inbox")),
        config,
        page,
        "bundle" in given,
    )


def _path(value: Any) -> Path | None:
    return None if value is None else _absolute(Path(value))
