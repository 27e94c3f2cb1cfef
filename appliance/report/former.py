"""Former wordings of warnings and remarks, which ledgers and reports of earlier releases contain.

When a sentence in the English catalogue is reworded, its former wording is added here. So the page still recognises the
sentence in an old job: it grades it and shows it in the reader's language.
"""

from __future__ import annotations

from typing import Final

WARNINGS: Final = (
    (
        "never_came",
        "{number} listed slices never came; the region of interest lies at the end of those that did, and its "
        "outermost voxels are extrapolated.",
    ),
    (
        "never_came_one",
        "1 listed slice never came; the region of interest lies at the end of those that did, and its outermost voxels "
        "are extrapolated.",
    ),
    (
        "left_out",
        "A slice next to the region of interest differs in {elements} from those that it was drawn on, and was left "
        "out; the outermost voxels are extrapolated.",
    ),
    (
        "through_centres",
        "The contours run from pixel centre to pixel centre, as some software draws them: up to 8 % of the volume may "
        "be missing at the rim.",
    ),
    (
        "assisted_not_validated",
        "The region of interest was drawn semi-automatically and confirmed by a person. The model is not validated on "
        "such contours.",
    ),
    ("domain_unlike", "The tumour is unlike almost all tumours that the model was trained on."),
    ("domain_no_neighbour", "Hardly a tumour that the model was trained on resembles this one."),
    (
        "not_robust",
        "Only {agreeing} of {count} versions with the contour redrawn and the image perturbed give the same "
        "answer: it is not robust.",
    ),
    (
        "not_robust_withheld",
        "Only {agreeing} of {count} versions with the contour redrawn and the image perturbed give the same "
        "answer, so no answer is given.",
    ),
    (
        "robustness_fewer",
        "The region is so large that robustness was tried on {count} perturbed versions instead of {asked}.",
    ),
    (
        "robustness_slices",
        "Of {all} perturbed versions {count} were left out, as they reach beyond the slices that are there.",
    ),
    (
        "robustness_edge",
        "Of {all} perturbed versions {count} were left out, as they reach beyond the edge of the slices.",
    ),
    (
        "robustness_unmeasured",
        "Of {all} perturbed versions {count} were left out, as they reach pixels that were not measured.",
    ),
    (
        "robustness_remains",
        "Of {all} perturbed versions {count} were left out, as too little of the region remains to be measured.",
    ),
    ("robustness_one_slice", "How robust the answer is, is not known: the region lies on one slice."),
    (
        "robustness_few_voxels",
        "How robust the answer is, is not known: the region has too few voxels to be redrawn.",
    ),
    ("robustness_flat", "How robust the answer is, is not known: all voxels of the region have the same value."),
    (
        "robustness_too_few",
        "How robust the answer is, is not known: most perturbed versions could not be measured.",
    ),
    ("lossy", "Slices were compressed with loss; their values are not those that the scanner made."),
    ("unit", "The slices leave the unit of their values open; they were taken for Hounsfield units."),
    ("draft_left_out", "A draft of a contour is there too. It was left out, for no person has confirmed it."),
    ("rejected", "A ROI object that was rejected (Approval Status) is there too, and was left out."),
    ("unapproved", "The region of interest is not approved (Approval Status), though another ROI object is."),
    ("body_part", "The images do not say which body part they show; lung was found next to the tumour."),
    ("covariate_unknown", "The patient's {name} is not known; it was imputed by the training median."),
    ("covariate_other", "The patient's {name} is none of {levels}; it was imputed by the training median."),
    ("covariate_beyond", "The patient's {name} is beyond the range that the model uses; its edge was taken."),
    ("own_study", "The {kind} bears a Study Instance UID of its own; its patient and its references are the CT's."),
)
"""(code, former template) of warnings; the codes are those of ``caveat.…`` in the catalogues."""

REMARKS: Final = (
    ("small", "The long axis is {mm} mm, and words are said of {least} mm and more."),
    ("one_slice_extent", "The outline is there on one slice only, so its extent across slices is that slice's."),
    ("one_slice", "The outline is there on one slice only."),
    (
        "parts_axes",
        "The outline is in {count} separate parts; the axes are of the one with the longest, the rest is of all.",
    ),
    ("parts", "The outline is in {count} separate parts."),
    ("thick", "The slices are {mm} mm apart, and readers were asked on slices of at most {most} mm."),
    ("at_edge", "The outline reaches the edge of the image, where the tumour may go on."),
    (
        "air",
        "{share} of the region is air or aerated lung (at most {most} in an outline of the tumour itself). "
        "A planning volume is drawn so.",
    ),
    (
        "bone_left",
        "{share} of the region is bone, or something else that is as dense and goes on beyond it; it is left out.",
    ),
    ("bone", "{share} of the region is bone, or something else that is as dense and goes on beyond it."),
    (
        "no_edge",
        "At {share} of the outline HU fall towards lung (at least {least} are needed to tell whether it "
        "follows the tumour).",
    ),
    (
        "off_edge",
        "The outline lies {mm} mm (median) off the steepest fall of HU (at most {most} mm in an outline of "
        "the tumour itself). A planning volume is drawn so.",
    ),
    ("of_solid", "Of the solid part ({mm} mm), because the tumour is part-solid; of all of it {size}."),
    ("near", "It is within a voxel ({mm} mm) of {size}."),
    ("if_solid", "Holds for a solid tumour; whether it is solid cannot be said here."),
    ("by_3d", "By the 3D diameter ({mm} mm) it is {size}."),
    ("cavity", "The cavity and the voxels beside it are left out."),
    ("contrast_unknown", "Whether contrast medium was given is not known; it would raise HU."),
    ("some_edge", "Of the {share} of the outline where HU fall towards lung."),
    ("not_part_solid", "It is measured where the tumour is part-solid."),
    (
        "ground_glass",
        "Ground glass is classed by its solid part, and none was found. By all of it the size class would be {size}.",
    ),
    ("solid_too_small", "The tumour is part-solid, and its solid part is too small to be measured."),
    ("no_tissue", "No tissue is left within the outline without bone, cavity and its walls."),
    ("no_fall", "Nowhere along the outline do HU fall towards lung."),
    (
        "little_around",
        "Only beside {share} of the surface is there volume enough to tell (at least {least} are needed).",
    ),
)
"""(code, former template) of remarks on descriptors; the codes are those of ``minded.…``."""
