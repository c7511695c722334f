"""What all trainings share. The switches of a precision belong to the process: no GPU is needed to read them.
Checkpoints are whole or absent, for one run only, and never code.
"""

import pickle
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from stlib.data.mvtec import Category
from stlib.data.synthesis import AnomalySynthesis
from stlib.methods import METHODS, aand, destseg, rd4ad, stpm, training
from stlib.methods.training import (
    LONGEST,
    Checkpoint,
    Execution,
    Resumable,
    descend,
    end_with_checkpoint,
    require_compiler,
)
from stlib.nn.backbone import ResNet18Pyramid
from stlib.protocol import Precision

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    Execution(CPU)


@pytest.mark.parametrize(
    ("device", "precision", "rounded"),
    [
        (CPU, "fp32", False),
        (CPU, "bf16", False),
        (GPU, "fp32", False),
        (GPU, "tf32", True),
        (GPU, "bf16", False),
    ],
)
def test_float32_is_rounded_to_tf32_if_and_only_if_asked_to(
    device: torch.device, precision: Precision, rounded: bool
):
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = not rounded
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, True
    Execution(device, precision)
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (rounded, rounded)
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (True, False)


@pytest.mark.parametrize(
    ("device", "precision"), [(CPU, "fp32"), (CPU, "bf16"), (GPU, "fp32"), (GPU, "tf32")]
)
def test_autocast_is_for_bf16_only(device: torch.device, precision: Precision):
    with Execution(device, precision).autocast():
        assert torch.is_autocast_enabled(device.type) == (precision == "bf16")


def test_tf32_on_a_cpu_is_refused_instead_of_computing_something_else():
    with pytest.raises(
        ValueError, match="'tf32' is for a GPU, and the device is 'cpu': choose device cuda or"
    ):
        Execution(CPU, "tf32")
    with pytest.raises(ValueError, match="unknown precision 'fp16': choose fp32, tf32, bf16"):
        Execution(CPU, "fp16")


STATE = {"weights": {"a": torch.arange(5000.0)}, "losses": [0.5, 0.25], "best_epoch": 2}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    """A saved checkpoint of run 'one'."""
    saved = Checkpoint(tmp_path / "runs" / "plate-s0.ckpt", "one")
    saved.save(STATE)
    return saved


def test_what_is_saved_comes_back(checkpoint: Checkpoint):
    state = checkpoint.load()
    assert state is not None
    assert torch.equal(state["weights"]["a"], STATE["weights"]["a"])
    assert (state["losses"], state["best_epoch"]) == ([0.5, 0.25], 2)
    assert list(checkpoint.path.parent.iterdir()) == [checkpoint.path]


def test_nothing_saved_is_none_and_removing_it_is_no_error(tmp_path: Path):
    absent = Checkpoint(tmp_path / "a.ckpt", "one")
    assert absent.load() is None
    absent.remove()


def test_another_runs_checkpoint_is_set_aside_and_kept(checkpoint: Checkpoint):
    content = checkpoint.path.read_bytes()
    with pytest.warns(UserWarning, match=r"of other data, settings or code; moved to .*plate-s0\..*\.other"):
        assert Checkpoint(checkpoint.path, "two").load() is None
    assert not checkpoint.path.exists()
    (aside,) = checkpoint.path.parent.iterdir()
    assert aside.read_bytes() == content


def test_a_run_that_comes_back_finds_what_another_had_set_aside(checkpoint: Checkpoint):
    other = Checkpoint(checkpoint.path, "two")
    with pytest.warns(UserWarning, match="moved to"):
        assert other.load() is None
    other.save({"step": 2})
    with pytest.warns(UserWarning, match="moved to"):  # the other's is kept as well, beside it
        state = Checkpoint(checkpoint.path, checkpoint.identity).load()
    assert state is not None
    assert state["losses"] == STATE["losses"]
    with pytest.warns(UserWarning, match="moved to"):
        assert Checkpoint(checkpoint.path, "two").load() == {"step": 2}


