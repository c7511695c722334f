"""Break the workflow in the ways that book/reproduce.md lists, on runs of seconds, and see what survives.

python workflow/try_faults.py [NAME ...]     # the functions of FAULTS; all without a name

Every fault ends with a workflow that finishes, and with measurements that equal, byte for byte, those of a
workflow that nothing disturbed. A full disk and a read-only folder are small mounts: they need root, and are
left out without it.
"""

import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save_file

from stlib.demo.dataset import MARKER, make_demo
from stlib.files import file_lock
from stlib.methods.checkpoint import Checkpoint
from stlib.nn.backbone import load_state
from stlib.paths import BUILD, ROOT
from stlib.records.store import load_records

CATEGORIES = ["brick", "washer"]
PARTS = {"train/good": 6, "test/good": 3, "test/scratch": 3, "ground_truth/scratch": 3}
"""Files of each category that the small dataset takes from the demo's."""


class Study:
    """A folder of its own with the small dataset, its records and its runs."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.data, self.records, self.runs = (folder / name for name in ("data", "records", "runs"))
        self.teacher, self.categories = "demo", ["brick"]
        shutil.copytree(data, self.data)

    def places(self) -> list[str]:
        """Settings of the workflow and of a run."""
        return [f"{name}={getattr(self, name)}" for name in ("data", "records", "runs", "teacher")]

    def command(self, *options: str, methods: str = "stpm", jobs: int = 1) -> list[str]:
        """The workflow as `make reproduce` starts it."""
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow" / "Snakefile")]
        command += ["--workflow-profile", str(ROOT / "workflow" / "profiles" / "local"), "--cores", str(jobs)]
        which = ["grid=demo", f"methods={methods}", f"categories={','.join(self.categories)}"]
        return [*command, *options, "--config", *which, *self.places(), "--", "runs"]

    def makes(self, *options: str, methods: str = "stpm", jobs: int = 1) -> str:
        """What a workflow prints that finishes."""
        command = self.command(*options, methods=methods, jobs=jobs)
        done = subprocess.run(command, cwd=self.runs.parent, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def fails(self, reason: str, *, method: str = "stpm", images: Sequence[str] = ("brick-s0",)) -> None:
        """The workflow ends with an error, and the notebook of every image says why."""
        command = self.command(methods=method)
        done = subprocess.run(command, cwd=self.runs.parent, capture_output=True, check=False)
        assert done.returncode == 1, "nobody noticed"
        for image in images:
            told = self.place(".failed.ipynb", method, image).read_text(encoding="utf-8")
            assert reason in told, "the failed notebook does not say why"

    def metrics(self) -> dict[str, str]:
        """By category: everything that was measured."""
        measured = {"metrics", "sensitivity", "image_scores", "bootstrap", "history"}
        return {r.category: r.model_dump_json(include=measured) for r in load_records(self.records)}

    def place(self, suffix: str, method: str = "stpm", image: str = "brick-s0") -> Path:
        """A file that a run leaves behind."""
        return self.runs / "demo" / method / f"{image}{suffix}"

    @contextmanager
    def started(self, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
        """A process that has begun to train brick; afterwards, nobody trains it any more."""
        lock = self.place(".lock")
        quiet = subprocess.DEVNULL
        with subprocess.Popen(command, cwd=self.runs.parent, stdout=quiet, stderr=quiet) as process:
            try:
                deadline = time.monotonic() + 600
                while not lock.exists():
                    assert process.poll() is None, "it ended before it trained"
                    assert time.monotonic() < deadline, "it did not begin to train"
                    time.sleep(0.05)
                yield process
            except BaseException:
                process.kill()  # Popen would wait for its end
                raise
        with file_lock(lock, wait=True):  # an orphaned kernel ends a few seconds after its parent
            pass


def finish(study: Study, reference: dict[str, str], jobs: int = 1) -> None:
    """The next call of the workflow makes what is missing, and the numbers are those of the reference."""
    study.makes(jobs=jobs)
    expected = {category: reference[category] for category in study.categories}
    assert study.metrics() == expected, "the numbers differ from those of an undisturbed workflow"


def two_jobs(study: Study, reference: dict[str, str]) -> None:
    """-j2 instead of -j1."""
    study.categories = CATEGORIES
    finish(study, reference, jobs=2)


def sigkill_papermill(study: Study, reference: dict[str, str]) -> None:
    """SIGKILL of papermill while its kernel trains."""
    cell = ["method=stpm", "variant=", "category=brick", "seed=0", "profile=demo"]
    how = ["textures=", "device=cpu", "precision=fp32", *study.places()]
    script = ROOT / "workflow" / "run_cell.py"
    with study.started([sys.executable, str(script), *cell, *how]) as process:
        process.kill()
    assert not study.metrics(), "a killed run left a record"
    assert not study.place(".ipynb").exists(), "a killed run left a notebook"
    finish(study, reference)


def killed_workflow(study: Study, reference: dict[str, str]) -> None:
    """SIGKILL of Snakemake and everything it started; then of Snakemake alone."""
    with study.started(["setsid", *study.command()]) as process:
        os.killpg(process.pid, signal.SIGKILL)
    # only for `started`, which waits for a new one; a left lock file stops nobody
    study.place(".lock").unlink()
    with study.started(study.command()) as process:
        process.kill()
    finish(study, reference)


def diverging_runs(study: Study, reference: dict[str, str]) -> None:
    """A teacher with NaN among its weights: every run diverges, is recorded as failed, and stops no other."""
    study.categories = CATEGORIES
    state = load_state("demo")
    state["layer3.0.conv1.weight"][0] = math.nan
    study.teacher = str(study.data / "nan.safetensors")
    save_file(state, study.teacher)
    study.fails("RunFailed", images=("brick-s0", "washer-s0"))
    statuses = [record.status for record in load_records(study.records)]
    assert statuses == ["failed", "failed"], "a failure is not recorded"
    study.teacher = "demo"
    finish(study, reference)


def corrupt_image(study: Study, reference: dict[str, str]) -> None:
    """An image cut in half: its category fails with the file's name, the other is finished."""
    study.categories = CATEGORIES
    image = study.data / "brick" / "train" / "good" / "000.png"
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    study.fails("000.png is not a readable image")
    assert [*study.metrics()] == ["washer"], "the other category is not finished"
    image.write_bytes(whole)
    finish(study, reference)
    assert not study.place(".failed.ipynb").exists(), "the failed notebook stayed"


