"""Section of the card on the repeatability of the model's probability under simulated perturbations."""

from __future__ import annotations

from lungstage.export.markdown import as_table
from lungstage.training.run import Run

_WHAT = {
    "contour": "the contour, as if drawn by other readers",
    "image": "the image",
    "both": "contour and image together, as in the appliance's robustness check",
}


def robustness(run: Run, model_sha256: str) -> str:
    """Write the section *Robustness (simulated)*; empty without a result, or with a result of another model.

    Parameters
    ----------
    run
        The run, with the result of ``lungstage-train robustness``.
    model_sha256
        Hash of the bundle's ``model.onnx``.
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
    moved = "noise, and a shift and rotation of the grid" if found["grids_moved"] else "noise only"
    return "\n\n".join(
        [
            f"ICC(2,1) of the probability over {found['versions']} **simulated** versions of the tumours of "
            f"{found['patients']} patients, with its 95 % interval by bootstrap over patients. No second reader and no "
            f"second scan was used. The image was perturbed by {moved}. docs/robustness.md describes the method.",
            as_table(["perturbed", "simulated ICC(2,1)", "target"], rows),
        ]
    )
