"""``MODEL_CARD.md`` of a contour bundle: what the network is for, and how well it draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lungstage.appliance.contour.windows import MARGIN_MM, MOST
from lungstage.appliance.model.contour_bundle import ContourFigures, ContourProvenance
from lungstage.export.markdown import bullets


def render(
    name: str, version: str, provenance: ContourProvenance, figures: Sequence[ContourFigures], model_sha256: str
) -> str:
    """Write the card.

    Parameters
    ----------
    name, version
        Name and version of the bundle.
    provenance
        Where the network comes from.
    figures
        How well it did on patients that it was not trained on.
    model_sha256
        Hash of ``model.onnx``.

    Returns
    -------
    str
        Markdown.
    """
    sections = {
        "What it is": (
            "**Research use only.** A network that draws the contour of a lung tumour on CT from a diameter, a box or "
            "a point that a person places. It gives no diagnosis and no answer about the tumour. A person must check "
            "and confirm every contour."
        ),
        "Data": bullets(
            [
                f"Cohort: {provenance.cohort}. {provenance.source}.",
                f"{provenance.patients} patients for training, {provenance.held_out} others for the figures below. A "
                "hash of the patient's identifier decides who belongs to which.",
                "The images are cubes of 92 mm around the tumour, at 1 mm. The tumour is always near the centre of its "
                "cube, so figures on such cubes may be better than on whole CTs.",
                f"Licence of data and weights: {provenance.licence}.",
            ]
        ),
        "Performance": "\n".join(_table(figures)),
        "How it works": bullets(
            [
                "Input: the CT around the prompt at 1 mm, through a lung window and a soft-tissue window, and the "
                "prompt as five images.",
                f"The window shows {MARGIN_MM:g} mm around the expected tumour. Up to {MOST} voxels per side; for a "
                "larger tumour the voxels are larger.",
                "A correction changes the contour only near its point, and only in its direction.",
            ]
        ),
        "Limits": bullets(
            [
                "Unedited contours are **not** suited for the models of lungstage: their surface is smoother than an "
                "expert's, which changes features such as sphericity.",
                "All patients were treated with radiotherapy at one centre. Small nodules, ground glass and other "
                "scanners are rare in the data.",
                "Prompts and corrections of the figures are simulated from the expert's contour.",
            ]
        ),
        "How to reproduce": (
            f"`lungstage-train contour CROPS -o RUN`, with {provenance.steps} steps and seed {provenance.seed}; then "
            f"`lungstage-export build RUN -o {name}`. SHA-256 of model.onnx: `{model_sha256}`."
        ),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    return f"# Model card: {name} {version}\n\n{body}\n"


def _table(figures: Sequence[ContourFigures]) -> Iterator[str]:
    yield "Agreement with the contour of the radiation oncologist, on the patients that were not trained on:"
    yield ""
    yield "| drawn from | patients | Dice, median | Dice, tenth percentile | ICC of volume | ICC of sphericity |"
    yield "|---|---|---|---|---|---|"
    for one in figures:
        iccs = ("-" if icc is None else f"{icc:.2f}" for icc in (one.volume_icc, one.sphericity_icc))
        cells = one.method, one.patients, f"{one.dice_median:.3f}", f"{one.dice_tenth_percentile:.3f}", *iccs
        yield f"| {' | '.join(map(str, cells))} |"
    yield ""
    yield (
        'ICC(2,1) of the logarithms. "Drawn again" compares two prompts for the same tumour with each other. Random '
        "walker and region growing start from the same diameter and use no network."
    )
