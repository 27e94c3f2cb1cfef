"""Settings of the gateway, in a separate TOML file."""

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
        raise ValueError("an AE title has 1 to 16 ASCII characters, no backslash, and no space at its start or end")
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
    """Read HOST:PORT; an IPv6 address is in brackets."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("write it as HOST:PORT, for example 127.0.0.1:11112")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine only; of the names, only localhost counts."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class ServerTls(_Table):
    """``tls`` of a listening port: its certificate, and whether it asks senders for theirs."""

    certificate: Location = Field(description="File with the certificate chain, in PEM.")
    key: Location = Field(description="File with the private key of the certificate, in PEM.")
    clients: Location | None = Field(
        None,
        description="File with the authorities of client certificates, in PEM. If set, every sender needs such a "
        "certificate (mutual TLS).",
    )


class ClientTls(_Table):
    """``tls`` of a route: the trusted authorities, and the gateway's own certificate."""

    ca: Location | None = Field(
        None, description="File with the trusted certificate authorities, in PEM. Not set: those of the system."
    )
    certificate: Location | None = Field(
        None, description="File with the gateway's certificate chain, in PEM, if the destination asks for one."
    )
    key: Location | None = Field(None, description="File with the private key of the certificate, in PEM.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key must be set together")
        return self


class Stow(_Table):
    """``[receive.stow]``: reception by DICOMweb."""

    bind: Bind = Field(
        description="Address and port to listen on, as HOST:PORT. An address other than loopback needs tls and token."
    )
    tls: ServerTls | None = Field(None, description="Certificate and key for TLS, and the client authorities.")
    token: SecretPlace | None = Field(
        None, description="Where the bearer token of the senders is stored: file:PATH or env:NAME."
    )

    @model_validator(mode="after")
    def _closed(self) -> Self:
        if not is_loopback(host_and_port(self.bind)[0]) and (self.tls is None or self.token is None):
            raise ValueError(
                f"bind {self.bind} can be reached from other machines, so both tls and token are needed. Set them, or"
                " bind to 127.0.0.1"
            )
        return self


class Receive(_Table):
    """``[receive]``: reception by DIMSE."""

    ae_title: AeTitle = Field(
        "LUNGSTAGE", description="AE title of the gateway. A sender must use it as called AE title."
    )
    bind: Bind = Field("127.0.0.1:11112", description="Address and port to listen on, as HOST:PORT.")
    calling: tuple[AeTitle, ...] = Field((), description="AE titles that may send. Empty: all may send.")
    addresses: tuple[Network, ...] = Field(
        (), description="IP addresses or networks that may connect. Empty: all may connect."
    )
    tls: ServerTls | None = Field(
        None, description="Certificate and key for TLS, and the client authorities. Not set: no TLS."
    )
    max_associations: int = Field(
        20, ge=1, le=500, description="Most associations at the same time. Further ones are rejected."
    )
    max_object_mb: int = Field(
        2048, ge=1, le=65536, description="Largest object, in MB. The association of a larger object is aborted."
    )
    min_free_mb: int = Field(
        2048, ge=1, description="Least free space on the inbox's disk, in MB. With less, the gateway accepts nothing."
    )
    idle_seconds: float = Field(
        60.0, gt=0, le=3600, description="The gateway ends an association after this time without data, in seconds."
    )
    stow: Stow | None = None


class When(_Table):
    """``when`` of a route: the conditions for its documents."""

    outcome: tuple[str, ...] = Field(
        (), description="Answers, for example early, advanced, indeterminate, refused. Empty: all."
    )
    received_from: tuple[AeTitle, ...] = Field(
        (), alias="from", description="AE titles that sent the study. Empty: all."
    )


class Route(_Table):
    """``[[route]]``: which documents are sent to which destination."""

    what: tuple[Kind, ...] = Field(min_length=1, description="Kinds of documents to send: sr, seg, pdf, sc.")
    to: str = Field(description="Destination: dicom://AET@HOST:PORT, https://HOST/…/studies, or file:///FOLDER.")
    name: str | None = Field(
        None, description="Name of the destination in commands and logs. Not set: its address is shown."
    )
    when: When = Field(
        default_factory=lambda: When.model_validate({}),
        description="Conditions: only documents that meet them are sent on this route.",
    )
    ae_title: AeTitle | None = Field(
        None, description="AE title of the gateway for this destination. Not set: ae_title of [receive]."
    )
    tls: ClientTls | None = Field(
        None, description="TLS for dicom://; for https://, other authorities than those of the system."
    )
    token: SecretPlace | None = Field(
        None, description="Where the bearer token for https:// is stored: file:PATH or env:NAME."
    )
    commitment: bool = Field(
        True, description="Whether to ask the destination for storage commitment, if it offers that."
    )

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        parts = urlsplit(self.to)
        if parts.scheme == "dicom":
            _ae_title(parts.username or "")
            if not parts.hostname or parts.port is None or parts.path not in ("", "/") or parts.password:
                raise ValueError("to must have the form dicom://AET@HOST:PORT")
        elif parts.scheme in ("https", "http"):
            if not parts.hostname or parts.username or parts.password or not parts.path.endswith("/studies"):
                raise ValueError("to must have the form https://HOST/…/studies, without a password in it")
            if parts.scheme == "http" and not is_loopback(parts.hostname):
                raise ValueError("to uses http, which is allowed only for this machine; write https")
            if parts.scheme == "http" and self.tls is not None:
                raise ValueError("to uses http, but tls is set; write https")
        elif parts.scheme == "file":
            if parts.netloc or not Path(parts.path).is_absolute():
                raise ValueError("to must have the form file:///FOLDER")
        else:
            raise ValueError("to must begin with dicom://, https:// or file:///")
        if self.token is not None and parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            raise ValueError("token is allowed only for https")
        return self

    @property
    def label(self) -> str:
        """Name or address of the destination."""
        return self.name or self.to

    @property
    def vouches(self) -> bool:
        """Whether the destination confirms that it keeps a document."""
        return self.commitment or urlsplit(self.to).scheme != "dicom"


