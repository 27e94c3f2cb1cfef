"""Reports in the outbox from before a lost ledger: they show which predecessor a report names."""

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
    """Reports in the outbox that are older than the ledger and name a predecessor; only their bytes depend on it."""

    def __init__(self) -> None:
        self._accounts: list[Account] = []

    def read(self, folder: Path, before: datetime) -> None:
        """Read the reports that were written to a folder before a time."""
        for path, content in outbox.reports(folder, before):
            if _FOLLOWS in content:
                try:
                    self._accounts.append(read_back(path, content).account)
                except Refused:  # of another software, or damaged
                    continue
        self._accounts.sort(key=lambda account: account.created.timestamp(), reverse=True)

    def predecessor(self, instances: Iterable[Mapping[str, str]], bundle_digest: str | None) -> Predecessor | None:
        """Return the predecessor that the newest report of the same region, slices, model and software names."""
        uids = {instance["uid"] for instance in instances}
        for account in self._accounts:
            is_same = (account.bundle_digest, account.software) == (bundle_digest, __version__)
            if is_same and uids.issuperset((account.roi, *account.slices)):
                return account.predecessor
        return None
