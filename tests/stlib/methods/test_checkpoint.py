"""Checkpoints are whole or absent, and for one run only."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stlib.methods.checkpoint import Checkpoint, end_with_checkpoint

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


def test_a_run_that_comes_back_finds_what_another_had_set_aside(checkpoint: Checkpoint):
    other = Checkpoint(checkpoint.path, "two")
    with pytest.warns(UserWarning, match=r"settings or code .*; moved to .*plate-s0\..*\.other"):
        assert other.load() is None
    other.save({"step": 2})
    with pytest.warns(UserWarning, match="moved to"):  # the other's is kept as well, beside it
        state = Checkpoint(checkpoint.path, checkpoint.identity).load()
    assert state is not None
    assert state["losses"] == STATE["losses"]
    with pytest.warns(UserWarning, match="moved to"):
        assert Checkpoint(checkpoint.path, "two").load() == {"step": 2}


@pytest.mark.parametrize("share", [0, 0.5, 0.999])
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


@pytest.mark.parametrize("content", [3, {"identity": "one"}])
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

    def begin(self) -> Checkpoint:
        made = Checkpoint(self.path, "one", seconds=60)
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_with_a_checkpoint_however_young_the_last_one_is(
    number: signal.Signals,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(Checkpoint, "ending", 0)  # and so afterwards
    died = []
    monkeypatch.setattr("os.kill", lambda _, last: died.append((last, signal.getsignal(last))))
    earlier = signal.getsignal(number)
    saved = Checkpoint(tmp_path / "a.ckpt", "one", seconds=1000)

    def train() -> None:
        with end_with_checkpoint(number):
            saved.offer(lambda: {"step": 1})
            assert saved.load() is None
            signal.raise_signal(number)  # and nothing happens within the step
            assert signal.getsignal(number) is earlier  # a second one would end it at once
            saved.offer(lambda: {"step": 2})

    with pytest.raises(SystemExit) as end:
        train()
    signal.signal(number, earlier)
    with end_with_checkpoint(number):
        assert signal.getsignal(number) is not earlier
    assert signal.getsignal(number) is earlier  # of whoever called
    assert died == [(number, signal.SIG_DFL)]  # so that a shell knows
    assert end.value.code == 128 + number  # where that does not end it
    told = capsys.readouterr().err
    again = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}[number]
    assert f"ends at the next checkpoint, if one comes; {again} once more ends at once" in told
    assert "the same command continues" in told
    assert saved.load() == {"step": 2}


def test_a_shell_sees_that_a_signal_ended_even_a_run_that_went_on_to_its_record(tmp_path: Path):
    code = """
import signal
from pathlib import Path
from stlib.methods.checkpoint import end_with_checkpoint
with end_with_checkpoint(signal.SIGINT):
    signal.raise_signal(signal.SIGINT)
    Path('record').touch()
print("the next run")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGINT, b"")
    assert [path.name for path in tmp_path.iterdir()] == ["record"]


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
    third = clock.begin()
    third.load()
    assert third.spent_before == 40
