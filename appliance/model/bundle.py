"""Read a model bundle: check its files against their hashes, and run its self-test.

A bundle is a folder with exactly four files: ``model.onnx``, ``extraction.yaml``, ``manifest.json`` and
``MODEL_CARD.md``. A signed bundle also has ``manifest.sig``. The manifest's content is in :mod:`model.manifest`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.contract.spec import Covariate, Engine, ExtractionSpec, FeatureVector
from lungstage.appliance.model.bundle_files import BUNDLE_FILES, BundleFiles, digest_of, read_files, require_packed
from lungstage.appliance.model.inference import Predictor
from lungstage.appliance.model.manifest import (
    Decision,
    FeatureEntry,
    GoldenCase,
    IntendedUse,
    Manifest,
    Provenance,
    RoiRule,
)
from lungstage.appliance.model.manifest import parse as parse_manifest
from lungstage.appliance.model.sealed import BUILD_AGAIN
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
"""Keys of the metadata in ``model.onnx`` about its inputs: their names in order, one per line, and the spec's text."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified model bundle.

    Attributes
    ----------
    manifest
        Content of ``manifest.json``.
    spec
        What to measure, with the features in input order.
    predictor
        The model, ready to answer.
    digest
        SHA-256 of ``manifest.json`` in hexadecimal. That file contains the other files' hashes, so this digest
        identifies the whole bundle.
    signer
        Who signed it; None if it is not signed, or if the signature was not read.
    """

    manifest: Manifest
    spec: ExtractionSpec
    predictor: Predictor
    digest: str
    signer: Signer | None = None


def load_bundle(
    folder: Path, *, self_test: bool = True, engine: Engine = "compiled", trusted: tuple[PublicKey, ...] = ()
) -> Bundle:
    """Read and verify a bundle, and run its self-test.

    Parameters
    ----------
    folder
        The bundle's folder.
    self_test
        Recompute the golden case with the real steps. Leave it out only if it was just done.
    engine
        The engine that computes the features of the golden case and of all patients.
    trusted
        Trusted keys. If any are given, one of them must have signed the bundle.

    Raises
    ------
    Refused
        ``bundle_unreadable`` (a file is missing, too large or cannot be read), ``bundle_unsigned`` or
        ``bundle_signature_invalid`` (no trusted key signed it), ``bundle_hash_mismatch`` (a byte of a file differs
        from the packed file), ``bundle_invalid`` (the parts are not well-formed or contradict each other, or there is
        an additional file), ``bundle_self_test_failed`` (the golden case gives other results).
    """
    contents = read_files(folder)
    signer = find_signer(contents, trusted)
    bundle = replace(open_bundle(contents, engine=engine), signer=signer)
    if self_test:
        prove(bundle)
    return bundle


def open_bundle(contents: BundleFiles, *, engine: Engine = "compiled") -> Bundle:
    """Verify a bundle's files and make it ready to answer; the self-test is :func:`prove`.

    Raises
    ------
    Refused
        ``bundle_hash_mismatch`` or ``bundle_invalid``.
    """
    manifest = parse_manifest(contents["manifest.json"])
    require_packed(contents, manifest.files)
    spec = replace(_spec(contents["extraction.yaml"], manifest), engine=engine)
    covariates = tuple(entry.covariate for entry in manifest.covariates)
    predictor = Predictor(contents["model.onnx"], manifest.features, manifest.decision, covariates)
    carried = carried_texts(spec.features, covariates, contents["extraction.yaml"].decode("utf-8"))
    if any(predictor.metadata.get(key) != text for key, text in carried.items()):
        raise _invalid("model.onnx was built for other features, other covariates or another extraction spec")
    return Bundle(manifest, spec, predictor, digest_of(contents))


def carried_texts(features: tuple[str, ...], covariates: tuple[Covariate, ...], extraction: str) -> dict[str, str]:
    """Return the metadata about its inputs that ``model.onnx`` must contain, by key."""
    texts = {FEATURES_KEY: "\n".join(features), EXTRACTION_KEY: extraction}
    if covariates:
        texts[COVARIATES_KEY] = "\n".join(column for covariate in covariates for column in covariate.columns)
    return texts


def measure_phantom(name: str, spec: ExtractionSpec) -> FeatureVector:
    """Measure the generated phantom `name` like a patient, starting from volume and mask."""
    return extract.extract(*phantom.make(name), spec)


def prove(bundle: Bundle) -> None:
    """Run the bundle's self-test: recompute the golden case with the real steps.

    Raises
    ------
    Refused
        ``bundle_self_test_failed``. The message names the first feature that differs by more than 1e-9 relative, or
        the probability if it differs by more than 1e-6. This machine's libraries would then give other answers than
        those that the bundle was evaluated with.
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
        f"The bundle's self-test failed: {why}. This machine or its libraries give other results than the machine "
        "where the bundle was built. Install the library versions in constraints.txt, or use another bundle.",
    )
