"""Loss syntax, recipe files, and resolved settings."""

import json
import re
import runpy
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from training_toys import tiny_config

from kdedge.cli import options
from kdedge.config.defaults import FEW_SAMPLES
from kdedge.config.loss_spec import LossSpec, parse_loss
from kdedge.config.recipe_file import Recipe, load_recipe, recipe_text
from kdedge.config.recipe_names import shipped_recipes
from kdedge.config.resolved_config import (
    FINE_TUNE,
    ResolvedConfig,
    requested_recipe,
    resolve_batch_size,
    resolve_config,
)
from kdedge.config.train_config import TrainConfig
from kdedge.losses import LOSS_TERMS
from kdedge.training.augmentation import Augmentation
from kdedge_runtime.errors import UsageError

ROOT = Path(__file__).parents[3]
BENCHMARK_RECIPES = tuple(str(ROOT / "tests" / "benchmarks" / name) for name in ("cifar.toml", "tiny-imagenet.toml"))
"""Recipes of benchmarks that have not been run at full length, and are not bundled."""


class TestLossText:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("ce", {"ce": 1.0}),
            ("ce:0.1,kd:0.9,mapall:20", {"ce": 0.1, "kd": 0.9, "mapall": 20.0}),
            (" kd : 2 , ce ", {"kd": 2.0, "ce": 1.0}),
            ("map:1e-3", {"map": 0.001}),
            ("ls,map", {"ls": 9.0, "map": 20.0}),
            ("ce,at,hint:100", {"ce": 1.0, "at": None, "hint": 100.0}),
        ],
    )
    def test_weighted_sum_is_parsed(self, text: str, expected: dict[str, float | None]) -> None:
        assert parse_loss(text) == LossSpec(expected)
        assert list(parse_loss(text).weights) == list(expected), "in the order of the text"

    @pytest.mark.parametrize(("text", "near"), [("mapal", "mapall"), ("ce:1,kdd", "kd"), ("maps:2", "map")])
    def test_unknown_term_suggests_the_closest(self, text: str, near: str) -> None:
        with pytest.raises(UsageError, match=rf"Unknown loss term .*Did you mean {near}\?.*{', '.join(LOSS_TERMS)}"):
            parse_loss(text)

    def test_unknown_term_lists_all_terms(self) -> None:
        with pytest.raises(UsageError, match=r"'contrastive'.*'ce,contrastive'\. .*: ce, kd, ls, dkd, "):
            parse_loss("ce,contrastive")

    @pytest.mark.parametrize("text", ["", ",", "ce,,kd", ":1"])
    def test_empty_term_is_rejected(self, text: str) -> None:
        with pytest.raises(UsageError, match="Unknown loss term ''"):
            parse_loss(text)

    @pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf", "much", "1;2"])
    def test_weight_must_be_positive(self, weight: str) -> None:
        with pytest.raises(UsageError, match=r"weight of loss term 'kd'.*number above zero"):
            parse_loss(f"ce,kd:{weight}")

    def test_repeated_term_is_rejected(self) -> None:
        with pytest.raises(UsageError, match="'ce' twice"):
            parse_loss("ce:0.1,kd:1,ce:0.2")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return tmp_path / "mine.toml"


