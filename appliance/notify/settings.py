"""Settings of the messages: the table ``[notify]`` of the daemon's file, which the daemon itself passes over."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lungstage.appliance.config.settings import SettingsError, faults_of, table_of

Kind = Literal["held", "refused", "alert", "canary_alarm", "delivered"]

FOLDER: Final = "notify"
"""Of the queue, below the state folder."""

_Address = Annotated[str, Field(pattern=r"^[^\s@<>,;]+@[^\s@<>,;]+$", max_length=254)]


def _is_loopback(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"


class Email(BaseModel):
    """``[notify.email]``: messages to people."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(description="Mail server.")
    port: int = Field(587, ge=1, le=65535, description="Its port.")
    tls: Literal["starttls", "tls", "none"] = Field("starttls", description="none on this machine alone.")
    user: str | None = Field(None, description="Name to log in with.")
    password_file: Path | None = Field(None, description="File that holds the password.")
    sender: _Address = Field(description="Whom the messages are from.")
    to: tuple[_Address, ...] = Field(min_length=1, description="Whom they go to.")

    @model_validator(mode="after")
    def _closed(self) -> Self:
        if self.tls == "none" and not _is_loopback(self.host):
            raise ValueError(f'tls = "none" is for this machine alone, and {self.host} is another')
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file belong together")
        return self


class Webhook(BaseModel):
    """``[notify.webhook]``: messages to another program, as signed JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(description="Where they are posted to: https, or http on this machine.")
    secret_file: Path = Field(description="File that holds the key of the signature.")

    @model_validator(mode="after")
    def _closed(self) -> Self:
        parts = urlsplit(self.url)
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.username or parts.password:
            raise ValueError("url is an address with https, without a password in it")
        if parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise ValueError("url has no TLS, which is for this machine alone; write https")
        return self


class NotifySettings(BaseModel):
    """What is told, and how often. Every field is a key of ``[notify]``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    events: tuple[Kind, ...] = Field(
        ("held", "refused", "alert", "canary_alarm"), description="What is told of; delivered is another."
    )
    email: Email | None = None
    webhook: Webhook | None = None
    digest_seconds: float = Field(
        0.0, ge=0, le=86400, description="How long messages are gathered to be sent as one, in seconds."
    )
    per_hour: int = Field(60, ge=1, le=10_000, description="Most messages of a channel in an hour; then one for many.")
    patient: bool = Field(False, description="Whether a message names the patient and the study.")

    @property
    def channels(self) -> tuple[str, ...]:
        """Which ways there are."""
        return tuple(name for name in ("email", "webhook") if getattr(self, name) is not None)


def load_notify(config: Path | None) -> NotifySettings | None:
    """Return what the settings file says of messages; None where it wants none.

    Raises
    ------
    SettingsError
        It cannot be used.
    """
    table = table_of("notify", config)
    if not table:
        return None
    try:
        settings = NotifySettings.model_validate(table)
    except ValidationError as error:
        raise SettingsError(f"[notify] {faults_of(error, NotifySettings)}") from error
    return settings if settings.channels else None
