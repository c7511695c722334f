"""The registry: every recipe that can be named can be built, and nothing else."""

from dataclasses import replace

import pytest
import torch

from stlib import methods
from stlib.methods import METHODS, MethodEntry, et_stpm, get_method, stpm
from stlib.methods.finetuning import Tuning
from stlib.methods.training import Execution, Recipe
from stlib.nn.blocks import ASPP, PCAR, RCM, ResidualBlock
from stlib.nn.denoising import DenoisingStudent, SegmentationNet
from stlib.protocol import PRECISIONS
from stlib.records.store import load_records
from stlib.records.teacher import load_teacher_records
from stlib.run import teacher_cache

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("method", "profile"), [(m, p) for m, line in METHODS.items() for p in line.profiles]
)
def test_every_variant_of_every_method_is_a_recipe_of_its_own_under_every_profile(method: str, profile: str):
    # one seed or the other: 'teacher=0' deviates on other seeds only
    recipes = [get_method(method).recipe(profile, name, 1) for name in ("", *get_method(method).variants)]
    texts = [recipe.model_dump_json() for recipe in recipes]
    assert len(set(texts)) == len(texts)
    for recipe in recipes:
        assert type(recipe).model_validate_json(recipe.model_dump_json()) == recipe


def test_unknown_names_are_refused_with_those_that_exist():
    with pytest.raises(ValueError, match=f"unknown method 'spam': choose one of {', '.join(METHODS)}$"):
        get_method("spam")
    with pytest.raises(ValueError, match="DeSTSeg has no profile 'long': choose one of paper, short, demo"):
        get_method("destseg").recipe("long")
    with pytest.raises(
        ValueError, match="ET-STPM has no variant 'e=4': there are epochs=200, data=B, data=C"
    ):
        get_method("et_stpm").recipe("paper", "e=4")


def test_a_precision_is_a_variant_that_leaves_the_recipe_alone():
    for variant in PRECISIONS:
        assert get_method("stpm").recipe("paper", variant) == get_method("stpm").recipe("paper")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_larger_images_and_changes_nothing_else(method: str):
    entry = get_method(method)
    for variant in ("", next(iter(entry.variants), "")):
        base = entry.recipe("demo", variant)
        larger = entry.recipe("demo", ",".join(filter(None, [variant, "image_size=512"])))
        changed: dict[str, object] = {"image_size": 512}
        if entry.tuning:
            changed["tuning"] = base.tuning.model_copy(update=changed)
        assert larger == base.model_copy(update=changed) != base


@pytest.mark.parametrize(
    "size", ["500", "32", "2048", "", "-512", "\u00b2", "0512", "\u0665\u0661\u0662", "big"]
)
def test_a_size_that_no_network_takes_is_refused_with_those_that_one_does(size: str):
    with pytest.raises(ValueError, match=rf"'image_size={size}': choose a multiple of 32 from 64 to 1024"):
        get_method("patchcore").recipe("paper", f"held-out=20%,image_size={size}")


def test_committed_records_and_teachers_are_of_todays_recipes_and_names():
    records = load_records()
    assert len(records) > 60
    for record in records:
        recipe = get_method(record.method).recipe(record.profile, record.variant, record.seed)
        assert recipe.model_dump(mode="json") == record.config, record.path
    for teacher in load_teacher_records():
        tuning, execution = Tuning.model_validate(teacher.tuning), Execution(CPU, teacher.precision)
        assert teacher_cache._name(tuning, teacher.source, teacher.categories, execution) == teacher.name


def test_a_run_seeds_its_teacher_unless_the_variant_keeps_that_of_seed_0():
    names = ("", "e=5", "data=B", "teacher=0", "data=B,teacher=0")
    recipes = [get_method("et_stpm").recipe("paper", name, 2) for name in names]
    assert [recipe.tuning.seed for recipe in recipes] == [2, 2, 2, 0, 0]


def test_deviations_change_what_they_name_within_the_tuning_too_and_nothing_else():
    base, other = (get_method("et_stpm").recipe("demo", name) for name in ("", "e=5,data=B"))
    leaking = base.tuning.model_copy(update={"data": "B"})
    assert other == base.model_copy(update={"teacher_epochs": 5, "tuning": leaking})
    assert base.tuning.image_size == base.image_size != 256  # not the default's
    assert "e=0,data=B" not in et_stpm.VARIANTS  # without a full epoch there is nothing to leak into


