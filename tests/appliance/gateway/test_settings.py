"""The gateway's settings: which values are refused, and with which message."""

from __future__ import annotations

from pathlib import Path

import pytest

from lungstage.appliance.config.settings import SettingsError
from lungstage.appliance.contract.errors import Unavailable
from lungstage.appliance.gateway.secret import secret_of
from lungstage.appliance.gateway.settings import GatewaySettings, load_gateway

FOLDERS = 'inbox = "/srv/i"\noutbox = "/srv/o"\nstate = "/var/g"\n'
ROUTE = '[[route]]\nwhat = ["sr"]\nto = "dicom://PACS@pacs:104"\n'


def load(tmp_path: Path, text: str) -> GatewaySettings:
    path = tmp_path / "gateway.toml"
    path.write_text(FOLDERS + text)
    return load_gateway(path)


def test_the_least_that_there_must_be(tmp_path: Path) -> None:
    settings = load(tmp_path, "")
    assert (settings.inbox, settings.receive, settings.route) == (Path("/srv/i"), None, ())


def test_all_that_there_is(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        """
daemons = ["/var/lib/lungstage"]
keep_received = 30
[receive]
ae_title = "LUNG"
bind = "0.0.0.0:11112"
calling = ["CT1"]
addresses = ["10.0.0.0/8", "192.168.1.7"]
tls = {certificate = "/c", key = "/k", clients = "/ca"}
[receive.stow]
bind = "10.0.0.1:8443"
tls = {certificate = "/c", key = "/k"}
token = "file:/etc/t"
[[route]]
what = ["sr", "seg"]
to = "dicom://PACS@pacs:104"
when = {outcome = ["advanced"], from = ["CT1"]}
[[route]]
what = ["pdf"]
to = "https://pacs/dicom-web/studies"
token = "env:TOKEN"
[[route]]
what = ["sc"]
to = "file:///mnt/x"
[notify]
events = ["held"]
""",
    )
    assert settings.receive is not None
    assert settings.ae_title == "LUNG"
    assert settings.route[0].when.received_from == ("CT1",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("keep_recieved = 3", "did you mean 'keep_received'"),
        ('[receive]\nbnid = "127.0.0.1:1"', "did you mean 'bind'"),
        (f"keep_received = 3\n{ROUTE}", "needs the setting daemons"),
        ('keep_received = 3\ndaemons = ["/d"]', "needs a route that sends sr"),
        (f'keep_received = 3\ndaemons = ["/d"]\n{ROUTE}commitment = false', "needs a route that sends sr"),
        ('[receive.stow]\nbind = "0.0.0.0:8080"', "both tls and token are needed"),
        ('[receive.stow]\nbind = "0.0.0.0:8080"\ntoken = "env:T"', "both tls and token are needed"),
        ('[receive.stow]\nbind = "h:1"\ntls = {certificate = "/c", key = "/k"}', "both tls and token are needed"),
        ('[receive.stow]\nbind = "127.0.0.1:1"\ntoken = "hunter2"', "write where the secret is stored"),
        ('[receive]\nae_title = "A TITLE THAT IS TOO LONG"', "an AE title has 1 to 16"),
        ('[receive]\nae_title = "A\\\\B"', "an AE title has 1 to 16"),
        ('[receive]\nbind = "11112"', "write it as HOST:PORT"),
        ('[[route]]\nwhat = ["sr"]\nto = "http://pacs/studies"', "write https"),
        ('[[route]]\nwhat = ["sr"]\nto = "https://u:p@pacs/studies"', "without a password"),
        ('[[route]]\nwhat = ["sr"]\nto = "https://pacs/dicom-web"', "/studies"),
        ('[[route]]\nwhat = ["sr"]\nto = "dicom://pacs:104"', "an AE title"),
        ('[[route]]\nwhat = ["sr"]\nto = "dicom://PACS@pacs"', "dicom://AET@HOST:PORT"),
        ('[[route]]\nwhat = ["sr"]', "'to' in the first [[route]] is missing (Destination: dicom://AET@HOST:PORT, "),
        ('[[route]]\nwhat = ["sr"]\nto = "ftp://pacs/"', "must begin with dicom://"),
        (f'{ROUTE}[[route]]\nname = "web"\nwhat = ["x"]\nto = "file:///b"', "what in the second [[route]] (web): "),
        ('[[route]]\nwhat = ["xml"]\nto = "file:///a"', "what"),
        ('[[route]]\nwhat = []\nto = "file:///a"', "what"),
        (f"{ROUTE}{ROUTE}commitment = false", "may differ only in what and when"),
        ("outbox = 1", "is not TOML"),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=r".+") as caught:
        load(tmp_path, text)
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_folders_lie_apart(tmp_path: Path) -> None:
    path = tmp_path / "g.toml"
    path.write_text('inbox = "/srv/i"\noutbox = "/srv/i/o"\nstate = "/var/g"\n')
    with pytest.raises(SettingsError, match="outbox must not be inside inbox"):
        load_gateway(path)


def test_a_secret_is_read_where_it_is_and_shown_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t").write_text("hunter2\n")
    monkeypatch.setenv("T", "hunter3")
    settings = load(tmp_path, f'[receive.stow]\nbind = "127.0.0.1:1"\ntoken = "file:{tmp_path / "t"}"\n')
    assert settings.receive is not None
    assert settings.receive.stow is not None
    assert settings.receive.stow.token is not None
    assert settings.receive.stow.token.read() == "hunter2"
    assert "hunter2" not in repr(settings)
    assert secret_of("env:T").read() == "hunter3"
    with pytest.raises(Unavailable, match="env:NOT_THERE"):
        secret_of("env:NOT_THERE").read()