@pytest.mark.parametrize("share", [0, 0.01, 0.2, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_set_aside_with_a_warning(checkpoint: Checkpoint, share: float):
    content = checkpoint.path.read_bytes()
    checkpoint.path.write_bytes(content[: int(share * len(content))])
    with pytest.warns(UserWarning, match=r"plate-s0\.ckpt is damaged .*plate-s0\.corrupt"):
        assert checkpoint.load() is None
    assert not checkpoint.path.exists()
    assert checkpoint.path.with_suffix(".corrupt").is_file()
    assert checkpoint.load() is None  # and no second warning


def test_one_flipped_bit_in_a_tensor_is_noticed(checkpoint: Checkpoint):
    content = bytearray(checkpoint.path.read_bytes())
    place = content.find(torch.arange(1000.0, 1010.0).numpy().tobytes())
    assert place > 0
    content[place] ^= 1
    checkpoint.path.write_bytes(content)
    with pytest.warns(UserWarning, match="checksum"):
        assert checkpoint.load() is None


class _Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("save", [torch.save, lambda bomb, path: path.write_bytes(pickle.dumps(bomb))])
def test_code_in_a_checkpoint_is_not_run(checkpoint: Checkpoint, tmp_path: Path, save):
    save({"identity": "one", "spent": 0.0, "state": _Bomb(tmp_path / "mark")}, checkpoint.path)
    with pytest.warns(UserWarning, match="damaged"):
        assert checkpoint.load() is None
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("content", [[1, 2], {"identity": "one"}, {"identity": "one", "state": {}}, 3])
def test_a_file_of_another_kind_is_set_aside(checkpoint: Checkpoint, content: object):
    torch.save(content, checkpoint.path)
    with pytest.warns(UserWarning, match="damaged"):
        assert checkpoint.load() is None


def test_a_save_that_breaks_off_keeps_the_older_checkpoint(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save({"losses": []})
    state = checkpoint.load()
    assert state is not None
    assert state["losses"] == [0.5, 0.25]


class Clock:
    """Time that passes when told; every checkpoint begins at the present."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.path = 0.0, folder / "a.ckpt"
        monkeypatch.setattr("time.monotonic", lambda: self.now)

    def begin(self, identity: str = "one") -> Checkpoint:
        made = Checkpoint(self.path, identity, seconds=60)
        made._begun = made._saved = self.now
        return made


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(tmp_path, monkeypatch)


def test_an_offer_is_taken_when_the_last_checkpoint_is_old_enough(clock: Clock):
    saved, collected, stored = clock.begin(), [], []

    def state() -> dict[str, float]:
        collected.append(clock.now)
        return {"now": clock.now}

    for clock.now in (40.0, 65.0, 100.0, 130.0):
        saved.offer(state)
        found = clock.begin().load()
        stored.append(found and found["now"])
    assert stored == [None, 65, 65, 130]
    assert collected == [65, 130]  # a state that is not saved is not even collected


def test_a_checkpoint_that_takes_long_is_made_less_often(clock: Clock):
    saved, made = clock.begin(), []

    def offered(now: float, cost: float) -> bool:
        def state() -> dict[str, float]:
            made.append(now)
            clock.now += cost
            return {}

        clock.now = now
        saved.offer(state)
        return made[-1:] == [now]

    assert offered(60, cost=3)  # then a fiftieth of the time: 150 seconds from its end at 63
    assert not offered(212, cost=1)
    assert offered(213, cost=1)  # 50 seconds would do: `seconds` is the least
    assert not offered(273, cost=0)
    assert offered(274, cost=100)  # ends at 374; a fiftieth would be 5000 seconds
    assert not offered(973, cost=0)
    assert offered(374 + LONGEST, cost=0)


def test_without_a_least_time_every_offer_is_taken(tmp_path: Path):
    saved, made = Checkpoint(tmp_path / "a.ckpt", "one", seconds=0), []
    for number in range(3):
        saved.offer(lambda number=number: made.append(number) or {})
    assert made == [0, 1, 2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_with_a_checkpoint_however_young_the_last_one_is(
    number: signal.Signals,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(Checkpoint, "ending", 0)  # and so afterwards
    earlier = signal.getsignal(number)
    saved = Checkpoint(tmp_path / "a.ckpt", "one", seconds=1000)
    with end_with_checkpoint(number):
        saved.offer(lambda: {"step": 1})
        assert saved.load() is None
        signal.raise_signal(number)  # and nothing happens within the step
        assert signal.getsignal(number) is earlier  # a second one would end it at once
        with pytest.raises(SystemExit) as end:
            saved.offer(lambda: {"step": 2})
    with end_with_checkpoint(number):
        assert signal.getsignal(number) is not earlier
    assert signal.getsignal(number) is earlier  # of whoever called
    assert end.value.code == 128 + number
    assert "the same command continues" in capsys.readouterr().err
    assert saved.load() == {"step": 2}


def test_the_time_of_earlier_attempts_adds_up(clock: Clock):
    first = clock.begin()
    clock.now = 30.0
    first.save(STATE)
    assert first.spent_before == 0
    clock.now = 1000.0
    second = clock.begin()
    assert second.load() is not None
    assert second.spent_before == 30
    clock.now = 1010.0
    second.save(STATE)
    third, stranger = clock.begin(), clock.begin("two")
    third.load()
    with pytest.warns(UserWarning, match="other data"):
        stranger.load()
    assert (third.spent_before, stranger.spent_before) == (40, 0)


def test_a_checkpoint_of_another_layout_is_set_aside_not_misread(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(training, "LAYOUT", training.LAYOUT + 1)
    with pytest.warns(UserWarning, match="settings or code"):
        assert checkpoint.load() is None


class Small(Resumable):
    """One convolution in channels-last memory, and a curve."""

    kept = ("network", "optimiser", "curve")

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.network = execution.place(nn.Conv2d(3, 4, 3))
        self.optimiser = torch.optim.SGD(self.network.parameters(), lr=0.1, momentum=0.9)
        self.curve: list[float] = []
        self.resume()

    def step(self) -> None:
        loss = self.network(torch.ones(1, 3, 8, 8)).square().sum()
        descend(self.optimiser, loss)
        self.curve.append(loss.item())
        self.offer()


def test_a_resumed_training_has_weights_momentum_and_curves_in_the_layout_that_they_had(tmp_path: Path):
    execution = Execution(CPU, checkpoint=Checkpoint(tmp_path / "a.ckpt", "one", seconds=0))
    first = Small(execution)
    first.step()
    resumed = Small(execution)
    assert resumed.curve == first.curve
    weight, momentum = resumed.network.weight, resumed.optimiser.state[resumed.network.weight]
    assert torch.equal(weight, first.network.weight)
    assert torch.equal(
        momentum["momentum_buffer"], first.optimiser.state[first.network.weight]["momentum_buffer"]
    )
    assert momentum["momentum_buffer"].stride() == weight.stride() != weight.contiguous().stride()
    first.step()
    resumed.step()
    assert torch.equal(weight, first.network.weight)


def test_a_compiler_is_asked_for_before_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(
        ValueError, match=r"finds no g\+\+ or clang\+\+: install one .* or run without --compile"
    ):
        require_compiler()
    (tmp_path / "clang++").touch(mode=0o755)
    require_compiler()
    monkeypatch.setenv("CXX", "icpx")  # torch.compile would call this one and no other
    with pytest.raises(ValueError, match="finds no icpx"):
        require_compiler()


SHORT = {
    "image_size": 64, "epochs": 2, "teacher_epochs": 2, "batch_size": 4,
    "student_steps": 2, "segmentation_steps": 2,
}  # fmt: skip


@pytest.mark.parametrize("method", [name for name, entry in METHODS.items() if not entry.training_free])
def test_the_weights_and_every_draw_of_a_training_come_from_its_seed(
    method: str, plate: Category, random_teacher: ResNet18Pyramid, monkeypatch: pytest.MonkeyPatch
):
    asked = []

    def noted(seed: int, *place: int) -> torch.Generator:
        asked.append((seed, len(place)))
        return original(seed, *place) if place else weights(seed)

    original, weights = training.generator, torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", noted)
    for module in (stpm, destseg, rd4ad, aand):
        monkeypatch.setattr(module, "generator", noted)
    entry = METHODS[method]
    recipe = entry.recipe("demo")
    recipe = recipe.model_copy(update={k: v for k, v in SHORT.items() if k in type(recipe).model_fields})
    textures = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    parts = {"synthesis": AnomalySynthesis(textures, "")} if entry.needs_textures else {}
    entry.build(recipe, random_teacher, Execution(CPU), **parts).fit(plate.train[:10], seed=7)
    assert len(asked) > 2
    assert set(asked) == {(7, 0), (7, 1)}
