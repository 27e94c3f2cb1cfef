"""Model bundles: read one strictly, hold every byte to its hash, and let it prove itself.

A bundle is a folder of exactly four files: ``model.onnx``, ``extraction.yaml``, ``manifest.json`` and
``MODEL_CARD.md``, and ``manifest.sig`` where somebody signed it. What the manifest says is :mod:`model.manifest`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.contract.spec import Covariate, Engine, ExtractionSpec, FeatureVector
from lungstage.appliance.model.bundle_files import BUNDLE_FILES, BundleFiles, digest_of, read_files, sha256
from lungstage.appliance.model.inference import Predictor
from lungstage.appliance.model.manifest import (
    BUILD_AGAIN,
    COPY_AGAIN,
    Decision,
    FeatureEntry,
    GoldenCase,
    IntendedUse,
    Manifest,
    Provenance,
    RoiRule,
)
from lungstage.appliance.model.manifest import parse as parse_manifest
from lungstage.appliance.model.signature import PublicKey, Signer, find_signer
from lungstage.appliance.radiomics import extract, parameters, phantom

__all__ = [
    "BUNDLE_FILES", "Bundle", "Decision", "FeatureEntry", "GoldenCase", "IntendedUse", "Manifest", "Provenance",
    "RoiRule", "load_bundle", "measure_phantom", "prove",
]  # fmt: skip

FEATURE_TOLERANCE: Final = 1e-9  # relative
PROBABILITY_TOLERANCE: Final = 1e-6

FEATURES_KEY: Final = "features"
COVARIATES_KEY: Final = "covariates"
EXTRACTION_KEY: Final = "extraction.yaml"
"""What ``model.onnx`` carries about its inputs: their names, one a line in order, and the text of the spec."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified model bundle.

    Attributes
    ----------
    manifest
        What the bundle is and what it may be used for.
    spec
        What to measure, features in input order.
    predictor
        The model, ready to answer.
    digest
        SHA-256 of ``manifest.json`` in hexadecimal; as that file holds the others' hashes, it names the whole bundle.
    signer
        Who signed it; None where nobody did, or nobody looked.
    """

    manifest: Manifest
    spec: ExtractionSpec
    predictor: Predictor
    digest: str
    signer: Signer | None = None


def load_bundle(
    folder: Path, *, self_test: bool = True, engine: Engine = "compiled", trusted: tuple[PublicKey, ...] = ()
) -> Bundle:
    """Read, verify and prove a bundle.

    Parameters
    ----------
    folder
        The bundle's folder.
    self_test
        Recompute the golden case through the real steps; leave it out only where it was just done.
    engine
        What is to compute the features, the golden case's as well as every patient's.
    trusted
        Keys one of which must have signed the bundle; none where it need not be signed.

    Raises
    ------
    Refused
        ``bundle_unreadable`` (a file is missing, too large or cannot be read), ``bundle_unsigned`` or
        ``bundle_signature_invalid`` (no trusted key signed it), ``bundle_hash_mismatch`` (any byte of any file differs
        from what was packed), ``bundle_invalid`` (the parts are not well-formed or contradict each other, or there is
        a file too many), ``bundle_self_test_failed`` (the golden case comes out differently).
    """
    contents = read_files(folder)
    signer = find_signer(contents, trusted)
    bundle = replace(open_bundle(contents, engine=engine), signer=signer)
    if self_test:
        prove(bundle)
    return bundle


def open_bundle(contents: BundleFiles, *, engine: Engine = "compiled") -> Bundle:
    """Verify a bundle's files and make it ready to answer; its golden case is left to :func:`prove`.

    Raises
    ------
    Refused
        ``bundle_hash_mismatch`` or ``bundle_invalid``.
    """
    manifest = parse_manifest(contents["manifest.json"])
    for name, expected in manifest.files.items():
        if sha256(contents[name]) != expected:
            raise Refused(
                ReasonCode.BUNDLE_HASH_MISMATCH, f"The bundle's {name} is not the file that was packed. {COPY_AGAIN}"
            )
    spec = replace(_spec(contents["extraction.yaml"], manifest), engine=engine)
    covariates = tuple(entry.covariate for entry in manifest.covariates)
    predictor = Predictor(contents["model.onnx"], manifest.features, manifest.decision, covariates)
    carried = carried_texts(spec.features, covariates, contents["extraction.yaml"].decode("utf-8"))
    if any(predictor.metadata.get(key) != text for key, text in carried.items()):
        raise _invalid("model.onnx was built for other features, other covariates or another extraction spec")
    return Bundle(manifest, spec, predictor, digest_of(contents))


def carried_texts(features: tuple[str, ...], covariates: tuple[Covariate, ...], extraction: str) -> dict[str, str]:
    """Return what ``model.onnx`` must carry about its inputs, by key."""
    texts = {FEATURES_KEY: "\n".join(features), EXTRACTION_KEY: extraction}
    if covariates:
        texts[COVARIATES_KEY] = "\n".join(column for covariate in covariates for column in covariate.columns)
    return texts


def measure_phantom(name: str, spec: ExtractionSpec) -> FeatureVector:
    """Measure the generated phantom `name` as a patient would be measured, from volume and mask on."""
    return extract.extract(*phantom.make(name), spec)


def prove(bundle: Bundle) -> None:
    """Recompute the golden case through the real steps.

    Raises
    ------
    Refused
        ``bundle_self_test_failed``, naming the first feature that differs by more than 1e-9 relative, or the
        probability when it differs by more than 1e-6: this machine's libraries would not give the answers that the
        bundle was evaluated with.
    """
    golden = bundle.manifest.golden
    features = measure_phantom(golden.phantom, bundle.spec)
    for name, value in zip(features.names, features.values.tolist(), strict=True):
        if not math.isclose(value, golden.features[name], rel_tol=FEATURE_TOLERANCE, abs_tol=0.0):
            raise _self_test_failed(f"{name} is {value!r}, not {golden.features[name]!r}")
    probability = bundle.predictor.predict(features, golden.covariates).probability_advanced
    if not abs(probability - golden.probability_advanced) <= PROBABILITY_TOLERANCE:
        raise _self_test_failed(f"the probability is {probability!r}, not {golden.probability_advanced!r}")


def _spec(text: bytes, manifest: Manifest) -> ExtractionSpec:
    try:
        spec = parameters.parse(text.decode("utf-8"), order=manifest.feature_names)
    except UnicodeDecodeError as error:
        raise _invalid("extraction.yaml is not UTF-8") from error
    except Refused as error:
        raise _invalid(f"extraction.yaml does not fit the manifest ({error})") from error
    if manifest.slice_margin < spec.margin_slices:
        raise _invalid(f"the slice margin is {manifest.slice_margin}, but its interpolator needs {spec.margin_slices}")
    return spec


def _invalid(why: str) -> Refused:
    return Refused(ReasonCode.BUNDLE_INVALID, f"The bundle is not valid: {why}. {BUILD_AGAIN}")


def _self_test_failed(why: str) -> Refused:
    return Refused(
        ReasonCode.BUNDLE_SELF_TEST_FAILED,
        f"The bundle's self-test failed: {why}. This machine or its libraries compute otherwise than "
        "where it was built: install the versions that lungstage names (constraints.txt), or use another bundle.",
    )
