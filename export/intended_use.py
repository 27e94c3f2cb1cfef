"""Intended use of a packed model: the accepted images, and the largest distance from the training cohort.

These limits are decisions and not results of a fit. So each is given here with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Final

from lungstage.appliance.contract.spec import STAGE_GROUP, Endpoint
from lungstage.appliance.model.manifest import IntendedUse

STATEMENT: Final = (
    "Research on the primary tumour of patients with known non-small-cell lung cancer, one axial original CT of the "
    "chest and one contoured gross tumour volume. Not a medical device; not for diagnosis, staging, or any decision "
    "about a patient's care."
)

OTHER_STATEMENT: Final = (
    "Research on {name} ({negative} or {positive}), from one contoured lung tumour on one axial original CT of the "
    "chest. Not a medical device; not for diagnosis, prognosis, or any decision about a patient's care."
)

# BodyPartExamined of a CT that shows the chest (PS3.16 Annex L), and THORAX, which is not a term of Annex L but is
# written by scanners. WHOLEBODY is left out, because the ROI could be anywhere in the body.
BODY_PARTS: Final = (
    "CHEST", "THORAX", "LUNG", "CHESTABDOMEN", "CHESTABDPELVIS", "NECKCHEST", "NECKCHESTABDOMEN", "NECKCHESTABDPELV",
)  # fmt: skip

# Resampling to 1 mm averages thinner slices. Above 5 mm most measured values would come from interpolation.
SLICE_THICKNESS_MM: Final = (0.5, 5.0)

# From a small field of view around one lung to 800 mm across 512 columns.
PIXEL_SPACING_MM: Final = (0.4, 1.6)

# The range of 12 bits at the usual rescale intercept of -1024. Padding (-2000, -3024) and extended-range metal lie
# outside.
HU_RANGE: Final = (-1024.0, 3071.0)

# Twice the distance of the cohort's most distant patient, from the centre or from the nearest others. The network was
# never tested further away.
MAX_DISTANCE_FACTOR: Final = 2.0


def intended_use(domain: Mapping[str, Mapping[str, float]], endpoint: Endpoint) -> IntendedUse:
    """Return the intended use of a model whose training rows have these distances.

    Parameters
    ----------
    domain
        ``quantiles`` and ``neighbour_quantiles`` of the training rows' distances
        (:class:`training.model.domain.Domain`); those at "0.99" and "1" are used.
    endpoint
        The two classes of the model.
    """
    distances, neighbours = domain["quantiles"], domain["neighbour_quantiles"]
    return IntendedUse(
        statement=STATEMENT if endpoint == STAGE_GROUP else OTHER_STATEMENT.format(**asdict(endpoint)),
        modality="CT",
        body_parts=BODY_PARTS,
        slice_thickness_mm=SLICE_THICKNESS_MM,
        pixel_spacing_mm=PIXEL_SPACING_MM,
        hu_range=HU_RANGE,
        domain_distance_warn=float(distances["0.99"]),
        domain_distance_max=MAX_DISTANCE_FACTOR * float(distances["1"]),
        neighbour_distance_warn=float(neighbours["0.99"]),
        neighbour_distance_max=MAX_DISTANCE_FACTOR * float(neighbours["1"]),
    )