def test_the_paper_recipes():
    paper = get_method("et_stpm").recipe("paper")
    assert (paper.teacher_epochs, paper.loss, paper.tuning.data) == (2, "squared", "A")
    assert (paper.tuning.head_epochs, paper.tuning.head_rate, paper.tuning.full_rate) == (1, 1e-3, 1e-4)
    student = paper.model_dump(exclude={"teacher_epochs", "tuning", "loss"})
    assert student == get_method("stpm").recipe("paper").model_dump()
    plain = get_method("pfadseg").recipe("paper", "none")
    assert (plain.rcm, plain.aff, plain.pcar, plain.zero_init) == (False, False, "none", False)
    assert (plain.student_steps, plain.student_rate) == (3000, 0.5)  # its schedule stays PFADSeg's


def networks(variant: str) -> tuple[DenoisingStudent, SegmentationNet]:
    config = get_method("pfadseg").recipe("paper", variant)
    return DenoisingStudent(config), SegmentationNet(config)


def blocks(network: torch.nn.Module) -> list[ResidualBlock]:
    return [module for module in network.modules() if isinstance(module, ResidualBlock)]


@pytest.mark.parametrize("variant", ["", *METHODS["pfadseg"].variants])
def test_every_variant_of_pfadseg_builds_the_blocks_of_its_recipe(variant: str):
    config = get_method("pfadseg").recipe("paper", variant)
    with torch.device("meta"):
        student, segmentation = networks(variant)
    assert isinstance(segmentation.head[0], RCM if config.rcm else ASPP)
    for block in blocks(student):
        assert (block.fusion is not None) == config.aff
        assert not block.fusion or block.fusion.factor == config.aff_factor
        assert isinstance(block.conv2, PCAR) == (config.pcar != "none")
        if isinstance(block.conv2, PCAR):
            assert block.conv2.form == config.pcar
            assert tuple(branch[0].dilation[0] for branch in block.conv2.branches) == config.dilations


def test_student_only_leaves_plain_blocks_in_the_segmentation_net_and_keeps_rcm():
    with torch.device("meta"):
        student, segmentation = networks("student-only")
        _, everywhere = networks("")
    assert all(block.fusion and isinstance(block.conv2, PCAR) for block in blocks(student))
    assert [type(block.conv2) for block in blocks(segmentation)] == [torch.nn.Conv2d] * 2
    assert [block.fusion for block in blocks(segmentation)] == [None] * 2
    assert all(block.fusion and isinstance(block.conv2, PCAR) for block in blocks(everywhere))
    assert isinstance(segmentation.head[0], RCM)


def test_gamma_and_zero_init_reach_the_networks():
    student, segmentation = networks("gamma=1")
    assert segmentation.head[0].gamma.unique().tolist() == [1.0]
    assert all((block.bn2.weight == 1).all() for block in blocks(student))
    student, segmentation = networks("zero-init")
    assert segmentation.head[0].gamma.max().item() == pytest.approx(1e-6)
    assert all((block.bn2.weight == 0).all() for block in blocks(student.encoder))
    assert all((block.bn2.weight == 1).all() for block in blocks(student.decoder))


def test_no_two_methods_have_one_title():
    assert len({entry.title for entry in METHODS.values()}) == len(METHODS)


def test_a_file_that_ends_in_an_entry_is_a_method(tmp_path, monkeypatch):
    (tmp_path / "made_up_here.py").write_text(
        "from dataclasses import replace\n"
        "from stlib.methods.stpm import METHOD as STPM\n"
        "METHOD = replace(STPM, title='Made up')\n"
    )
    (tmp_path / "helper.py").write_text("METHOD = 'no entry'\n")
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    entries = dict(methods._entries())
    assert entries.keys() == METHODS.keys() | {"made_up_here"}
    assert entries["made_up_here"].title == "Made up"


@pytest.mark.parametrize(
    ("variants", "told"),
    [
        ({"x": {"epoch": 3}}, "(?s)STPM's variant 'x': .*epoch.* not permitted"),
        ({"x": {"tuning": {"epoch": 1}}}, r"(?s)'x': .*tuning\.epoch.* not permitted"),
    ],
)
def test_a_variant_that_no_run_could_be_made_of_is_refused_where_its_method_is_read(variants, told):
    entry = METHODS["stpm" if told.startswith("STPM") else "et_stpm"]
    with pytest.raises(ValueError, match=told):
        replace(entry, variants=variants)


def test_a_recipe_that_no_trained_detector_could_score_by_is_refused_before_a_training():
    class Config(Recipe):
        chunk: int = 4

    with pytest.raises(ValueError, match="Own's recipe for 'demo' has no field batch_size: add it"):
        MethodEntry("Own", {"demo": Config()}, stpm.STPM, stpm.empty_network)
