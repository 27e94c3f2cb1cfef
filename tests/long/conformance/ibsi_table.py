"""Write ``docs/ibsi.md``, the table of agreements with IBSI's consensus values: ``make ibsi``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from lungstage.appliance.commissioning.ibsi_tags import NOT_IN_IBSI
from tests.appliance.radiomics.consensus import (
    CONFIGURATIONS,
    PHANTOM,
    Agreement,
    B,
    Configuration,
    agreements,
    consensus,
    on_pyradiomics_grid,
    steps,
)
from tests.conftest import ROOT
from tests.long.benchmarks.extraction import table

PAGE = ROOT / "docs" / "ibsi.md"

_INTRODUCTION = """\
# IBSI

`make ibsi` writes this page from IBSI 1's reference set (Zwanenburg et al., Radiology 2020). The set is not part of
this repository: `LUNGSTAGE_DATA` names the folder that contains its `ibsi/`. `tests/appliance/radiomics/test_ibsi.py`
checks each line. A value agrees if it is within IBSI's tolerance of the consensus value, after rounding to the same
digits. The CT is measured from DICOM like any patient's. To repeat it:

```sh
{commands}
```

## What agrees, and what cannot be compared

{summary}

- *Image and mask*: sizes, counts and HU after each step of the processing.
- *By slice*: IBSI's 2D aggregations make each texture matrix from one slice and average the features over the slices.
  PyRadiomics and lungstage do not have these aggregations. The effect of PyRadiomics' settings was found by comparing
  values. By default, a matrix is made from the whole volume, and features are averaged over directions (IBSI's 3D
  averaged). With `force2D`, it is made from the planes of all slices (2.5D). With `weightingNorm: no_weighting`,
  directions are merged first. Each is compared in full, and a test shows that it agrees with no other aggregation.
- *GLDZM*: a texture that PyRadiomics does not have.
- *Other features*: not among the 106: {others}.
- Features that lungstage has and IBSI does not: {not_in_ibsi}.

## The grid `ibsi`

With `lungstage measure --grid ibsi`, images are processed as in IBSI's reference manual (arXiv 1612.07003; its
identifiers in brackets). The differences from PyRadiomics are:

{grid}

On PyRadiomics' grid, with everything else equal, {missed} of configuration B's {of} features do not agree.

The grid's centre is that of the reference volume: the whole slices of the region and one more slice at either end.
Within the slices this is the image's own centre. If slices keep their spacing (configurations A and B), nothing else
matters. If slices are resampled, as in IBSI's configurations C to E, IBSI uses the centre of the whole series. The
grid's planes can then differ from IBSI's by up to half of their distance, because no number may depend on which other
slices have arrived. No values of those configurations are compared here.

