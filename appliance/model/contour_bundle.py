"""Read a contour bundle: a network that draws a tumour's contour from a prompt. It gives no answer about a tumour.

The folder contains ``model.onnx``, ``manifest.json`` and ``MODEL_CARD.md``; a signed bundle also ``manifest.sig``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lungstage.appliance.contour.drawing import draw
from lungstage.appliance.contour.prompts import CHANNELS, Prompt
from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.model import sealed
from lungstage.appliance.model.bundle_files import (
    CONTOUR_FILES,
    BundleFiles,
    digest_of,
    kind_of,
    read_files,
    require_packed,
)
from lungstage.appliance.model.contour_network import ContourNetwork
from lungstage.appliance.model.manifest import Finite, Probability, Sha256
from lungstage.appliance.model.signature import PublicKey, Signer, find_signer
from lungstage.appliance.radiomics import phantom

VOXELS_TOLERANCE: Final = 2e-3  # relative
CENTRE_TOLERANCE: Final = 0.1  # mm
"""Limits of the self-test. The network computes in single precision, so that a voxel at the edge may differ."""

_Place = tuple[Finite, Finite, Finite]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ContourFigures(_Frozen):
    """How well a kind of prompt did on patients that were not trained on, beside an expert."""

    method: str
    patients: Annotated[int, Field(ge=1)]
    dice_median: Probability
    dice_tenth_percentile: Probability
    volume_icc: Finite | None  # ICC(2,1) of the logarithms; None where it was not computed
    sphericity_icc: Finite | None


class ContourProvenance(_Frozen):
    """Where the network comes from."""

    cohort: str
    source: str
    licence: str
    patients: Annotated[int, Field(ge=1)]
    held_out: Annotated[int, Field(ge=1)]
    steps: Annotated[int, Field(ge=1)]
    seed: int
    versions: dict[str, str]


class GoldenContour(_Frozen):
    """What the network draws on a generated phantom."""

    phantom: str
    diameter: tuple[_Place, _Place]  # ends (x, y, z) in mm
    include: tuple[_Place, ...]
    exclude: tuple[_Place, ...]
    voxels: Annotated[int, Field(ge=1)]
    centre: _Place

    @property
    def prompt(self) -> Prompt:
        """The prompt as a plain value."""
        return Prompt("diameter", self.diameter, self.include, self.exclude)


class ContourManifest(_Frozen):
    """``manifest.json`` of a contour bundle."""

    schema_version: Literal[1]
    kind: Literal["contour"]
    name: str
    version: str
    research_use_only: Literal[True]
    files: dict[str, Sha256]
    channels: tuple[str, ...]
    provenance: ContourProvenance
    figures: tuple[ContourFigures, ...]
    golden: GoldenContour

    @model_validator(mode="after")
    def _is_of_this_version(self) -> Self:
        if set(self.files) != CONTOUR_FILES - {"manifest.json"}:
            raise ValueError(f"files must be exactly {', '.join(sorted(CONTOUR_FILES - {'manifest.json'}))}")
        if self.channels != CHANNELS:
            raise ValueError(f"channels must be {', '.join(CHANNELS)}")
        return self


@dataclass(frozen=True, slots=True, eq=False)
class ContourBundle:
    """A verified contour bundle.

    Attributes
    ----------
    manifest
        Content of ``manifest.json``.
    network
        The network, as :func:`contour.drawing.draw` takes it.
    digest
        SHA-256 of ``manifest.json`` in hexadecimal, which identifies the whole bundle.
    signer
        Who signed it; None if it is not signed.
    """

    manifest: ContourManifest
    network: ContourNetwork
    digest: str
    signer: Signer | None = None


def load_contour_bundle(folder: Path, *, self_test: bool = True, trusted: tuple[PublicKey, ...] = ()) -> ContourBundle:
    """Read and verify a contour bundle, and run its self-test.

    Parameters
    ----------
    folder
        The bundle's folder.
    self_test
        Draw the golden case. Leave it out only if it was just done.
    trusted
        Trusted keys. If any are given, one of them must have signed the bundle.

    Raises
    ------
    Refused
        The reasons of :func:`model.bundle.load_bundle`.
    """
    contents = read_files(folder, CONTOUR_FILES)
    signer = find_signer(contents, trusted)
    bundle = replace(open_contour_bundle(contents), signer=signer)
    if self_test:
        prove(bundle)
    return bundle


def open_contour_bundle(contents: BundleFiles) -> ContourBundle:
    """Verify a contour bundle's files and make it ready to draw; the self-test is :func:`prove`.

    Raises
    ------
    Refused
        ``bundle_hash_mismatch`` or ``bundle_invalid``.
    """
    manifest = sealed.parse(contents["manifest.json"], ContourManifest)
    require_packed(contents, manifest.files)
    return ContourBundle(manifest, ContourNetwork(contents["model.onnx"]), digest_of(contents))


def draws_contours(folder: Path) -> bool:
    """Whether a folder seems to be a contour bundle: by its manifest, or else because it has no extraction spec."""
    if (kind := kind_of(folder)) is not None:
        return kind == "contours"
    return (folder / "manifest.json").is_file() and not (folder / "extraction.yaml").exists()


def golden_case(network: ContourNetwork, name: str, prompt: Prompt) -> tuple[int, _Place]:
    """Draw a generated phantom; return the number of voxels, and their centre (x, y, z) in mm."""
    volume, _ = phantom.make(name)
    drawn = np.argwhere(draw(volume, prompt, network))
    middle: npt.NDArray[np.float64] = drawn.mean(axis=0) if len(drawn) else np.zeros(3)
    x, y, z = (volume.affine @ (*middle, 1.0))[:3].tolist()
    return len(drawn), (x, y, z)


def prove(bundle: ContourBundle) -> None:
    """Run the self-test: draw the golden case.

    Raises
    ------
    Refused
        ``bundle_self_test_failed``.
    """
    golden = bundle.manifest.golden
    voxels, centre = golden_case(bundle.network, golden.phantom, golden.prompt)
    off = float(np.linalg.norm(np.subtract(centre, golden.centre)))
    if abs(voxels - golden.voxels) > VOXELS_TOLERANCE * golden.voxels or off > CENTRE_TOLERANCE:
        raise Refused(
            ReasonCode.BUNDLE_SELF_TEST_FAILED,
            f"The bundle's self-test failed: the contour of the phantom has {voxels} voxels instead of "
            f"{golden.voxels}, and its centre is {off:.2f} mm away. This machine or its libraries give other results "
            "than the machine where the bundle was built. Install the library versions in constraints.txt, or use "
            "another bundle.",
        )