class TestRecipeFile:
    def test_all_keys_are_read(self, recipe: Path) -> None:
        recipe.write_text(
            """
            epochs = 240
            batch_size = 64
            learning_rate = 0.05
            temperature = 2
            weight_decay = 0
            warmup_fraction = 0.05
            optimizer = "adamw"
            layer_decay = 0.5
            fit_head = true
            [loss]
            ce = 0.1
            dkd = { weight = 2, others = 2 }
            hint = {}
            mapall = { classes = 8 }
            [layers]
            layer3 = "layer4.1"
            [augmentation]
            shift = 0.25
            flip = false
            mixup = 0.2
            """
        )
        settings = load_recipe(str(recipe))
        assert settings.loss == LossSpec(
            {"ce": 0.1, "dkd": 2.0, "hint": None, "mapall": 20.0}, {"dkd": {"others": 2.0}, "mapall": {"classes": 8}}
        )
        assert settings.layers == {"layer3": "layer4.1"}
        assert settings.augmentation == Augmentation(shift=0.25, flip=False, mixup=0.2)
        assert (settings.epochs, settings.batch_size, settings.learning_rate) == (240, 64, 0.05)
        assert (settings.temperature, settings.weight_decay, settings.warmup_fraction) == (2.0, 0.0, 0.05)
        assert (settings.optimizer, settings.layer_decay, settings.fit_head) == ("adamw", 0.5, True)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[los]\nce = 1", r"unknown key 'los'. Did you mean loss\?"),
            ("optimizer = 'adam'", "optimizer = 'adam'. Expected sgd or adamw"),
            ("fit_head = 1", "fit_head = 1. Expected true or false"),
            ("layer_decay = 0", "layer_decay = 0. Expected a number above zero and at most 1"),
            ("layer_decay = 1.5", "layer_decay = 1.5. Expected a number above zero and at most 1"),
            ("loss = 'ce'", "must be a table of terms"),
            ("[loss]\nkdd = 1", r"Unknown loss term 'kdd' in .*Did you mean"),
            ("[loss]\nkd = -1", "weight of loss term 'kd'"),
            ("[loss]\nkd = true", "weight of loss term 'kd'"),
            ("[loss]\nmapall = { clases = 3 }", r"no setting 'clases'. Did you mean classes\?.* weight, classes"),
            ("[loss]\nmapall = { classes = 2.5 }", "classes of term 'mapall' must be a whole number above zero"),
            ("[loss]\nls = { base_temperature = 0 }", "base_temperature of term 'ls' must be a number above zero"),
            ("epochs = 2.5\n[loss]\nce = 1", r"epochs = 2.5. Expected a whole number above zero"),
            ("epochs = inf\n[loss]\nce = 1", r"epochs = inf. Expected a whole number above zero"),
            ("weight_decay = -1\n[loss]\nce = 1", r"weight_decay = -1. Expected a number of zero or more"),
            ("learning_rate = inf\n[loss]\nce = 1", r"learning_rate = inf. Expected a number above zero"),
            ("learning_rate = 1e308\n[loss]\nce = 1", r"learning_rate = 1e\+308. Expected a number above zero"),
            ("[loss]\nce = 1e308", "weight of loss term 'ce'"),
            ("learning_rate = nan\n[loss]\nce = 1", r"learning_rate = nan. Expected a number above zero"),
            (
                "warmup_fraction = 2\n[loss]\nce = 1",
                r"warmup_fraction = 2. Expected a number of zero or more and at most 1",
            ),
            ("steps = 0\n[loss]\nce = 1", r"steps = 0. Expected a whole"),
            ("steps = 9\nepochs = 3\n[loss]\nce = 1", "both steps and epochs"),
            ("[loss]\nce = 1\n[augmentation]\nflp = true", r"unknown key 'flp'. Did you mean flip\?"),
            ("[loss]\nce = 1\n[augmentation]\nflip = 0.5", r"flip cannot be 0.5. Its default is True"),
            ("[loss]\nce = 1\n[augmentation]\nshift = 3", r"shift is 3\. Expected"),
            ("[loss]\nce = 1\n[layers]\na = 1", "must map layers to layers"),
            ("[loss", "not valid TOML"),
        ],
    )
    def test_invalid_recipes_are_rejected(self, recipe: Path, text: str, message: str) -> None:
        recipe.write_text(text)
        with pytest.raises(UsageError, match=message) as caught:
            load_recipe(str(recipe))
        assert "\n" not in str(caught.value)

    def test_unknown_recipe_is_rejected(self) -> None:
        with pytest.raises(
            UsageError, match=r"no recipe 'imagenet'. Expected default, few-images, fine-tune, labels, .*\.toml"
        ):
            load_recipe("imagenet")
        with pytest.raises(UsageError, match=r"Cannot read the recipe none\.toml"):
            load_recipe("none.toml")

    @pytest.mark.parametrize("name", [*shipped_recipes(), *BENCHMARK_RECIPES])
    def test_recipes_of_the_repository_are_readable(self, name: str) -> None:
        assert bool(load_recipe(name).loss.weights) == (name != FINE_TUNE), "fine-tuning takes the loss of the others"

    def test_bundled_recipes_are_in_the_help(self) -> None:
        (option,) = options.RecipeOption.__metadata__
        assert f"Recipe: {', '.join(shipped_recipes())}, or a .toml file" in option.help

    def test_unmeasured_recipes_state_their_command(self) -> None:
        texts = {name: recipe_text(name) for name in (*shipped_recipes(), *BENCHMARK_RECIPES)}
        commands = {name: re.findall(r"#   python (\S+) ((?:.*\\\n)*.*)\n", text) for name, text in texts.items()}
        assert {name for name, found in commands.items() if found} == {"few-images", *BENCHMARK_RECIPES}
        for name, found in commands.items():
            assert ("has not been run" in texts[name]) == (len(found) == 1)
            for script, arguments in found:
                benchmark = runpy.run_path(str(ROOT / script))
                given = benchmark["read_options"](shlex.split(arguments.replace("\\\n#", "")))
                if name == "few-images":  # chosen by the number of images per class
                    assert given.recipe is None and given.samples_per_class < FEW_SAMPLES
                else:
                    assert (ROOT / given.recipe).samefile(name)