Any interpolator other than `sitkLinear` is refused. `--engine reference` with a `resegmentRange` and without `binCount`
is also refused, because PyRadiomics starts its bins elsewhere. Stock PyRadiomics must be able to read a parameter file,
so a parameter file does not contain the grid. Therefore no bundle uses this grid, and training does not measure on it.
`--save-volume` writes the volume before resampling: stock PyRadiomics gives other numbers from it.
"""

_GRID = [
    ["grid", "has the same centre as the volume, ⌈n·s/s′⌉ voxels along an axis (UMPJ, 026Q, QCY4)",
     "starts at the outer corner of the first voxel"],
    ["image", "linear, or bilinear if the slices keep their spacing (0); HU rounded to the nearest integer (68QD)",
     "linear, B-spline or nearest; whole HU cut towards zero"],
    ["mask", "linear; a voxel is inside from 0.5 (E8H9)", "nearest"],
    ["`resegmentRange`", "applies to all features except shape (ECJF, USB3)",
     "refused: PyRadiomics crops the shape to the box of the remaining voxels"],
    ["`binWidth`", "bins start at the lower end of `resegmentRange` (Q3RU), without it at a multiple of the width",
     "bins start at a multiple of the width"],
    ["`binCount`", "IBSI's (K15C) for a power of two; otherwise an HU on the edge of two bins may be in the lower bin",
     "the same"],
]  # fmt: skip
_LEFT_OUT = {"by slice": r"^(cm|rlm|szm|ngt|ngl)_.*_2D(_avg|_comb)?$", "GLDZM": "^dzm_", "other features": ""}


def left_out(data: Path, configuration: Configuration) -> dict[str, list[str]]:
    """List the tags that have a consensus value but no value of lungstage, by reason."""
    compared = {
        row.tag for aggregation in configuration.aggregations for row in agreements(data, configuration, aggregation)
    }
    compared |= {row.tag for row in _steps(data, configuration)}
    found: dict[str, list[str]] = {reason: [] for reason in _LEFT_OUT}
    for tag in consensus(data, configuration):
        if tag not in compared:
            found[next(reason for reason, form in _LEFT_OUT.items() if re.search(form, tag))].append(tag)
    return found


def _steps(data: Path, configuration: Configuration) -> list[Agreement]:
    return [] if configuration is PHANTOM else list(steps(data, configuration))


def _rows(agreed: Iterable[Agreement]) -> list[list[str]]:
    return [
        [row.name, f"`{row.tag}`", f"{row.consensus:.6g}", f"{row.tolerance:g}", f"{row.ours:.6g}", _verdict(row)]
        for row in agreed
    ]


def _verdict(row: Agreement) -> str:
    if not row.met:
        return "**differs**"
    return f"agrees as {row.as_defined:.6g}: {row.defined_otherwise}" if row.defined_otherwise else "agrees"


def _tally(rows: Sequence[Agreement]) -> str:
    return f"{sum(row.met for row in rows)} of {len(rows)}" if rows else ""


def render(data: Path) -> str:
    """Return the page."""
    headings = ["feature", "tag", "consensus", "tolerance", "ours", "verdict"]
    summary, sections, commands, others = [], [], [], dict[str, None]()
    for configuration in CONFIGURATIONS:
        sections.append(f"## {configuration.name}")
        features: list[Agreement] = []
        for aggregation in configuration.aggregations:
            rows = list(agreements(data, configuration, aggregation))
            what = "Features" if aggregation is configuration.aggregations[0] else "Textures"
            sections += [
                f"### {what} {aggregation.name}",
                f"`{configuration.text(aggregation)}`",
                table(headings, _rows(rows)),
            ]
            features += rows
        of_steps = _steps(data, configuration)
        if of_steps:
            sections += ["### Image and mask", table(headings[1:], [row[1:] for row in _rows(of_steps)])]
            text = configuration.text(configuration.aggregations[0])
            commands += [
                f"echo '{text}' > spec.yaml    # {configuration.name}",
                f"lungstage measure ct_phantom/dicom --grid {configuration.grid} --spec spec.yaml",
            ]
        rest = left_out(data, configuration)
        others |= dict.fromkeys(re.sub(r"_(2D|2_5D|3D)(_avg|_comb)?$", "", tag) for tag in rest["other features"])
        summary.append(
            [configuration.name, str(len(consensus(data, configuration))), _tally(features), _tally(of_steps)]
            + [str(len(tags)) for tags in rest.values()]
        )
    elsewhere = list(on_pyradiomics_grid(data, B))
    introduction = _INTRODUCTION.format(
        commands="\n".join(commands),
        summary=table(["", "consensus values", "features that agree", "image and mask", *_LEFT_OUT], summary),
        others=", ".join(f"`{tag}`" for tag in others),
        missed=sum(not row.met for row in elsewhere),
        of=len(elsewhere),
        grid=table(["", "`ibsi`", "`pyradiomics`, the default"], _GRID),
        not_in_ibsi=", ".join(f"`{name}`" for name in sorted(NOT_IN_IBSI)),
    )
    return "\n\n".join([introduction.rstrip(), *sections]) + "\n"


def main() -> None:
    """Write the page into the documentation."""
    data = Path(os.environ.get("LUNGSTAGE_DATA", ROOT.parent / "shared" / "data"))
    PAGE.write_text(render(data), encoding="utf-8")


if __name__ == "__main__":
    main()
