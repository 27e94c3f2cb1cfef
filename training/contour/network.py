"""The network: a U-Net on 2 mm, and a few layers on 1 mm that place the surface.

The image is seen through two windows, as a radiologist sees it: one for lung, one for soft tissue. There is no
normalisation over the image, only over the training batches (folded into the convolutions at export), so an answer
does not depend on how much of the surroundings the window shows.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from lungstage.appliance.contour.prompts import CHANNELS

LUNG_WINDOW: Final = (-1000.0, 400.0)
SOFT_WINDOW: Final = (-160.0, 240.0)
_INPUTS = 2 + len(CHANNELS)


def _layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm3d(outputs, momentum=0.03), nn.ReLU()
    )


class _Block(nn.Module):
    """Two layers; the second one corrects the first."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = _layer(inputs, outputs), _layer(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        corrected: Tensor = x + self.second(x)
        return corrected


class ContourNetwork(nn.Module):
    """HU and prompt to logits.

    Parameters
    ----------
    width
        Channels on 2 mm; twice and four times as many on 4 and 8 mm.
    fine
        Channels on 1 mm.
    """

    def __init__(self, width: int = 16, fine: int = 8) -> None:
        super().__init__()
        self.down = nn.ModuleList([_Block(_INPUTS, width), _Block(width, 2 * width), _Block(2 * width, 4 * width)])
        self.deepest = _Block(4 * width, 4 * width)
        self.up = nn.ModuleList([_Block(6 * width, 2 * width), _Block(3 * width, width)])
        self.narrow = nn.Conv3d(width, fine, 1)
        self.coarse = nn.Conv3d(width, 1, 1)
        self.fine = nn.Sequential(_layer(_INPUTS + fine + 1, fine), _Block(fine, fine), nn.Conv3d(fine, 1, 1))

    def forward(self, hu: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits (n, 1, z, y, x) on 1 mm and on 2 mm from HU (n, 1, z, y, x) and prompt (n, 5, z, y, x)."""
        seen = torch.cat([_through(hu, *LUNG_WINDOW), _through(hu, *SOFT_WINDOW), prompt], dim=1)
        x = functional.avg_pool3d(seen, 2)
        kept = []
        for level, block in enumerate(self.down):
            x = block(functional.avg_pool3d(x, 2) if level else x)
            kept.append(x)
        x = self.deepest(x)
        for block, beside in zip(self.up, kept[-2::-1], strict=True):
            x = block(torch.cat([functional.interpolate(x, scale_factor=2.0), beside], dim=1))
        coarse = self.coarse(x)
        below = functional.interpolate(torch.cat([self.narrow(x), coarse], dim=1), scale_factor=2.0, mode="trilinear")
        return below[:, -1:] + self.fine(torch.cat([seen, below], dim=1)), coarse


def _through(hu: Tensor, low: float, high: float) -> Tensor:
    return (hu.clamp(low, high) - low) / (high - low)