def truncated_checkpoint(study: Study, reference: dict[str, str]) -> None:
    """Half a checkpoint where a run looks for its own."""
    checkpoint = Checkpoint(study.place(".ckpt"), "brick")
    checkpoint.save({"epoch": 3})
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:200])
    finish(study, reference)
    assert study.place(".corrupt").exists(), "the damaged checkpoint was not set aside"


def wrong_teacher_hash(study: Study, _: dict[str, str]) -> None:
    """A fine-tuned teacher that was changed after its record was written: refused, then made again."""
    study.categories = ["washer"]  # the demo's grid has ET-STPM on this one
    study.makes(methods="et_stpm")
    before = study.metrics()
    teachers = sorted((study.runs / "teachers" / "demo").glob("*/*/epoch-*.safetensors"))
    content = bytearray(teachers[-1].read_bytes())
    content[-1] ^= 1
    teachers[-1].write_bytes(content)
    (study.records / "demo" / "et_stpm" / "washer-s0.json").unlink()
    study.fails("holds other weights", method="et_stpm", images=["washer-s0"])
    shutil.rmtree(teachers[-1].parent)
    study.makes(methods="et_stpm")
    assert study.metrics() == before, "the numbers differ"


def clock_jump(study: Study, reference: dict[str, str]) -> None:
    """Files from the past and from the future: what is done is told by content, not by time."""
    finish(study, reference)
    for number, path in enumerate(sorted(study.runs.parent.rglob("*"))):
        os.utime(path, (946684800, 946684800) if number % 2 else (4102444800, 4102444800))
    assert "1 finished; 0 to run" in study.makes("--dry-run"), "times of files decided what is done"
    shutil.rmtree(study.records / "demo" / "stpm")
    finish(study, reference)


def full_disk(study: Study, reference: dict[str, str]) -> None:
    """No room for a record: refused before the training, nothing stays, and with room it is done."""
    with mounted(study.records, "size=64k"):
        (study.records / ".filler").write_bytes(bytes(56 << 10))
        study.fails("not enough space")
        left = [path.name for path in study.records.rglob("*") if path.is_file()]
        assert left == [".filler"], "a part of a record stayed"
    finish(study, reference)


def read_only_results(study: Study, reference: dict[str, str]) -> None:
    """A folder of records that cannot be written: refused before the training."""
    with mounted(study.records, "ro"):
        study.fails("cannot write to")
    assert not study.place(".lock").exists(), "it was trained all the same"
    finish(study, reference)


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A small file system in memory at `folder`."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


FAULTS: dict[str, Callable[[Study, dict[str, str]], None]] = {
    fault.__name__: fault
    for fault in (
        two_jobs,
        sigkill_papermill,
        killed_workflow,
        diverging_runs,
        corrupt_image,
        truncated_checkpoint,
        wrong_teacher_hash,
        clock_jump,
        full_disk,
        read_only_results,
    )
}
ROOT_ONLY = {"full_disk", "read_only_results"}


def small_dataset(folder: Path) -> Path:
    """A few images of two of the demo's categories; the marker makes the workflow take them for the demo."""
    demo = make_demo(BUILD / "demo")
    for category in CATEGORIES:
        for part, count in PARTS.items():
            (folder / category / part).mkdir(parents=True)
            for path in sorted((demo / category / part).iterdir())[:count]:
                shutil.copy(path, folder / category / part)
    shutil.copy(demo / MARKER, folder)
    return folder


def main(names: list[str]) -> None:
    """Each fault in a folder of its own; the exit status counts those that did not survive."""
    failures = 0
    if unknown := set(names) - set(FAULTS):
        sys.exit(f"no such fault: {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    with tempfile.TemporaryDirectory() as name:
        data = small_dataset(Path(name) / "data")
        study = Study(Path(name) / "reference", data)
        study.categories = CATEGORIES
        study.makes()
        reference = study.metrics()
        for fault in names or FAULTS:
            if fault in ROOT_ONLY and os.geteuid() != 0:
                print(f"{fault}: left out, it needs root")
                continue
            begin, outcome = time.monotonic(), "survived"
            try:
                FAULTS[fault](Study(Path(name) / fault, data), reference)
            except Exception as error:  # one fault must not keep the others from being tried
                outcome, failures = f"FAILED, {error}", failures + 1
            print(f"{fault}: {outcome}, {time.monotonic() - begin:.0f} s", flush=True)
    sys.exit(failures)


if __name__ == "__main__":
    main(sys.argv[1:])
