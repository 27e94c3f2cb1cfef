"""Train the network: a fixed number of steps from one seed, which continue where they were interrupted."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lungstage.appliance.contour.drawing import Network
from lungstage.appliance.contour.prompts import Floats
from lungstage.training.cohorts.table import refuse
from lungstage.training.contour import evaluation, examples, simulated
from lungstage.training.contour.cases import Case, is_held_out
from lungstage.training.contour.network import ContourNetwork
from lungstage.training.contour.run import ContourRun, versions
from lungstage.training.files import write_whole

CHECKPOINT: Final = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train.

    Attributes
    ----------
    steps
        Number of batches.
    batch
        Windows in a batch.
    width, fine
        Size of the network.
    rate
        Largest learning rate; it rises over the first steps and falls as a cosine.
    seed
        Seed of weights and examples.
    """

    steps: int = 3000
    batch: int = 2
    width: int = 32
    fine: int = 8
    rate: float = 2e-3
    seed: int = 0


_WARM_UP = 100
_DECAY = 1e-4
_AVERAGE = 0.998  # weight of the past in the moving average of the weights
_CORRECTED = 0.35  # share of batches with simulated corrections
_CORRECT_FROM = 0.15  # of the steps: before it there is nothing worth a correction
_FROZEN_FROM = 0.8  # of the steps: from here the normalisation is that of the exported network
_SAVE_EVERY = 50


