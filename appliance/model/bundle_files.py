"""Read a bundle's files from the disk: four files, and the signature if there is one. Each is read once, up to a limit.

:mod:`model.bundle` verifies their content, and :mod:`model.signature` the signature.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from lungstage.appliance.config.shipped import shipped_bundles, shipped_contour_bundles
from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.model.manifest import HASHED_FILES
from lungstage.appliance.model.sealed import COPY_AGAIN

BUNDLE_FILES: Final = frozenset({"manifest.json", *HASHED_FILES})
CONTOUR_FILES: Final = BUNDLE_FILES - {"extraction.yaml"}
"""The files of a bundle that answers, and of one that draws contours."""

SIGNATURE_FILE: Final = "manifest.sig"

MAX_MODEL_BYTES: Final = 40 * 1024**2
MAX_TEXT_BYTES: Final = 1024**2
"""Limit for each of the other files. The shipped model has a quarter of a megabyte, its longest text 22 kB."""

BundleKind = Literal["answers", "contours"]
"""What a bundle gives."""

BundleFiles = Mapping[str, bytes]
"""Content of the files by name. Each is read once, so exactly the verified content is used."""


def read_files(folder: Path, expected: frozenset[str] = BUNDLE_FILES) -> BundleFiles:
    """Read a bundle's files, and its signature if there is one.

    Parameters
    ----------
    folder
        The bundle's folder.
    expected
        Names of its files.

    Raises
    ------
    Refused
        ``bundle_unreadable`` or ``bundle_invalid``.
    """
    kind: BundleKind = "contours" if expected == CONTOUR_FILES else "answers"
    try:
        present = {entry.name for entry in folder.iterdir()}
    except OSError as error:
        raise no_bundle(folder, kind) from error
    if present - {SIGNATURE_FILE} != expected:
        _require_kind(folder, kind)
    if missing := sorted(expected - present):
        raise Refused(
            ReasonCode.BUNDLE_UNREADABLE,
            f"Files of the bundle are missing: {', '.join(missing)}. Copy the whole bundle again.",
        )
    if surplus := sorted(present - expected - {SIGNATURE_FILE}):
        raise Refused(
            ReasonCode.BUNDLE_INVALID,
            f"The bundle is not valid: it contains files that do not belong to it: {', '.join(surplus)}. Remove them.",
        )
    return {name: _read_file(folder / name) for name in sorted(present)}


def no_bundle(folder: Path, kind: BundleKind | None = None) -> Refused:
    """Make the refusal of a name or folder that is no bundle; it lists the shipped bundles of `kind`, or all."""
    return Refused(
        ReasonCode.BUNDLE_UNREADABLE,
        f"There is no bundle {folder}. It is neither a readable folder nor a shipped bundle. {_give(kind)}",
    )


def _give(kind: BundleKind | None) -> str:
    shipped = {
        "answers": shipped_bundles(), "contours": shipped_contour_bundles(),
        None: (*shipped_bundles(), *shipped_contour_bundles()),
    }[kind]  # fmt: skip
    what = {"answers": " that gives answers", "contours": " that draws contours", None: ""}[kind]
    return f"Give the folder of a bundle{what}, or the name of a shipped one: {', '.join(shipped) or 'none'}."


def kind_of(folder: Path) -> BundleKind | None:
    """Return what a bundle gives, as its manifest says without any check; None if the manifest does not say it."""
    try:
        manifest = json.loads(_read_file(folder / "manifest.json"))
    except (Refused, ValueError, RecursionError):
        return None
    if not isinstance(manifest, dict):
        return None
    if manifest.get("kind") == "contour":
        return "contours"
    return "answers" if "features" in manifest else None


def _require_kind(folder: Path, kind: BundleKind) -> None:
    """Refuse a bundle of the other kind; its files are then not missing or additional, but those of its kind."""
    found = kind_of(folder)
    if found in (None, kind):
        return
    gives = "draws contours and gives no answers" if found == "contours" else "gives answers and draws no contours"
    raise Refused(ReasonCode.BUNDLE_INVALID, f"The bundle {folder} {gives}. {_give(kind)}")


def _read_file(path: Path) -> bytes:
    most = MAX_MODEL_BYTES if path.name == "model.onnx" else MAX_TEXT_BYTES
    try:
        if not path.is_file():  # a pipe or a device would never end
            raise Refused(
                ReasonCode.BUNDLE_UNREADABLE, f"The bundle's {path.name} is not a file. Copy the whole bundle again."
            )
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise Refused(
            ReasonCode.BUNDLE_UNREADABLE,
            f"The bundle's {path.name} cannot be read. Check its owner and permissions, or copy the whole bundle "
            "again.",
        ) from error
    if len(content) > most:
        raise Refused(
            ReasonCode.BUNDLE_UNREADABLE,
            f"The bundle's {path.name} is larger than {most} bytes. Copy the whole bundle again. "
            "If the file is still too large, use another bundle.",
        )
    return content


def require_packed(contents: BundleFiles, hashes: Mapping[str, str]) -> None:
    """Compare files with the hashes in the manifest.

    Raises
    ------
    Refused
        ``bundle_hash_mismatch``.
    """
    for name, expected in hashes.items():
        if sha256(contents[name]) != expected:
            raise Refused(
                ReasonCode.BUNDLE_HASH_MISMATCH, f"The bundle's {name} differs from the packed file. {COPY_AGAIN}"
            )


def digest_of(contents: BundleFiles) -> str:
    """SHA-256 of ``manifest.json`` in hexadecimal, which identifies the whole bundle."""
    return sha256(contents["manifest.json"])


def sha256(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
