"""Sealed JSON: the text of a bundle's manifest, which contains its own hash.

The seal is the SHA-256 of the file with the seal's 64 digits set to zero. The manifest contains the hashes of the
other files. So any changed byte in a bundle is detected, and no further file is needed.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from lungstage.appliance.contract.errors import ReasonCode, Refused

COPY_AGAIN: Final = "Copy the whole bundle again."
BUILD_AGAIN: Final = "Get the bundle again from its builder."
"""Next steps for a bundle that was damaged while it was copied, and for one that was built wrongly."""

Model = TypeVar("Model", bound=BaseModel)

_SEAL_FIELD = re.compile(rb'^  "seal": "([0-9a-f]{64})"$', re.MULTILINE)
_BLANK = b"0" * 64


def _digest(text: bytes, span: tuple[int, int]) -> bytes:
    return hashlib.sha256(text[: span[0]] + _BLANK + text[span[1] :]).hexdigest().encode()


def render(manifest: BaseModel) -> bytes:
    """Write a manifest as sealed JSON; the same manifest gives the same bytes.

    Returns
    -------
    bytes
        UTF-8 JSON. Its last entry, ``seal``, is the SHA-256 of the whole text with the seal's digits set to zero.
    """
    document = {**manifest.model_dump(mode="json"), "seal": _BLANK.decode()}
    text = (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
    span = _seal_span(text)
    return text[: span[0]] + _digest(text, span) + text[span[1] :]


def _seal_span(text: bytes) -> tuple[int, int]:
    found = list(_SEAL_FIELD.finditer(text))
    if len(found) != 1:
        raise Refused(
            ReasonCode.BUNDLE_HASH_MISMATCH, f"The bundle's manifest.json must contain exactly one seal. {COPY_AGAIN}"
        )
    return found[0].span(1)


def parse(text: bytes, model: type[Model]) -> Model:
    """Read the output of :func:`render`.

    Parameters
    ----------
    model
        What the manifest must be.

    Raises
    ------
    Refused
        ``bundle_hash_mismatch`` if any byte was changed after sealing. ``bundle_invalid`` if this version does not
        accept the manifest; the message names every wrong entry by its path.
    """
    span = _seal_span(text)
    if text[slice(*span)] != _digest(text, span):
        raise Refused(
            ReasonCode.BUNDLE_HASH_MISMATCH, f"The bundle's manifest.json was changed after it was sealed. {COPY_AGAIN}"
        )
    try:
        document = json.loads(text)
        document.pop("seal", None)
        return model.model_validate_json(json.dumps(document))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or 'manifest'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise Refused(
            ReasonCode.BUNDLE_INVALID, f"The bundle's manifest.json is not valid: {problems}. {BUILD_AGAIN}"
        ) from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Refused(
            ReasonCode.BUNDLE_INVALID, f"The bundle's manifest.json is not a JSON object. {BUILD_AGAIN}"
        ) from error
