"""RD4AD on a handful of small striped images: its parts, its training and its map."""

import torch
import torch.nn.functional as F

from stlib.data.mvtec import Category
from stlib.methods.rd4ad import METHOD, RD4AD, Config, Student
from stlib.methods.training import Execution
from stlib.metrics import PixelRanking, label_regions
from stlib.nn.backbone import CHANNELS, ResNet18Pyramid, prepare
from stlib.nn.maps import smooth


def test_the_recipe_is_the_papers():
    assert METHOD.recipe("paper").model_dump() == {
        "image_size": 256,
        "epochs": 200,
        "batch_size": 16,
        "learning_rate": 0.005,
        "betas": (0.5, 0.999),
    }


def test_the_student_has_the_codes_weights_and_gives_back_the_levels():
    student = Student()
    count = sum(p.numel() for p in student.decoder.parameters())
    assert count == 3_703_168  # de_resnet18 of the code
    # its BN_layer(BasicBlock, 2) without conv4 and bn4, which nothing reads
    assert sum(p.numel() for p in student.parameters()) - count == 12_205_312 - (1024 * 512 + 2 * 512)
    levels = [
        torch.rand(2, channels, 64 // s, 64 // s) for channels, s in zip(CHANNELS, (4, 8, 16), strict=True)
    ]
    assert [x.shape for x in student(levels)] == [x.shape for x in levels]


def test_it_learns_and_its_map_is_the_smoothed_sum_of_cosine_distances(
    plate: Category, random_teacher: ResNet18Pyramid
):
    method = RD4AD(
        Config(image_size=64, epochs=8, batch_size=4), random_teacher, Execution(torch.device("cpu"))
    )
    history = method.fit(plate.train[:10], seed=0)
    assert (history.steps, history.images_seen, history.selected) == (24, 80, {"epoch": 8})
    assert history.curves["train_loss"][-1] < 0.5 * history.curves["train_loss"][0]
    maps = method.maps(plate.test)
    assert PixelRanking(maps.pixel, label_regions(plate.masks)).auroc() > 0.6
    assert torch.equal(maps.image, maps.pixel.amax(dim=(1, 2)))
    with torch.no_grad():
        levels = random_teacher(prepare(plate.test))
        total = torch.zeros(len(plate.test), 1, 64, 64)
        for taught, rebuilt in zip(levels, method.student.eval()(levels), strict=True):
            distance = 1 - F.cosine_similarity(taught, rebuilt)[:, None]
            total += F.interpolate(distance, 64, mode="bilinear", align_corners=True)
    torch.testing.assert_close(maps.pixel, smooth(total[:, 0]), rtol=1e-3, atol=1e-5)