class GatewaySettings(_Table):
    """The settings of one gateway. Every field is a key of its file."""

    inbox: Location = Field(
        description="Folder for received studies: the daemon's inbox.", examples=["/srv/lungstage/inbox"]
    )
    outbox: Location = Field(
        description="Folder with the documents to send: the daemon's outbox. The gateway only reads it.",
        examples=["/srv/lungstage/outbox"],
    )
    state: Location = Field(
        description="Folder for the gateway's queue, on a local disk; not a daemon's state folder.",
        examples=["/var/lib/lungstage-gateway"],
    )
    daemons: tuple[Location, ...] = Field(
        (), description="State folders of all daemons that read the inbox; needed for keep_received and [notify]."
    )
    keep_received: float | None = Field(
        None, gt=0, le=36500,
        description="Days to keep received files after delivery of the report. Not set: they are always kept.",
    )  # fmt: skip
    commitment_seconds: float = Field(
        600.0, ge=1, le=7 * 86400,
        description="How long to wait for an answer on storage commitment before asking again, in seconds.",
    )  # fmt: skip
    retry_seconds: float = Field(
        5.0, gt=0, le=3600, description="First pause after a failure, in seconds. It doubles with each further failure."
    )
    retry_max_seconds: float = Field(600.0, gt=0, le=86400, description="Longest pause after a failure, in seconds.")
    log_format: Literal["text", "json"] = Field("text", description="Format of the log lines on stderr.")
    receive: Receive | None = None
    route: tuple[Route, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        folders = {name: Path(os.path.realpath(getattr(self, name))) for name in ("inbox", "outbox", "state")}
        for outer in folders:
            for inner in folders:
                if outer != inner and folders[inner].is_relative_to(folders[outer]):
                    raise ValueError(f"{inner} must not be inside {outer}")
        same: dict[str, Route] = {}
        for route in self.route:
            first = same.setdefault(route.to, route)
            alone = {"what", "when"}
            if first.model_dump(exclude=alone) != route.model_dump(exclude=alone):
                raise ValueError(f"two routes to {route.to} may differ only in what and when")
        if len({route.label for route in same.values()}) < len(same):
            raise ValueError("two different destinations have the same name")
        return self

    @model_validator(mode="after")
    def _may_remove(self) -> Self:
        if self.keep_received is None:
            return self
        if not self.daemons:
            raise ValueError(
                "keep_received needs the setting daemons: files are deleted only when every daemon has finished with"
                " them. Set daemons to the state folders of all daemons that read this inbox"
            )
        if not any("sr" in route.what and route.vouches for route in self.route):
            raise ValueError(
                "keep_received needs a route that sends sr to a destination that confirms storage: dicom:// with"
                " commitment, https:// or file://. Add such a route, or delete keep_received"
            )
        return self

    @property
    def ae_title(self) -> str:
        """AE title of the gateway."""
        return self.receive.ae_title if self.receive is not None else "LUNGSTAGE"


def load_gateway(config: Path) -> GatewaySettings:
    """Read the settings file.

    Raises
    ------
    SettingsError
        Its message names every fault.
    """
    values = {key: value for key, value in tables_of(config).items() if key != "notify"}
    try:
        return GatewaySettings.model_validate(values)
    except ValidationError as error:
        faults = _counted_from_one(faults_of(error, GatewaySettings), values.get("route"))
        raise SettingsError(f"{config}: {faults}") from error


_OF_A_ROUTE: Final = re.compile(r"(['\"]?)\broute\.(\d+)((?:\.[A-Za-z_]\w*)*)(?:\.\d+)*\1")
_ORDINALS: Final = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


def _counted_from_one(faults: str, routes: object) -> str:
    """Name each route as a person counts and names it: ``route.0.to`` becomes ``to in the first [[route]]``."""

    def named(found: re.Match[str]) -> str:
        quote, number, key = found[1], int(found[2]), found[3].removeprefix(".")
        which = _ORDINALS[number] if number < len(_ORDINALS) else f"{number + 1}th"
        table = routes[number] if isinstance(routes, list) and number < len(routes) else None
        name = table.get("name") if isinstance(table, dict) else None
        where = f"the {which} [[route]]" + (f" ({name})" if isinstance(name, str) else "")
        return f"{quote}{key}{quote} in {where}" if key else where

    return _OF_A_ROUTE.sub(named, faults)