class Trainer:
    """A training run.

    Parameters
    ----------
    plan
        How to train.
    cases
        The patients to train on.
    folder
        Where the checkpoint is kept. A run that was interrupted continues from it.

    Attributes
    ----------
    averaged
        The network with the moving average of the weights, which is the result.
    """

    def __init__(self, plan: Plan, cases: Sequence[Case], folder: Path) -> None:
        torch.manual_seed(plan.seed)
        self._plan, self._cases, self._file = plan, cases, folder / CHECKPOINT
        self._sides = [examples.side_of(case.mask) for case in cases]
        self._network = ContourNetwork(plan.width, plan.fine).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.averaged = copy.deepcopy(self._network).eval()
        self._optimiser = torch.optim.AdamW(self._network.parameters(), lr=plan.rate, weight_decay=_DECAY)
        self.step = 0
        self._resume()

    def run(self, report: Callable[[int, float], None] = lambda step, loss: None) -> None:
        """Train up to the last step.

        Parameters
        ----------
        report
            Called after each step with its number and loss.
        """
        while self.step < self._plan.steps:
            rng = np.random.default_rng([self._plan.seed, self.step])
            torch.manual_seed(int(rng.integers(2**31)))
            loss = self._learn(rng)
            self.step += 1
            if self.step % _SAVE_EVERY == 0 or self.step == self._plan.steps:
                self.save()
            report(self.step, loss)

    def _learn(self, rng: np.random.Generator) -> float:
        done = self.step / self._plan.steps
        self._network.train(done < _FROZEN_FROM)
        for group in self._optimiser.param_groups:
            group["lr"] = self._plan.rate * min(1.0, (self.step + 1) / _WARM_UP) * (1 + math.cos(math.pi * done)) / 2
        drawn = self._examples(rng)
        hu = _stack([example.hu[None] for example in drawn])
        mask = _stack([example.mask[None].astype(np.float32) for example in drawn])
        told = [example.told() for example in drawn]
        if done >= _CORRECT_FROM and rng.random() < _CORRECTED:
            told = self._with_corrections(drawn, hu, told, rng)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits, coarse = self._network(hu, _stack(told))
        loss = _loss(logits.float(), mask) + 0.5 * _loss(coarse.float(), functional.avg_pool3d(mask, 2))
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        self._optimiser.step()
        self._average()
        return float(loss.detach())

    def _examples(self, rng: np.random.Generator) -> list[examples.Example]:
        """Draw a batch of one size: that of its first case, and cases that fit into it."""
        first = int(rng.integers(len(self._cases)))
        side = self._sides[first]
        near = [k for k, one in enumerate(self._sides) if abs(one - side) <= 8]
        chosen = [first, *rng.choice(near, self._plan.batch - 1).tolist()]
        return [examples.draw(self._cases[k], side, rng) for k in chosen]

    def _with_corrections(
        self, drawn: Sequence[examples.Example], hu: Tensor, told: Sequence[Any], rng: np.random.Generator
    ) -> list[Any]:
        """Add up to three corrections of what the network now draws."""
        self._network.eval()
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            logits, _ = self._network(hu, _stack(told))
        self._network.train(self.step / self._plan.steps < _FROZEN_FROM)
        result = []
        for example, found in zip(drawn, (logits[:, 0] > 0).numpy(), strict=True):
            prompt, present = example.prompt, found.copy()
            for _ in range(int(rng.integers(1, 4))):
                if (correction := simulated.correction(example.mask, present, rng)) is None:
                    break
                prompt, present = simulated.with_correction(prompt, present, *correction)
            result.append(example.told(prompt))
        return result

    @torch.no_grad()
    def _average(self) -> None:
        keep = min(_AVERAGE, (self.step + 1) / (self.step + 10))
        for mean, now in zip(self.averaged.state_dict().values(), self._network.state_dict().values(), strict=True):
            if mean.dtype.is_floating_point:
                mean.lerp_(now, 1 - keep)

    def save(self) -> None:
        """Write the checkpoint."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "plan": asdict(self._plan), "patients": [case.patient for case in self._cases], "step": self.step,
            "network": self._network.state_dict(), "averaged": self.averaged.state_dict(),
            "optimiser": self._optimiser.state_dict(),
        }  # fmt: skip
        file = io.BytesIO()
        torch.save(state, file)
        write_whole(self._file, file.getvalue())

    def _resume(self) -> None:
        if not self._file.is_file():
            return
        state = torch.load(self._file, weights_only=True)
        if state["plan"] != asdict(self._plan) or state["patients"] != [case.patient for case in self._cases]:
            refuse(
                f"{self._file.parent.name} contains the checkpoint of another training: with other options, or other "
                "patients. Choose another folder with -o, or remove its checkpoint.pt."
            )
        self.step = state["step"]
        self._network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self._optimiser.load_state_dict(state["optimiser"])


def as_function(network: ContourNetwork) -> Network:
    """Return a network as :func:`contour.drawing.draw` takes it; it computes like the exported graph, in float32."""

    def drawn(hu: Floats, prompt: Floats) -> Floats:
        with torch.inference_mode():
            logits, _ = network(_stack([hu[None]]), _stack([prompt]))
        result: Floats = logits[0, 0].numpy()
        return result

    return drawn


def _stack(arrays: Sequence[Any]) -> Tensor:
    return torch.from_numpy(np.stack(arrays)).contiguous(memory_format=torch.channels_last_3d)


def train(
    cases: Sequence[Case],
    plan: Plan,
    folder: Path,
    *,
    cohort: Mapping[str, str],
    report: Callable[[str, int, int], None] = lambda what, done, of: None,
) -> ContourRun:
    """Train on the patients that are not held out, and evaluate on those that are.

    Parameters
    ----------
    cases
        All patients.
    plan
        How to train.
    folder
        Gets the checkpoint, from which an interrupted training continues.
    cohort
        ``name``, ``source`` and ``licence`` of the images.
    report
        Called with what is done ("training", "evaluation"), how much of it, and of how much.
    """
    trained_on = [case for case in cases if not is_held_out(case.patient)]
    # A tumour that its crop cuts off has no true volume, and its diameter may be cut off, too.
    held_out = [case for case in cases if is_held_out(case.patient) and case.is_whole]
    trainer = Trainer(plan, trained_on, folder)
    trainer.run(lambda step, loss: report("training", step, plan.steps))
    network = trainer.averaged
    drawn = evaluation.evaluate(
        held_out, as_function(network), report=lambda done: report("evaluation", done, len(held_out))
    )
    record = {
        "plan": asdict(plan),
        "cohort": dict(cohort),
        "trained_on": [case.patient for case in trained_on],
        "held_out": [case.patient for case in held_out],
        "figures": evaluation.summarise(drawn),
        "drawn": [asdict(one) for one in drawn],
        "versions": versions(),
    }
    return ContourRun(network, record)


def _loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Soft Dice of each window, and half of the cross-entropy."""
    shares = torch.sigmoid(logits)
    axes = (1, 2, 3, 4)
    dice = (2 * (shares * mask).sum(axes) + 50) / (shares.sum(axes) + mask.sum(axes) + 50)
    return (1 - dice).mean() + 0.5 * functional.binary_cross_entropy_with_logits(logits, mask)
