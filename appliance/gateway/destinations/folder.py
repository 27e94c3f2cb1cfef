"""A local or mounted folder as destination: documents are copied to it."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lungstage.appliance.config.disks import flush, prove_writable
from lungstage.appliance.gateway.destinations.destination import (
    Answer,
    AwayError,
    Commitment,
    Destination,
    DoesNotWantError,
    Session,
)
from lungstage.appliance.gateway.queue import Document


class Folder(Destination):
    """``file:///FOLDER``. A document appears there only complete, with its name of the outbox."""

    @property
    def _folder(self) -> Path:
        return Path(unquote(urlsplit(self.route.to).path))

    @contextlib.contextmanager
    def session(self, answered: Callable[[Commitment], None]) -> Iterator[Session]:
        """Copy documents. A missing folder is never made, because it may be a share that is not mounted."""
        if not self._folder.is_dir():
            raise AwayError("the folder is missing; check its path and its mount")
        yield _Copying(self._folder)

    def prove(self) -> str:
        """Write a file and delete it."""
        try:
            prove_writable(self._folder)
        except OSError as error:
            raise AwayError(str(error.strerror)) from error
        return f"The folder {self._folder} can be written to."


class _Copying(Session):
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def has(self, document: Document) -> bool | None:
        """Return None: :meth:`send` compares the files."""
        return None

    def send(self, document: Document, path: Path) -> Answer:
        content, target = path.read_bytes(), self._folder / document.name
        draft = self._folder / f".{document.name}.{secrets.token_hex(8)}.part"
        try:
            if os.path.lexists(target):
                if target.is_symlink() or not target.is_file() or target.read_bytes() != content:
                    raise DoesNotWantError("another file with the same name is there")
                return Answer(committed=True, remark="the document was there already")
            with open(draft, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(target)
            with contextlib.suppress(OSError):
                flush(self._folder)
        except OSError as error:
            raise AwayError(str(error.strerror)) from error
        finally:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
        return Answer(committed=True)
