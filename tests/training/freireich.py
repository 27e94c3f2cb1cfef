"""Weeks in remission of 42 children with leukaemia: Freireich EJ et al., Blood 21, 1963; in every textbook since."""

from __future__ import annotations

from typing import Final

import numpy as np

_RELAPSED = (6, 6, 6, 7, 10, 13, 16, 22, 23)
_CENSORED = (6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35)
_ON_PLACEBO = (1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23)

MERCAPTOPURINE: Final = (
    np.array(_RELAPSED + _CENSORED, dtype=np.float64),
    np.arange(len(_RELAPSED + _CENSORED)) < len(_RELAPSED),
)
PLACEBO: Final = np.array(_ON_PLACEBO, dtype=np.float64), np.ones(len(_ON_PLACEBO), dtype=np.bool_)
"""Weeks, and whether it ended in a relapse."""
