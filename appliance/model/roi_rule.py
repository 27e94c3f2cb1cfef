"""The rule that finds the primary tumour among the regions, for bundles and for ``lungstage measure``.

Names and codes were chosen by hand, not fitted, so each one has its reason here. If the rule does not decide, the case
is refused and the names are listed. Nothing is guessed.
"""

from __future__ import annotations

from typing import Final

from lungstage.appliance.model.manifest import RoiRule

ROI_RULE: Final = RoiRule(
    name_patterns=(
        # The numbered GTV of NSCLC-Radiomics and the IBSI phantom (GTV-1 is the primary there, GTV-2 and higher are
        # nodes), or the primary of AAPM TG-263 (GTVp). Both in one structure set, or two primaries, are ambiguous.
        r"gtv[-_ ]*(0*1|(p|t|prim|primary)[-_ ]*\d*)",
        # "Primary" in the name; also the segment label of TCIA's SEGs, "Neoplasm, Primary".
        r".*primary.*",
        # A gross tumour volume with any other name, if it is the only one left.
        r"gtv.*",
        r".*(tumou?r|neoplasm|lesion|nodule|mass).*",
    ),
    excluded_patterns=(
        # Nodal volumes. They exist only in node-positive patients, so measuring one would reveal the label.
        r"gtv[-_ ]*l?n([-_ \d].*|od.*)?",
        r"gtv[-_ ]*0*([2-9]|[1-9]\d+)([-_ ].*)?",
        r".*(node|nodal|lymph|ganglion).*",
        # Not the primary.
        r".*(metast|secondary|satellite).*",
        r"(.*[-_ ])?mets?([-_ \d].*)?",
        # Expanded by margins or over the breathing cycle: larger than the tumour in the CT.
        r".*(ctv|ptv|itv|igtv|prv).*",
        # Derived from the tumour, or next to it.
        r".*(ring|shell|margin|minus|without|avoid|o?edema|necro|atelecta|tumou?r[-_ ]?bed).*",
        # "Lungs-GTV" and similar names are the organ without the tumour. Plain lungs are excluded, too.
        r"(.*[-_ ])?lungs?[ ]*-.*",
        r"(left|right|both|total|[lr])?[-_ ]*lungs?([-_ ]*(left|right|both|total|[lr]))?",
        r".*(spinal|cord|heart|o?esophag|aorta|liver|body|external|couch).*",
    ),
    property_types=(
        # Codes of CID 7159 (Lesion Segmentation Types) that mean the tumour itself. Mass, Nodule and Lesion are left
        # out, because they do not mean a neoplasm.
        ("372087000", "SCT"),  # Neoplasm, Primary
        ("86049000", "SCT"),  # Malignant neoplasm, primary (replaces the retired SRT M-80003)
        ("M-80003", "SRT"),  # the same in TCIA's older SEGs
        ("108369006", "SCT"),  # Neoplasm
    ),
)
