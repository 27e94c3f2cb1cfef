"""A trained contour network on disk: weights, record and figures. Export reads this folder and nothing else."""

from __future__ import annotations

import io
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from lungstage.training.contour.network import ContourNetwork
from lungstage.training.files import write_whole

WEIGHTS: Final = "network.npz"
RECORD: Final = "contour.json"
"""Files of a run. The record is written last: if it exists, the run is complete."""


@dataclass(frozen=True)
class ContourRun:
    """A trained network and its record.

    Attributes
    ----------
    network
        Ready to draw.
    record
        JSON-serialisable: ``plan``, ``cohort``, ``trained_on`` and ``held_out`` (patients), ``figures`` and
        ``versions``.
    """

    network: ContourNetwork
    record: Mapping[str, Any]

    def save(self, folder: Path) -> None:
        """Write the run into an existing folder."""
        file = io.BytesIO()
        np.savez(file, **{name: value.numpy() for name, value in self.network.state_dict().items()})
        write_whole(folder / WEIGHTS, file.getvalue())
        write_whole(folder / RECORD, (json.dumps(self.record, indent=2) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> ContourRun:
        """Read what :meth:`save` has written."""
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        network = ContourNetwork(record["plan"]["width"], record["plan"]["fine"])
        with np.load(folder / WEIGHTS) as arrays:
            network.load_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays.files})
        return cls(network.eval(), record)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that the network depends on."""
    return {"python": platform.python_version()} | {
        name: version(name) for name in ("lungstage", "numpy", "scipy", "SimpleITK", "torch")
    }
