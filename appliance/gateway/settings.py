"""Settings of the gateway: one TOML file of its own."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from lungstage.appliance.config.settings import Location, SettingsError, faults_of, tables_of
from lungstage.appliance.gateway.secret import Secret, secret_of

Kind = Literal["sr", "seg", "pdf", "sc"]

_AE_TITLE: Final = re.compile(r"[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?")


def _ae_title(text: str) -> str:
    if not _AE_TITLE.fullmatch(text):
        raise ValueError("an AE title has 1 to 16 characters of ASCII, no backslash, and no space at its ends")
    return text


def _address(text: str) -> str:
    host_and_port(text)
    return text


def _secret(value: Any) -> Any:
    return secret_of(value) if isinstance(value, str) else value


AeTitle = Annotated[str, AfterValidator(_ae_title)]
Bind = Annotated[str, AfterValidator(_address)]
SecretPlace = Annotated[Secret, BeforeValidator(_secret)]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def host_and_port(text: str) -> tuple[str, int]:
    """Read HOST:PORT; an IPv6 address stands in brackets."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("it is written HOST:PORT, say 127.0.0.1:11112")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine is meant; a name that is not localhost may be anybody's."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class ServerTls(_Table):
    """``tls`` of a door: how it shows who it is, and whom it asks to do so."""

    certificate: Location = Field(description="Certificate chain in PEM.")
    key: Location = Field(description="Its private key in PEM.")
    clients: Location | None = Field(
        None, description="Certificate authorities in PEM, one of which must have signed who connects (mutual TLS)."
    )