class TestResolution:
    def test_defaults_are_filled_in(self) -> None:
        request = TrainConfig("photos", "resnet18")
        recipe = requested_recipe(request, 500, 10, "classify")
        assert (recipe.name, recipe.loss) == ("labels", LossSpec({"ce": 1.0}))
        assert resolve_batch_size(recipe, 500) == 32
        assert resolved(request, recipe, batch_size=32).learning_rate == 0.1 * 32 / 128

    @pytest.mark.parametrize(
        ("per_class", "name"), [(1, "few-images"), (FEW_SAMPLES - 1, "few-images"), (FEW_SAMPLES, "default")]
    )
    def test_recipe_depends_on_images_per_class(self, per_class: int, name: str) -> None:
        assert (
            requested_recipe(TrainConfig("photos", "resnet18", teacher=("t",)), 10 * per_class, 10, "classify").name
            == name
        )

    @pytest.mark.parametrize(("modality", "flip"), [("image", True), ("audio", False), ("timeseries", False)])
    def test_flip_is_recorded_where_it_applies(self, modality: str, flip: bool) -> None:
        request = TrainConfig("data", "resnet8", teacher=("t",))
        assert requested_recipe(request, 500, 10, "classify", modality=modality).augmentation.flip is flip

    def test_values_of_the_recipe_are_used(self, recipe: Path) -> None:
        recipe.write_text("epochs = 9\nbatch_size = 16\nlearning_rate = 1\ntemperature = 7\n[loss]\nce = 1\n")
        request = TrainConfig("photos", "resnet18", teacher=("t",), recipe=str(recipe))
        given = requested_recipe(request, 500, 10, "classify")
        assert (given.epochs, resolve_batch_size(given, 500)) == (9, 16)
        assert (given.temperature, given.loss) == (7.0, LossSpec({"ce": 1.0}))
        assert resolved(request, given).learning_rate == 1.0

    def test_options_override_the_recipe(self, recipe: Path) -> None:
        recipe.write_text("epochs = 9\nbatch_size = 16\nlearning_rate = 1\ntemperature = 7\n[loss]\nce = 1\n")
        request = TrainConfig(
            "photos",
            "resnet18",
            teacher=("t",),
            recipe=str(recipe),
            epochs=3,
            batch_size=8,
            lr=0.5,
            loss="kd:1",
            temperature=2.0,
            flip=False,
        )
        given = requested_recipe(request, 500, 10, "classify")
        assert (given.epochs, resolve_batch_size(given, 500)) == (3, 8)
        assert (given.temperature, given.loss) == (2.0, LossSpec({"kd": 1.0}))
        assert not given.augmentation.flip
        assert resolved(request, given).learning_rate == 0.5

    @pytest.mark.parametrize(
        ("teacher", "images", "loss"), [((), 30, "labels"), (("t",), 30, "few-images"), (("t",), 3000, "default")]
    )
    def test_trained_weights_are_fine_tuned_with_the_usual_loss(
        self, teacher: tuple[str, ...], images: int, loss: str
    ) -> None:
        request = TrainConfig("photos", "resnet18", teacher=teacher, weights="w.pth")
        recipe = requested_recipe(request, images, 3, "classify")
        assert (recipe.name, recipe.optimizer, recipe.fit_head) == ("fine-tune", "adamw", True)
        assert recipe.loss == load_recipe(loss).loss
        assert resolved(request, recipe).learning_rate == load_recipe("fine-tune").learning_rate

    def test_freezing_fits_the_head_in_one_epoch(self) -> None:
        frozen = TrainConfig("photos", "resnet18", weights="w.pth", freeze=True)
        recipe = requested_recipe(frozen, 500, 3, "classify")
        assert (recipe.fit_head, recipe.epochs, recipe.steps) == (True, 1, None)

    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"weights": None}, "--weights"),
            ({"epochs": 5}, "--epochs"),
            ({"lr": 0.1}, "--lr"),
            ({"batch_size": 4}, "--batch-size"),
            ({"loss": "hint,mapall", "teacher": ("t",)}, "hint,mapall"),
        ],
    )
    def test_freezing_rejects_options_without_effect(self, changes: dict[str, Any], named: str) -> None:
        with pytest.raises(UsageError, match=f"--freeze .*{named}"):
            request = TrainConfig(
                **{"data": "photos", "model": "resnet18", "weights": "w.pth", "freeze": True} | changes
            )
            requested_recipe(request, 500, 10, "classify")

    def test_trained_weights_use_a_tenth_of_the_rate_of_sgd(self) -> None:
        random, trained = (
            TrainConfig("photos", "resnet18", weights=weights, recipe="labels") for weights in (None, "w.pth")
        )
        rates = [
            resolved(request, requested_recipe(request, 500, 3, "classify")).learning_rate
            for request in (random, trained)
        ]
        assert rates[1] == pytest.approx(rates[0] / 10)

    def test_batch_size_is_at_most_the_dataset(self) -> None:
        recipe = requested_recipe(TrainConfig("photos", "resnet18", batch_size=64), 10, 3, "classify")
        assert resolve_batch_size(recipe, 10) == 10

    def test_empty_loss_is_rejected(self) -> None:
        with pytest.raises(UsageError, match="Unknown loss term"):
            requested_recipe(TrainConfig("photos", "resnet18", loss=""), 10, 3, "classify")

    def test_resolved_settings_combine_request_recipe_and_measurements(self, recipe: Path) -> None:
        recipe.write_text(
            "weight_decay = 0\nwarmup_fraction = 0.2\n[loss]\nkd = 0.9\nat = {}\nmapall = { classes = 3 }\n"
            '[layers]\na = "b"\n[augmentation]\nmixup = 0.2\n'
        )
        request = TrainConfig("p", "m", teacher=("t",), recipe=str(recipe), cache_teacher=2, seed=7, lr=0.5)
        weights = {"kd": 0.9, "at": 810.0, "mapall": 20.0}
        given = requested_recipe(request, 500, 10, "classify")
        assert resolve_config(request, given, batch_size=8, weights=weights, epochs=3) == ResolvedConfig(
            epochs=3,
            batch_size=8,
            learning_rate=0.5,
            loss=weights,
            settings={"mapall": {"classes": 3}},
            measured=("at",),
            layers={"a": "b"},
            temperature=4.0,
            optimizer="sgd",
            weight_decay=0.0,
            warmup_fraction=0.2,
            layer_decay=1.0,
            fit_head=False,
            augmentation=Augmentation(mixup=0.2),
            cached_views=2,
            seed=7,
        )


def resolved(request: TrainConfig, recipe: Recipe, batch_size: int = 8) -> ResolvedConfig:
    return resolve_config(request, recipe, batch_size=batch_size, weights={"ce": 1.0}, epochs=3)


def test_request_and_resolved_settings_roundtrip_through_json() -> None:
    config = tiny_config(
        loss={"kd": 1.0},
        settings={"mapall": {"classes": 3}},
        measured=("kd",),
        layers={"a": "b"},
        augmentation=Augmentation(mixup=0.2),
        seed=7,
    )
    assert ResolvedConfig.from_record(json.loads(json.dumps(asdict(config)))) == config
    request = TrainConfig("photos", "resnet18", teacher=("a", "b"), teacher_weights=("w",), cache_teacher=4)
    assert TrainConfig.from_record(json.loads(json.dumps(request.given))) == request
