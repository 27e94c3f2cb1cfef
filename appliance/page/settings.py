"""Settings of the page: the table ``[page]`` of the daemon's settings file, which the daemon ignores."""

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
from lungstage.appliance.config.shipped import CONTOUR_BUNDLE
from lungstage.appliance.contract.documents import Language

FOLDER = "page"
"""Folder of the page in the state folder. The page writes only there, to the requests and to the notifications."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the page listens."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it; any name except localhost may be another machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def in_url(self) -> str:
        """The address in the form of a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def address_of(text: str) -> Address:
    """Read HOST:PORT; an IPv6 address is in brackets."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ValueError("it must have the form HOST:PORT, for example 127.0.0.1:8042")
    return Address(host, int(port))


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


_Path = Annotated[Path, AfterValidator(_absolute)]


class PageSettings(BaseModel):
    """How the page is served. Every field is a key of ``[page]``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bind: Annotated[str, AfterValidator(lambda text: address_of(text) and text)] = Field(
        "127.0.0.1:8042", description="Address of the page, as HOST:PORT. An address outside this machine needs TLS."
    )
    tls_certificate: _Path | None = Field(None, description="File of the certificate chain, in PEM.")
    tls_key: _Path | None = Field(None, description="File of the private key of the certificate, in PEM.")
    behind_tls_proxy: bool = Field(
        False, description="Set to true if a reverse proxy on this machine provides TLS for the browsers."
    )
    host_names: tuple[str, ...] = Field(
        (), description="Other host names under which browsers reach the page, for example that of the proxy."
    )
    language: Language = Field("en", description="Language for browsers that accept none of en, de, fr.")
    users: _Path | None = Field(
        None,
        description="Users file. Default: page/users.json in the state folder. Without users, the token is used.",
    )
    session_minutes: float = Field(
        30.0, gt=0, le=24 * 60, description="Minutes without a click after which a session ends."
    )
    session_hours: float = Field(12.0, gt=0, le=7 * 24, description="Hours after which a session ends in any case.")
    contour_bundle: str = Field(
        CONTOUR_BUNDLE, description="Bundle that draws contours: a folder, or the name of a shipped bundle."
    )

    @model_validator(mode="after")
    def _closed(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("set both tls_certificate and tls_key, or neither")
        if self.tls_certificate is None and not self.address.is_loopback:
            raise ValueError(
                f"bind {self.bind} can be reached from other machines, and there is no TLS. Set tls_certificate and"
                " tls_key in [page], or bind to 127.0.0.1"
            )
        return self

    @property
    def address(self) -> Address:
        """Address of the page."""
        return address_of(self.bind)

    @property
    def is_secure(self) -> bool:
        """Whether browsers use TLS."""
        return self.tls_certificate is not None or self.behind_tls_proxy


@dataclass(frozen=True, slots=True)
class Site:
    """Folders and settings of a page.

    Attributes
    ----------
    state, outbox
        Folders of the daemon. If `outbox` is None, documents are read from the folder that the ledger names.
    config
        The daemon's settings file, if any.
    page
        Settings of the page.
    knows_bundle
        Whether the settings name the daemon's bundle, which ``lungstage doctor`` needs.
    """

    state: Path
    outbox: Path | None
    inbox: Path | None
    config: Path | None
    page: PageSettings
    knows_bundle: bool = False

    @property
    def folder(self) -> Path:
        """Folder of the page."""
        return self.state / FOLDER

    @property
    def users(self) -> Path:
        """The users file."""
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
    """Collect the settings; the command line takes precedence over the file.

    Raises
    ------
    SettingsError
        They are not valid: an unknown key, a wrong value, no state folder, or no TLS where it is required.
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