class ClientTls(_Table):
    """``tls`` of a route: whom it believes, and how it shows who it is."""

    ca: Location | None = Field(None, description="Certificate authorities in PEM; none: those of the system.")
    certificate: Location | None = Field(None, description="Certificate chain in PEM, where the other side asks.")
    key: Location | None = Field(None, description="Its private key in PEM.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        return self


class Stow(_Table):
    """``[receive.stow]``: the DICOMweb door."""

    bind: Bind = Field(description="Where it listens, as HOST:PORT; off loopback only with tls and token.")
    tls: ServerTls | None = Field(None, description="Its certificate and key, and whose it asks for.")
    token: SecretPlace | None = Field(None, description="Where the token is that a sender must bear: file:… or env:….")

    @model_validator(mode="after")
    def _closed(self) -> Self:
        if not is_loopback(host_and_port(self.bind)[0]) and (self.tls is None or self.token is None):
            raise ValueError(
                f"bind {self.bind} is not this machine alone, so both tls and token are needed. Set them, or bind to"
                " 127.0.0.1"
            )
        return self


class Receive(_Table):
    """``[receive]``: the DIMSE door."""

    ae_title: AeTitle = Field("LUNGSTAGE", description="What it is called; a sender must call it so.")
    bind: Bind = Field("127.0.0.1:11112", description="Where it listens, as HOST:PORT.")
    calling: tuple[AeTitle, ...] = Field((), description="AE titles that may send; none: any.")
    addresses: tuple[Network, ...] = Field((), description="Addresses or networks that may connect; none: any.")
    tls: ServerTls | None = Field(None, description="Its certificate and key, and whose it asks for; none: no TLS.")
    max_associations: int = Field(20, ge=1, le=500, description="Associations at once; more are rejected.")
    max_object_mb: int = Field(2048, ge=1, le=65536, description="Size of one object; a larger one is aborted.")
    min_free_mb: int = Field(2048, ge=1, description="Free space of the inbox's disk below which nothing is accepted.")
    idle_seconds: float = Field(60.0, gt=0, le=3600, description="After how long an association that rests is ended.")
    stow: Stow | None = None


class When(_Table):
    """``when`` of a route: what must hold for a document to take it."""

    outcome: tuple[str, ...] = Field(
        (), description="Answers, e.g. early, advanced, indeterminate, refused; none: any."
    )
    received_from: tuple[AeTitle, ...] = Field(
        (), alias="from", description="AE titles that the study came from; none: any."
    )


class Route(_Table):
    """``[[route]]``: which documents go where."""

    what: tuple[Kind, ...] = Field(min_length=1, description="Kinds of documents: sr, seg, pdf, sc.")
    to: str = Field(description="dicom://AET@HOST:PORT, https://HOST/…/studies, or file:///FOLDER.")
    name: str | None = Field(
        None, description="What the destination is called in commands and logs; none: its address."
    )
    when: When = Field(
        default_factory=lambda: When.model_validate({}), description="What must hold for a document to take this route."
    )
    ae_title: AeTitle | None = Field(None, description="What we are called there; none: ae_title of [receive].")
    tls: ClientTls | None = Field(None, description="TLS over DIMSE, or other authorities than the system's.")
    token: SecretPlace | None = Field(None, description="Where the token for https is: file:… or env:….")
    commitment: bool = Field(True, description="Whether storage commitment is asked for, where it is offered.")

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        parts = urlsplit(self.to)
        if parts.scheme == "dicom":
            _ae_title(parts.username or "")
            if not parts.hostname or parts.port is None or parts.path not in ("", "/") or parts.password:
                raise ValueError("to is written dicom://AET@HOST:PORT")
        elif parts.scheme in ("https", "http"):
            if not parts.hostname or parts.username or parts.password or not parts.path.endswith("/studies"):
                raise ValueError("to is written https://HOST/…/studies, without a password in it")
            if parts.scheme == "http" and not is_loopback(parts.hostname):
                raise ValueError("to has no TLS, which is for this machine alone; write https")
            if parts.scheme == "http" and self.tls is not None:
                raise ValueError("to has no TLS, but tls is set; write https")
        elif parts.scheme == "file":
            if parts.netloc or not Path(parts.path).is_absolute():
                raise ValueError("to is written file:///FOLDER")
        else:
            raise ValueError("to begins with dicom://, https:// or file:///")
        if self.token is not None and parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            raise ValueError("a token is for https")
        return self

    @property
    def label(self) -> str:
        """What it is called."""
        return self.name or self.to

    @property
    def vouches(self) -> bool:
        """Whether the other side says in so many words that it keeps what it took."""
        return self.commitment or urlsplit(self.to).scheme != "dicom"


class GatewaySettings(_Table):
    """How one gateway runs. Every field is a key of its file."""

    inbox: Location = Field(description="Folder that received studies are put into.", examples=["/srv/lungstage/inbox"])
    outbox: Location = Field(
        description="Folder whose documents are sent; read, never written.", examples=["/srv/lungstage/outbox"]
    )
    state: Location = Field(
        description="The gateway's own folder: its queue; on a local disk.", examples=["/var/lib/lungstage-gateway"]
    )
    daemons: tuple[Location, ...] = Field(
        (), description="State folders of the daemons that read the inbox; for keep_received and messages."
    )
    keep_received: float | None = Field(
        None, gt=0, le=36500, description="Days that received files stay after their report's delivery; none: always."
    )  # fmt: skip
    commitment_seconds: float = Field(
        600.0, ge=1, le=7 * 86400, description="How long an answer on storage commitment is waited for."
    )  # fmt: skip
    retry_seconds: float = Field(5.0, gt=0, le=3600, description="First pause after a failure; then doubled.")
    retry_max_seconds: float = Field(600.0, gt=0, le=86400, description="Longest such pause.")
    log_format: Literal["text", "json"] = Field("text", description="Form of the log lines on stderr.")
    receive: Receive | None = None
    route: tuple[Route, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        folders = {name: Path(os.path.realpath(getattr(self, name))) for name in ("inbox", "outbox", "state")}
        for outer in folders:
            for inner in folders:
                if outer != inner and folders[inner].is_relative_to(folders[outer]):
                    raise ValueError(f"{inner} must not lie in {outer}")
        same: dict[str, Route] = {}
        for route in self.route:
            first = same.setdefault(route.to, route)
            alone = {"what", "when"}
            if first.model_dump(exclude=alone) != route.model_dump(exclude=alone):
                raise ValueError(f"two routes to {route.to} differ in more than what and when")
        if len({route.label for route in same.values()}) < len(same):
            raise ValueError("two destinations have one name")
        return self

    @model_validator(mode="after")
    def _may_remove(self) -> Self:
        if self.keep_received is None:
            return self
        if not self.daemons:
            raise ValueError(
                "keep_received removes files only when every daemon is done with them, and daemons names none. Name the"
                " state folder of every daemon that reads this inbox"
            )
        if not any("sr" in route.what and route.vouches for route in self.route):
            raise ValueError(
                "keep_received counts from the committed delivery of the report, and no route sends sr to a destination"
                " that commits itself"
            )
        return self

    @property
    def ae_title(self) -> str:
        """What we are called."""
        return self.receive.ae_title if self.receive is not None else "LUNGSTAGE"


def load_gateway(config: Path) -> GatewaySettings:
    """Read the file.

    Raises
    ------
    SettingsError
        Naming every fault.
    """
    values = {key: value for key, value in tables_of(config).items() if key != "notify"}
    try:
        return GatewaySettings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(f"{config}: {faults_of(error, GatewaySettings)}") from error
