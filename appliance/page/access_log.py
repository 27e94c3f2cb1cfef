"""Who looked at what: a log of the page, hash-chained like the audit log, and read by the same commands.

It names users and jobs. It contains no patient names.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from lungstage.appliance.page.sessions import Session
from lungstage.appliance.state.audit import Audit


class AccessLog:
    """The access log of one page.

    Parameters
    ----------
    folder
        Folder of the page.
    """

    def __init__(self, folder: Path) -> None:
        self._audit = Audit(folder)

    async def tell(self, event: str, user: str, client: str, **told: object) -> None:
        """Write an entry to the disk.

        Raises
        ------
        Unavailable
            It cannot be written; then nothing is shown.
        """
        await run_in_threadpool(self._audit.write, event, user=user, client=client, **told)

    async def shown(self, event: str, session: Session, client: str, jobs: Iterable[int]) -> None:
        """Record which jobs a user sees: each job and kind of view once per session."""
        async with session.noting:  # a page requests three pictures at once
            new = sorted({job for job in jobs if (event, job) not in session.shown})
            if new:
                await self.tell(event, session.account.user, client, jobs=new)
                session.shown |= {(event, job) for job in new}
