"""Run the network that draws contours, with onnxruntime."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lungstage.appliance.contour.prompts import CHANNELS
from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.model.inference import open_session
from lungstage.appliance.model.model_file import DRAWING, require_plain
from lungstage.appliance.model.sealed import BUILD_AGAIN

Floats = npt.NDArray[np.float32]

HU_INPUT: Final = "hu"
PROMPT_INPUT: Final = "prompt"
LOGITS_OUTPUT: Final = "logits"


class ContourNetwork:
    """The network of a contour bundle, as :func:`contour.drawing.draw` takes it.

    Parameters
    ----------
    model
        The bytes of ``model.onnx``.

    Raises
    ------
    Refused
        ``bundle_invalid`` if `model` is not a plain graph from ``hu`` and ``prompt`` to ``logits``.
    """

    def __init__(self, model: bytes) -> None:
        require_plain(model, DRAWING)
        self._session: Any = open_session(model)
        channels = {HU_INPUT: 1, PROMPT_INPUT: len(CHANNELS), LOGITS_OUTPUT: 1}
        ends = [*self._session.get_inputs(), *self._session.get_outputs()]
        found = [(end.name, end.type, list(end.shape[:2])) for end in ends]
        if found != [(name, "tensor(float)", [1, count]) for name, count in channels.items()]:
            raise Refused(
                ReasonCode.BUNDLE_INVALID,
                f"The bundle's model.onnx must have the inputs '{HU_INPUT}' and '{PROMPT_INPUT}' and the output "
                f"'{LOGITS_OUTPUT}', all float32. {BUILD_AGAIN}",
            )

    def __call__(self, hu: Floats, prompt: Floats) -> Floats:
        """Compute logits (z, y, x) from HU (z, y, x) and the prompt's channels (5, z, y, x)."""
        (logits,) = self._session.run(
            [LOGITS_OUTPUT], {HU_INPUT: hu[np.newaxis, np.newaxis], PROMPT_INPUT: prompt[np.newaxis]}
        )
        drawn: Floats = logits[0, 0]
        return drawn
