"""Section of the card on who drew the contours, and on answers for semi-automatic contours."""

from __future__ import annotations

from lungstage.export.markdown import as_table, percent
from lungstage.training.run import Run

_DREW = {"expert": "experts", "assisted": "persons who confirmed a semi-automatic contour"}
_CONTOUR = {"expert": "the expert's", "diameter": "semi-automatic, not corrected"}


def contours(run: Run) -> str:
    """Write the section *Contours*; empty for a run of an earlier release.

    Parameters
    ----------
    run
        The run, with the result of ``lungstage-train assisted`` if there is one.
    """
    drew = run.record["cohort"].get("contours")
    if not drew:
        return ""
    text = [f"The contours of training and validation were drawn by {' and by '.join(_DREW[one] for one in drew)}."]
    if "assisted" not in drew:
        text.append(
            "The model is not validated on semi-automatic contours. An answer on such a contour says so first, and it "
            "is `indeterminate` if it is not robust."
        )
    if (found := run.own_assisted) is not None:
        rows = []
        for contour, figures in found["contours"].items():
            auc, apart = figures["auc"], figures.get("difference")
            rows.append(
                [
                    _CONTOUR.get(contour, f"semi-automatic, {contour.removeprefix('diameter, ')}"),
                    f"{auc['value']:.2f} ({auc['low']:.2f} to {auc['high']:.2f})",
                    f"{apart['median']:.3f}; {apart['ninth_decile']:.3f}" if apart else "",
                    percent(figures["same_answer"]) if apart else "",
                ]
            )
        text += [
            f"Answers for {found['patients']} patients on whom the contour network was not trained. The whole "
            "procedure was repeated without them, so these are answers of other networks than the shipped ones. "
            "Diameters and corrections were simulated from the expert's contour: no person drew them.",
            as_table(
                ["contour", "AUC", "difference of the probability: median; ninth decile", "same answer as expert's"],
                rows,
            ),
        ]
        if found["left_out"]:
            text.append(f"Left out, because nothing measurable was drawn: {found['left_out']}.")
    return "\n\n".join(text)
