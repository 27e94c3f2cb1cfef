"""Keep libraries from opening sockets that lungstage does not need."""

from __future__ import annotations

import sys


def without_requests() -> None:
    """Keep this process from loading ``requests``. Call it before pydicom is loaded.

    pydicom loads ``requests`` if it is installed, only to be able to fetch test files. Its library
    urllib3 then opens a socket at once, to see whether there is IPv6.
    """
    sys.modules.setdefault("requests", None)  # type: ignore[arg-type]  # an import then fails as if it were not installed
