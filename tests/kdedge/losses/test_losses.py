"""Properties of all loss terms: defaults, gradients, documentation and flags."""

import inspect
from dataclasses import replace

import pytest
import torch
from loss_references import random_inputs, term, with_embeddings

from kdedge.losses import LOSS_TERMS
from kdedge.losses.loss_inputs import LossInputs


def inputs_of(name: str, classes: int = 5) -> LossInputs:
    """Build the inputs of a term: features of two layers, or embeddings."""
    inputs = random_inputs(classes)
    return with_embeddings(inputs, 6, 6) if LOSS_TERMS[name].pooled else inputs


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", sorted(LOSS_TERMS))
class TestAnyTerm:
    def test_defaults_are_in_the_table_of_terms(self, name: str) -> None:
        inputs = inputs_of(name, classes=9)
        assert term(name, inputs).item() == term(name, inputs, **LOSS_TERMS[name].settings).item()

    def test_loss_and_student_gradient_are_finite(self, name: str) -> None:
        inputs = inputs_of(name)
        student = inputs.student
        assert student.maps is not None
        learned = [student.logits, student.maps, *student.features, *inputs.projected]
        for value in learned:
            value.requires_grad_()
        loss = term(name, inputs)
        assert loss.shape == () and loss.isfinite() and loss.dtype == torch.float32
        loss.backward()
        gradients = [value.grad for value in learned if value.grad is not None]
        assert gradients and all(gradient.isfinite().all() for gradient in gradients)
        assert any(gradient.abs().max() > 0 for gradient in gradients)

    def test_equal_outputs_have_no_gradient(self, name: str) -> None:
        inputs = inputs_of(name)
        alike = replace(inputs, student=inputs.teacher_output, projected=inputs.teacher_output.features)
        nothing = term(name, alike).item() == pytest.approx(0, abs=1e-5)
        assert nothing == LOSS_TERMS[name].needs_teacher, "ground-truth labels are independent of the teacher"

    def test_docstring_and_module(self, name: str) -> None:
        """Define each loss in one module; its docstring states shapes, source and default weight."""
        compute, weight = LOSS_TERMS[name].compute, LOSS_TERMS[name].weight
        others = {inspect.getsourcefile(term.compute) for other, term in LOSS_TERMS.items() if other != name}
        assert inspect.getsourcefile(compute) not in others
        text = " ".join(inspect.getdoc(compute).split())
        assert "Shapes: " in text and "Source: " in text and "`[N, " in text
        assert f"Default weight: {'measured' if weight is None else f'{weight:g}'}" in text

    def test_settings_are_positive(self, name: str) -> None:
        assert all(value > 0 for value in LOSS_TERMS[name].settings.values())

    def test_terms_that_need_a_teacher_are_marked(self, name: str) -> None:
        inputs = replace(inputs_of(name), teacher=None)
        if LOSS_TERMS[name].needs_teacher:
            with pytest.raises(AssertionError):
                term(name, inputs)
        else:
            assert term(name, inputs).isfinite()

    def test_terms_that_use_the_temperature_are_marked(self, name: str) -> None:
        inputs = inputs_of(name)
        values = {round(term(name, replace(inputs, temperature=t)).item(), 6) for t in (1.0, 4.0)}
        assert (len(values) == 2) == LOSS_TERMS[name].uses_temperature
