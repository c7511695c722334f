"""Training a detector in one call: the front door to `stlib.run.experiment.train`."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from stlib import paths
from stlib.data.mvtec import Category
from stlib.methods import get_method
from stlib.methods.training import Progress
from stlib.protocol import Precision, Profile
from stlib.records.store import write_record
from stlib.run.experiment import train
from stlib.run.fitted import FittedDetector, RunFailed
from stlib.run.spec import RunSpec


def fit(
    method: str,
    category: Category | Path | str,
    *,
    profile: Profile = "paper",
    variant: str = "",
    seed: int = 0,
    teacher: str | None = None,
    textures: str | Path | None = None,
    device: str = "cpu",
    precision: Precision = "fp32",
    runs: Path | str | None = None,
    records: Path | str | None = None,
    progress: bool | None = None,
) -> FittedDetector:
    """Train `method` on the normal images of `category`.

    It is the training that `stlib run` and the notebooks make: with as many of PyTorch's threads the same
    arguments give the same weights. Those two train the demo with one.

    The teacher's features of all training images lie in the memory of `device`, per image of 256 pixels about
    1.8 MB for STPM, ET-STPM, RD4AD, AAND and SPADE, 5 MB for PatchCore and 16 MB for PaDiM. Of these SPADE's
    detector keeps 1.8 MB, PatchCore's 0.2 MB.

    ET-STPM first fine-tunes its teacher on every category under the dataset's root, not on this one alone. It
    keeps that teacher under `runs`, and every later fit on the same data takes it from there.

    Args:
        method: A name such as 'stpm' or 'patchcore'; a wrong one lists them all.
        category: What `load_category` returned, at the size that profile and variant take: 256 pixels for
            'paper' and 'short', other sizes for 'demo'. Or the category's folder, then read at that size.
        profile: The schedule: 'paper', 'short', or the small one of the 'demo'.
        variant: A named deviation from the paper's recipe, such as 'RCM+PCAR', 'e=5' or 'image_size=512'.
        seed: Seed of the weights, the order of the images, the synthetic anomalies and ET-STPM's fine-tuning.
        teacher: 'torchvision' (ImageNet weights, downloaded once), 'demo', 'random', or the path of a weight
            file. By default 'demo' for the demo and 'torchvision' otherwise.
        textures: Folder of the Describable Textures Dataset, for DeSTSeg, PFADSeg and AAND. By default drawn
            for the demo, and `data/dtd` otherwise.
        device: 'cpu', 'cuda' or 'cuda:N'.
        precision: Arithmetic of the training: 'fp32', 'bf16', or on a GPU 'tf32'.
        runs: Folder of checkpoints and fine-tuned teachers. With it a killed fit continues where it
            stopped. Without it nothing is kept, and ET-STPM cannot train.
        records: Folder in which a training that diverges leaves the record of its failure.
        progress: Whether to show a progress bar. By default there is one in a terminal.

    Returns:
        A detector with its training's `history`.

    Raises:
        ValueError: A value that cannot work; the message names it and the remedy.
        OSError: A file that is not there, or no room for checkpoints.
        RunFailed: The training diverged.

    >>> import stlib
    >>> brick = stlib.load_category(stlib.make_demo(), "brick", image_size=64)
    >>> stlib.fit("stpm", brick, profile="demo")
    Traceback (most recent call last):
    ValueError: brick was loaded at 64 pixels, and profile 'demo' of stpm takes 96: ...
    """
    here = paths.places(profile)
    loaded = category if isinstance(category, Category) else None
    folder = category.layout.folder if isinstance(category, Category) else Path(category).absolute()
    spec = RunSpec(
        method,
        folder.name,
        seed=seed,
        profile=profile,
        variant=variant,
        data=folder.parent,
        teacher=teacher or here.teacher,
        textures=textures or here.textures,
        device=device,
        precision=precision,
    )
    if runs is None and get_method(method).tuning:
        raise ValueError(
            f"{get_method(method).title} fine-tunes its teacher first, on all categories under {spec.data}, "
            "and keeps it for later fits: name a folder for it, runs='results/runs'"
        )
    with tempfile.TemporaryDirectory() as scratch, progress_bar(spec, show=progress) as report:
        try:
            return train(
                spec,
                loaded,
                progress=report,
                runs=Path(runs or scratch),
                records=Path(records) if records else None,
            )
        except RunFailed as failure:
            if records is not None:
                write_record(failure.record, Path(records))
            raise


@contextmanager
def progress_bar(spec: RunSpec, *, show: bool | None = None) -> Iterator[Progress]:
    """A bar on standard error that counts a training's epochs or steps; by default only in a terminal."""
    name = f"{spec.method} {spec.variant}".strip()
    entry = get_method(spec.method)
    counted = "epoch" if "epochs" in type(entry.recipe(spec.profile)).model_fields else "step"
    unit = "image" if entry.training_free else counted
    with tqdm(
        desc=f"{name} {spec.category} s{spec.seed}", unit=unit, disable=None if show is None else not show
    ) as bar:

        def report(done: int, total: int, state: str) -> None:
            bar.total, bar.n = total, done
            bar.set_postfix_str(state)

        yield report
