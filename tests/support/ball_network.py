"""A contour network that draws the ball of the prompt and ignores the image."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from lungstage.appliance.contour.prompts import CHANNELS
from lungstage.export.contour import build_contour
from lungstage.training.contour.network import ContourNetwork
from lungstage.training.contour.run import ContourRun, versions
from lungstage.training.contour.training import Plan

SLOPE = 20.0


def ball_network() -> ContourNetwork:
    """The logit of a voxel is ``20 (size - 0.5 + include - exclude)``, so a diameter gives the ball around it."""
    network = ContourNetwork(width=2, fine=2).eval()
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    (conv, norm, _), block, last = network.fine
    with torch.no_grad():
        for sign, feature in ((1.0, 0), (-1.0, 1)):  # positive and negative values
            for channel, weight in (("size", 1.0), ("include", 1.0), ("exclude", -1.0)):
                conv.weight[feature, 2 + CHANNELS.index(channel), 1, 1, 1] = sign * weight
            norm.bias[feature] = -0.5 * sign
            block.first[0].weight[feature, feature, 1, 1, 1] = 1.0
            last.weight[0, feature] = sign * SLOPE
        norm.weight.fill_(1.0)
        block.first[1].weight.fill_(1.0)
    return network


def ball_run() -> ContourRun:
    """A training run of this network."""
    figures = {
        "diameter": {
            "patients": 2, "dice_median": 0.8, "dice_tenth_percentile": 0.6, "volume_icc": 0.9, "sphericity_icc": None,
        }
    }  # fmt: skip
    record = {
        "plan": asdict(Plan(steps=1, width=2, fine=2)),
        "cohort": {"name": "made up", "source": "made up", "licence": "CC0"},
        "trained_on": ["A"],
        "held_out": ["B", "C"],
        "figures": figures,
        "versions": versions(),
    }
    return ContourRun(ball_network(), record)


def ball_bundle(folder: Path) -> Path:
    """Build its bundle into a folder, which is returned."""
    build_contour(ball_run(), folder)
    return folder
