"""Which region of interest is the primary tumour: the rule that bundles carry and that ``lungstage measure`` follows.

Names and codes are judgements, not results of a fit, so each stands here with its reason. What no rule settles is
refused with the names listed, never guessed.
"""

from __future__ import annotations

from typing import Final

from lungstage.appliance.model.manifest import RoiRule

ROI_RULE: Final = RoiRule(
    name_patterns=(
        # The numbered GTV of NSCLC-Radiomics and the IBSI phantom (GTV-1 is the primary there, GTV-2 and on are
        # nodes), or the primary of AAPM TG-263 (GTVp). Both in one structure set, or two primaries, is ambiguous.
        r"gtv[-_ ]*(0*1|(p|t|prim|primary)[-_ ]*\d*)",
        # Named so in words; also the segment label of TCIA's SEGs, "Neoplasm, Primary".
        r".*primary.*",
        # A gross tumour volume under any other name, if it is the only one left.
        r"gtv.*",
        r".*(tumou?r|neoplasm|lesion|nodule|mass).*",
    ),
    excluded_patterns=(
        # Nodal volumes. They exist only in node-positive patients, so measuring one would give the label away.
        r"gtv[-_ ]*l?n([-_ \d].*|od.*)?",
        r"gtv[-_ ]*0*([2-9]|[1-9]\d+)([-_ ].*)?",
        r".*(node|nodal|lymph|ganglion).*",
        # Not the primary.
        r".*(metast|secondary|satellite).*",
        r"(.*[-_ ])?mets?([-_ \d].*)?",
        # Expanded by margins or over the breathing cycle: more than the tumour that the CT shows.
        r".*(ctv|ptv|itv|igtv|prv).*",
        # Made from the tumour, or next to it.
        r".*(ring|shell|margin|minus|without|avoid|o?edema|necro|atelecta|tumou?r[-_ ]?bed).*",
        # "Lungs-GTV" and the like are the organ less the tumour; plain lungs go with them.
        r"(.*[-_ ])?lungs?[ ]*-.*",
        r"(left|right|both|total|[lr])?[-_ ]*lungs?([-_ ]*(left|right|both|total|[lr]))?",
        r".*(spinal|cord|heart|o?esophag|aorta|liver|body|external|couch).*",
    ),
    property_types=(
        # Those of CID 7159 (Lesion Segmentation Types) that mean the tumour itself. Mass, Nodule and Lesion are left
        # out: they do not say that it is a neoplasm.
        ("372087000", "SCT"),  # Neoplasm, Primary
        ("86049000", "SCT"),  # Malignant neoplasm, primary (what retired SRT M-80003 became)
        ("M-80003", "SRT"),  # the same, as TCIA's older SEGs write it
        ("108369006", "SCT"),  # Neoplasm
    ),
)
