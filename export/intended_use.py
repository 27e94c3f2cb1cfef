"""What a packed model may be used on: which images, and how unlike the training cohort.

These are judgements, not results of a fit, so each stands here with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from appliance.manifest import IntendedUse

STATEMENT: Final = (
    "Research on the primary tumour of patients with known non-small-cell lung cancer, one axial original CT of the "
    "chest and one contoured gross tumour volume. Not a medical device; not for diagnosis, staging, or any decision "
    "about a patient's care."
)

# BodyPartExamined of a CT that shows the chest (PS3.16 Annex L), and THORAX, which scanners write although Annex L has
# no such term. WHOLEBODY is left out: the ROI could be anywhere in it.
BODY_PARTS: Final = (
    "CHEST", "THORAX", "LUNG", "CHESTABDOMEN", "CHESTABDPELVIS", "NECKCHEST", "NECKCHESTABDOMEN", "NECKCHESTABDPELV",
)  # fmt: skip

# Thinner slices are averaged away by resampling to 1 mm; beyond 5 mm interpolation invents most of what it measures.
SLICE_THICKNESS_MM: Final = (0.5, 5.0)

# From a small field of view around one lung to 800 mm across 512 columns.
PIXEL_SPACING_MM: Final = (0.4, 1.6)

# What 12 bits hold at the usual rescale intercept of -1024; padding (-2000, -3024) and extended-range metal lie
# outside.
HU_RANGE: Final = (-1024.0, 3071.0)

# Twice as far from the cohort's centre as its own most distant patient: the network has never been asked there.
MAX_DISTANCE_FACTOR: Final = 2.0


def intended_use(domain_quantiles: Mapping[str, float]) -> IntendedUse:
    """Limits for a model whose training rows lie at these distances.

    Parameters
    ----------
    domain_quantiles
        Quantiles "0.99" and "1" of the training rows' own domain distances, in standard deviations.
    """
    return IntendedUse(
        statement=STATEMENT,
        modality="CT",
        body_parts=BODY_PARTS,
        slice_thickness_mm=SLICE_THICKNESS_MM,
        pixel_spacing_mm=PIXEL_SPACING_MM,
        hu_range=HU_RANGE,
        domain_distance_warn=float(domain_quantiles["0.99"]),
        domain_distance_max=MAX_DISTANCE_FACTOR * float(domain_quantiles["1"]),
    )
