"""Objective: the order of its terms, and terms of whole batches in several processes."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from loss_references import random_inputs, term, with_embeddings
from torch import Tensor

from kdedge.losses.loss_inputs import ModelOutput
from kdedge.training.distributed import ProcessGroup
from kdedge.training.objective import Objective, make_objective


@dataclass(frozen=True)
class WithPartner(ProcessGroup):
    """Group of two processes, where the other one holds the second half of a batch."""

    size: int = 2
    others: tuple[Tensor, ...] = ()

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of both processes."""
        (partner,) = (whole[len(rows) :] for whole in self.others if torch.equal(whole[: len(rows)], rows))
        return torch.cat([rows, partner])


class TestObjective:
    SETTINGS: ClassVar = {"ce": {}, "dkd": {"others": 2.0}, "dist": {}, "map": {}, "kd": {}}

    def test_values_are_in_the_order_of_terms(self) -> None:
        inputs = random_inputs(6)
        values = Objective(self.SETTINGS).values(inputs, ProcessGroup())
        expected = [term(name, inputs, **settings).item() for name, settings in self.SETTINGS.items()]
        assert values.tolist() == pytest.approx(expected, rel=1e-6)
        assert values.dtype == torch.float32

    def test_terms_without_settings_have_their_defaults(self) -> None:
        objective = make_objective(("ce", "dkd"), {"dkd": {"others": 2.0}, "cat": {"positions": 3}})
        assert objective == Objective({"ce": {}, "dkd": {"others": 2.0}})
        assert objective.text == "ce,dkd"

    def test_only_whole_batch_terms_gather_logits(self) -> None:
        whole = random_inputs(6, batch=8)

        def half(prediction: ModelOutput) -> ModelOutput:
            return ModelOutput(
                prediction.logits[:4],
                prediction.classes[:4],
                prediction.maps[:4],
                tuple(f[:4] for f in prediction.features),
            )

        mine = replace(
            whole, student=half(whole.student), teacher=half(whole.teacher_output), targets=whole.targets[:4]
        )
        group = WithPartner(others=(whole.student.logits, whole.teacher_output.logits))
        values = Objective(self.SETTINGS).values(mine, group)
        expected = [
            term(name, whole if name == "dist" else mine, **settings).item() for name, settings in self.SETTINGS.items()
        ]
        assert values.tolist() == pytest.approx(expected, rel=1e-6)

    def test_relations_are_those_of_the_whole_batch(self) -> None:
        whole = with_embeddings(random_inputs(6, batch=8), 5, 7)

        def half(output: ModelOutput) -> ModelOutput:
            return ModelOutput(output.logits[:4], features=(output.features[0][:4],))

        mine = replace(
            whole, student=half(whole.student), teacher=half(whole.teacher_output), targets=whole.targets[:4]
        )
        outputs = (whole.student, whole.teacher_output)
        group = WithPartner(others=tuple(tensor for each in outputs for tensor in (each.logits, *each.features)))
        (value,) = Objective({"rkd": {}}).values(mine, group)
        assert value.item() == pytest.approx(term("rkd", whole).item(), rel=1e-6)
        assert value.item() != pytest.approx(term("rkd", mine).item(), rel=1e-3)
