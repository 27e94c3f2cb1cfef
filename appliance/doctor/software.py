"""Checks of the software: the bundle, the site's table of covariates, fonts and decoders."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError

from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import HTJ2KLossless, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from lungstage.appliance.config.settings import Settings
from lungstage.appliance.contract.errors import Refused
from lungstage.appliance.dicom import jpeg_lossless
from lungstage.appliance.doctor.finding import Finding, ok, problem, warning
from lungstage.appliance.model.bundle import load_bundle
from lungstage.appliance.model.bundle_files import kind_of
from lungstage.appliance.model.signature import KeyFileError, read_public_keys
from lungstage.appliance.report.fonts import SAMPLES, own_face, runs
from lungstage.appliance.staging.covariates import Site

_COMPRESSED = {
    "RLE": RLELossless, "JPEG-LS": JPEGLSLossless, "JPEG 2000": JPEG2000Lossless, "HTJ2K": HTJ2KLossless,
    "JPEG Lossless": JPEGLosslessSV1,
}  # fmt: skip
"""The lossless compressions in which archives send CT."""


def bundle(settings: Settings) -> Iterator[Finding]:
    """Check the bundle's hashes, its signature, and its self-test on this machine."""
    try:
        trusted = read_public_keys(settings.trusted_keys)
        verified = load_bundle(settings.bundle, engine=settings.engine, trusted=trusted)
    except Refused as refused:
        remedy = "Copy the bundle again from its source. docs/reason-codes.md explains the code."
        if kind_of(settings.bundle) == "contours":
            remedy = "Set bundle to one that gives answers."
        yield problem("bundle", f"{refused} [{refused.reason.code}]", remedy)
    except KeyFileError as error:
        yield problem("bundle", str(error), "Set trusted_keys to files of public keys in PEM.")
    else:
        manifest, signer = verified.manifest, f"signed by {verified.signer}" if verified.signer else "not signed"
        told = f"{manifest.name} {manifest.version} is complete and passes its self-test; it is {signer}"
        yield ok("bundle", f"{told} ({verified.digest[:12]}).")


def covariates(settings: Settings) -> Iterator[Finding]:
    """Check that the site's table of covariates can be used."""
    if settings.covariates is None:
        return
    try:
        Site.read(settings.prevalence, settings.covariates)
    except Refused as refused:
        yield problem("covariates", str(refused), "Correct the table. docs/settings.md describes its format.")
    except OSError as error:
        told = f"{settings.covariates} cannot be read: {error.strerror}."
        yield problem("covariates", told, "Put the table there, with read permission for the daemon's user.")
    else:
        yield ok("covariates", f"{settings.covariates} can be used.")


def fonts(settings: Settings) -> Iterator[Finding]:
    """Check that the page can be drawn, and names in scripts for which the system's fonts are needed."""
    if settings.documents.formats == ("sr",):
        return
    try:
        own_face()
    except PackageNotFoundError as error:
        yield problem(
            "fonts", f"The page cannot be drawn: {error}.", "Install lungstage again, with all its dependencies."
        )
        return
    missing = [script for script, name in SAMPLES.items() if runs(name) is None]
    left_out = ""
    if missing:  # this is no problem if no patient has such a name
        left_out = (
            f" Names in {', '.join(missing)} are left out, because no font on this machine has them. "
            "If patients have such names, install a font, for example Debian's fonts-noto-cjk."
        )
    written = ", ".join(["Latin", "Cyrillic", *(script for script in SAMPLES if script not in missing)])
    yield ok("fonts", f"The page can be drawn, with names in {written} letters.{left_out}")


def decoders(_: Settings) -> Iterator[Finding]:
    """Check that compressed pixels can be decoded."""
    jpeg_lossless.register()
    missing = [name for name, uid in _COMPRESSED.items() if not get_decoder(uid).is_available]
    if missing:
        yield warning(
            "decoders", f"There is no decoder for {', '.join(missing)}: slices with this compression are refused.",
            "Let the archive send CT uncompressed, or with another compression.",
        )  # fmt: skip
    else:
        yield ok("decoders", f"There are decoders for {', '.join(_COMPRESSED)}.")
