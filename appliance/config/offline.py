"""Nothing that is not needed opens a socket."""

from __future__ import annotations

import sys


def without_requests() -> None:
    """Keep ``requests`` out of a process of ours, before pydicom is loaded.

    pydicom loads it where it is installed, only to be able to fetch test files, and urllib3 below it opens a socket at
    once, to see whether there is IPv6.
    """
    sys.modules.setdefault("requests", None)  # type: ignore[arg-type]  # which makes an import fail, as if it were not there
