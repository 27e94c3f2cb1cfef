"""Reports in the outbox that the ledger never knew, because the one that did was lost: which report each follows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

from lungstage.appliance import __version__
from lungstage.appliance.contract.case import Predecessor
from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.report import outbox
from lungstage.appliance.report.readback import Account, read_back

_FOLLOWS = bytes.fromhex("400060a3") + b"SQ"  # Predecessor Documents Sequence, as we encode it


class FormerReports:
    """What is in the outbox from before the ledger, of those that name a predecessor; no other's bytes depend on it."""

    def __init__(self) -> None:
        self._accounts: list[Account] = []

    def read(self, folder: Path, before: datetime) -> None:
        """Read those that were written to a folder before a moment."""
        for path, content in outbox.reports(folder, before):
            if _FOLLOWS in content:
                try:
                    self._accounts.append(read_back(path, content).account)
                except Refused:  # not ours, or damaged
                    continue
        self._accounts.sort(key=lambda account: account.created.timestamp(), reverse=True)

    def predecessor(self, instances: Iterable[Mapping[str, str]], bundle_digest: str | None) -> Predecessor | None:
        """Return what the newest report of the same region and slices, by the same model and software, follows."""
        uids = {instance["uid"] for instance in instances}
        for account in self._accounts:
            is_same = (account.bundle_digest, account.software) == (bundle_digest, __version__)
            if is_same and uids.issuperset((account.roi, *account.slices)):
                return account.predecessor
        return None
