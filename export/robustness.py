"""The card's account of how well the model's probability repeats under perturbations, which are simulated."""

from __future__ import annotations

from lungstage.export.markdown import as_table
from lungstage.training.run import Run

_WHAT = {
    "contour": "the contour redrawn as other hands might",
    "image": "the image perturbed",
    "both": "contour and image together, as the appliance tries out each answer",
}


def robustness(run: Run, model_sha256: str) -> str:
    """Write the section *Robustness (simulated)*; empty where nobody looked, or looked at another model.

    Parameters
    ----------
    run
        With what ``lungstage-train robustness`` left beside it.
    model_sha256
        Of the bundle's ``model.onnx``.
    """
    found = run.robustness
    if found is None or found["model_sha256"] != model_sha256:
        return ""
    rows = [
        [
            _WHAT[what],
            f"{figure['icc']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})",
            ""
            if figure["aim"] is None
            else f"{figure['aim']:.2f}, {'met' if figure['icc'] >= figure['aim'] else 'missed'}",
        ]
        for what, figure in found["probability"].items()
    ]
    moved = "noise, and the grid shifted and turned" if found["grids_moved"] else "noise alone"
    return "\n\n".join(
        [
            f"ICC(2,1) of the probability over {found['versions']} **simulated** versions of the tumours of "
            f"{found['patients']} patients, with its 95 % interval by bootstrap over patients. No second reader and no "
            f"second scan was there; the image was perturbed by {moved}. docs/robustness.md says how.",
            as_table(["perturbed", "simulated ICC(2,1)", "aim"], rows),
        ]
    )
