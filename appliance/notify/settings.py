"""Settings of notifications: the table ``[notify]`` of the settings file; the daemon itself ignores it."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lungstage.appliance.config.settings import SettingsError, faults_of, table_of

Kind = Literal["held", "refused", "alert", "canary_alarm", "delivered"]

FOLDER: Final = "notify"
"""Folder of the queue, in the state folder."""

_Address = Annotated[str, Field(pattern=r"^[^\s@<>,;]+@[^\s@<>,;]+$", max_length=254)]


def _is_loopback(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"


class Email(BaseModel):
    """``[notify.email]``: messages to people."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(description="Name or address of the mail server.")
    port: int = Field(587, ge=1, le=65535, description="Port of the mail server.")
    tls: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="Encryption: starttls or tls; none only for a mail server on this machine."
    )
    user: str | None = Field(None, description="User name at the mail server.")
    password_file: Path | None = Field(None, description="File with the password.")
    sender: _Address = Field(description="Address in From.")
    to: tuple[_Address, ...] = Field(min_length=1, description="Addresses of the recipients.")

    @model_validator(mode="after")
    def _closed(self) -> Self:
        if self.tls == "none" and not _is_loopback(self.host):
            raise ValueError(f'tls = "none" is allowed only for this machine, but host is {self.host}; set tls')
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file must be set together")
        return self


class Webhook(BaseModel):
    """``[notify.webhook]``: messages to another program, as signed JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(description="Address that gets the messages: https, or http on this machine only.")
    secret_file: Path = Field(description="File with the key of the signature.")

    @model_validator(mode="after")
    def _closed(self) -> Self:
        parts = urlsplit(self.url)
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.username or parts.password:
            raise ValueError("url must be an https address without a password in it")
        if parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise ValueError("url uses http, which is allowed only for this machine; write https")
        return self


class NotifySettings(BaseModel):
    """Which notifications are sent, and how often. Every field is a key of ``[notify]``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    events: tuple[Kind, ...] = Field(
        ("held", "refused", "alert", "canary_alarm"),
        description="Events that send a message; also possible: delivered.",
    )
    email: Email | None = None
    webhook: Webhook | None = None
    digest_seconds: float = Field(
        0.0, ge=0, le=86400, description="Collect events for this time and send them as one message, in seconds."
    )
    per_hour: int = Field(
        60, ge=1, le=10_000,
        description="Most messages of a channel in one hour. The last of them contains all further events.",
    )  # fmt: skip
    patient: bool = Field(False, description="Whether a message contains the patient and the study.")

    @property
    def channels(self) -> tuple[str, ...]:
        """The configured channels."""
        return tuple(name for name in ("email", "webhook") if getattr(self, name) is not None)


def load_notify(config: Path | None) -> NotifySettings | None:
    """Return the notification settings of a file; None if it has none.

    Raises
    ------
    SettingsError
        They cannot be used.
    """
    table = table_of("notify", config)
    if not table:
        return None
    try:
        settings = NotifySettings.model_validate(table)
    except ValidationError as error:
        raise SettingsError(f"[notify] {faults_of(error, NotifySettings)}") from error
    return settings if settings.channels else None
