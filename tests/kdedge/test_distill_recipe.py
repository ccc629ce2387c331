"""A loss as a user types it."""

import pytest

from kdedge.distill.losses import TERMS
from kdedge.distill.recipe import DISTILL_LOSS, TRAIN_LOSS, Recipe, parse_loss
from kdedge.distill.request import Request, recipe_for
from kdedge_runtime.errors import UsageError


class TestLoss:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("ce", {"ce": 1.0}),
            ("ce:0.1,kd:0.9,mapall:20", {"ce": 0.1, "kd": 0.9, "mapall": 20.0}),
            (" kd : 2 , ce ", {"kd": 2.0, "ce": 1.0}),
            ("map:1e-3", {"map": 0.001}),
        ],
    )
    def test_a_weighted_sum(self, text: str, expected: dict[str, float]) -> None:
        assert parse_loss(text) == expected
        assert list(parse_loss(text)) == list(expected), "in the order of the text"

    @pytest.mark.parametrize(("text", "near"), [("mapal", "mapall"), ("ce:1,kdd", "kd"), ("maps:2", "map")])
    def test_an_unknown_term_names_the_nearest_one(self, text: str, near: str) -> None:
        with pytest.raises(UsageError, match=rf"Unknown loss term .*Did you mean {near}\?.*{', '.join(TERMS)}"):
            parse_loss(text)

    def test_a_term_like_no_other_gets_the_list(self) -> None:
        with pytest.raises(UsageError, match=r"'contrastive'.*'ce,contrastive'\. The terms are: ce, kd, map, mapall\."):
            parse_loss("ce,contrastive")

    @pytest.mark.parametrize("text", ["", ",", "ce,,kd", ":1"])
    def test_nothing_is_no_term(self, text: str) -> None:
        with pytest.raises(UsageError, match="Unknown loss term ''"):
            parse_loss(text)

    @pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf", "much", "1;2"])
    def test_a_weight_is_a_number_above_zero(self, weight: str) -> None:
        with pytest.raises(UsageError, match=r"weight of loss term 'kd'.*number above zero"):
            parse_loss(f"ce,kd:{weight}")

    def test_a_term_is_named_once(self) -> None:
        with pytest.raises(UsageError, match="names 'ce' twice"):
            parse_loss("ce:0.1,kd:1,ce:0.2")

    @pytest.mark.parametrize("loss", [TRAIN_LOSS, DISTILL_LOSS])
    def test_the_defaults_are_losses_that_a_user_could_type(self, loss: dict[str, float]) -> None:
        assert parse_loss(",".join(f"{name}:{weight}" for name, weight in loss.items())) == loss


class TestRecipe:
    def test_what_is_left_open_gets_its_default(self) -> None:
        train = recipe_for(Request("photos", "resnet18"), 500, 30)
        assert train == Recipe(epochs=30, batch_size=32, learning_rate=0.1 * 32 / 128, loss={"ce": 1.0})
        distill = recipe_for(Request("photos", "resnet18", teacher="runs/teacher"), 500, 30)
        assert distill.loss == DISTILL_LOSS

    def test_what_is_asked_for_is_taken(self) -> None:
        request = Request(
            "photos", "resnet18", teacher="t", batch_size=8, lr=0.5, loss="kd", temperature=2.0, flip=False, seed=7
        )
        assert recipe_for(request, 500, 3) == Recipe(3, 8, 0.5, {"kd": 1.0}, temperature=2.0, flip=False, seed=7)

    def test_trained_weights_are_adapted_with_a_tenth_of_the_rate(self) -> None:
        random, trained = Request("photos", "resnet18"), Request("photos", "resnet18", weights="w.pth")
        assert recipe_for(trained, 500, 3).learning_rate == pytest.approx(recipe_for(random, 500, 3).learning_rate / 10)

    def test_a_batch_is_no_larger_than_the_data(self) -> None:
        assert recipe_for(Request("photos", "resnet18", batch_size=64), 10, 3).batch_size == 10

    def test_an_empty_loss_is_not_the_default(self) -> None:
        with pytest.raises(UsageError, match="Unknown loss term"):
            recipe_for(Request("photos", "resnet18", loss=""), 10, 3)
