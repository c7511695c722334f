"""Processes that share a GPU and end before a deadline. `workflow/drain.py` calls it.

The standard library only: it lies beside the bundles, where there is no other code yet.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from study.plan.grid import Cell

MEMORY, LARGE = 10, {"destseg": 80, "pfadseg": 80}
"""GB of a GPU that a run is given: on a card of 80, eight STPM-like ones or one with a segmentation net.

It takes some 8 of its 80; but one keeps an H200 busy, and of two at once neither may end in time.
"""
TRIES = 2
"""A run that failed so often is left alone."""
ENDED = 128 + signal.SIGTERM
"""Exit status of a run that SIGTERM ended with a checkpoint."""


class Scheduler:
    """Makes cells, each in its own process: several at once, none that cannot end before the deadline."""

    def __init__(
        self,
        command: Callable[[Cell], list[str]],
        work: Path,
        deadline: float,
        *,
        memory: float = 80,
        expect: float = 0,
        grace: float = 60,
        inherited: Sequence[int] = (),
        say: Callable[[str], None] = print,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        """`command` makes a cell; its output goes to `work/logs`, its attempts are counted in `work`.

        `deadline`: on the monotonic clock. `memory`: GB to share. `expect`: seconds of a run while none of
        its method has ended. `grace`: seconds that a stopped run has. `inherited`: files that stay open in
        runs. `ended` is called after each run.
        """
        self.command, self.work, self.deadline = command, work, deadline
        self.memory, self.expect, self.grace = memory, expect, grace
        self.inherited, self.say, self.ended = inherited, say, ended
        self.running: dict[Cell, tuple[subprocess.Popen[bytes], float]] = {}
        self.failed, self.stopping = 0, False
        self.typical: dict[str, float] = {}
        """Seconds of the longest run of each method that finished in this call."""
        self.file = work / "attempts.json"
        kept = json.loads(self.file.read_bytes()) if self.file.exists() else {}
        self.failures: dict[str, int] = kept.get("failures", {})
        self.seconds: dict[str, float] = kept.get("seconds", {})

    def run(self, cells: Iterable[Cell]) -> None:
        """Make the cells in their order, until all are made or the deadline has come."""
        waiting = [cell for cell in cells if not self._given_up(cell)]
        try:
            while (now := time.monotonic()) < self.deadline:
                self._collect()
                ready = [cell for cell in waiting if self.ends_in_time(cell, now)]
                # no smaller run overtakes: a larger one would wait for ever
                if ready and self.fits(ready[0]):
                    waiting.remove(ready[0])
                    self._start(ready[0])
                elif ready or self.running:
                    time.sleep(0.2)
                else:
                    break
        finally:
            self._stop()
        if waiting:
            self.say(f"{len(waiting)} runs are left: they would not end before the deadline")

    def ends_in_time(self, cell: Cell, now: float) -> bool:
        """Whether it is thought to end, by the longest run of its method in this call or by `expect`."""
        needed = self.typical.get(cell.method, self.expect) - self.seconds.get(str(cell.path), 0)
        return now + max(needed, 0) < self.deadline

    def fits(self, cell: Cell) -> bool:
        """Whether there is memory for it beside what runs; alone, every run fits."""
        taken = sum(LARGE.get(other.method, MEMORY) for other in self.running)
        return not taken or taken + LARGE.get(cell.method, MEMORY) <= self.memory

    def _given_up(self, cell: Cell) -> bool:
        if given_up := self.failures.get(str(cell.path), 0) >= TRIES:
            self.say(f"{cell.path} has failed {TRIES} times: see its log, then delete {self.file}")
        return given_up

    def _start(self, cell: Cell) -> None:
        self.say(f"start {cell.path}")
        log = (self.work / "logs" / cell.path).with_suffix(".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:  # a session of its own: Ctrl-C reaches this process only
            process = subprocess.Popen(
                self.command(cell), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, pass_fds=self.inherited,
            )  # fmt: skip
        self.running[cell] = process, time.monotonic()

    def _collect(self) -> None:
        """Look which runs have ended, and keep what they left."""
        for cell, (process, begun) in list(self.running.items()):
            if (status := process.poll()) is None:
                continue
            del self.running[cell]
            name, took = str(cell.path), time.monotonic() - begun
            stopped = status in (ENDED, -signal.SIGTERM) or (self.stopping and status == -signal.SIGKILL)
            if status == 0 or stopped:
                self.seconds[name] = self.seconds.get(name, 0) + took
            else:
                self.failures[name] = self.failures.get(name, 0) + 1
                self.failed += 1
            if status == 0:
                self.typical[cell.method] = max(self.typical.get(cell.method, 0), self.seconds[name])
            partial = self.file.with_suffix(".partial")
            partial.write_bytes(
                json.dumps({"failures": self.failures, "seconds": self.seconds}, indent=1).encode()
            )
            partial.replace(self.file)
            outcome = "finished" if status == 0 else "stopped" if stopped else f"FAILED with {status}"
            self.say(f"{outcome} {name} after {took:.0f} s")
            self.ended()

    def _stop(self) -> None:
        """End what still runs: with a checkpoint, or after the grace period without a new one."""
        self.stopping = True
        for process, _ in self.running.values():
            process.terminate()
        last = time.monotonic() + self.grace
        while self.running and time.monotonic() < last:
            time.sleep(0.1)
            self._collect()
        for process, _ in self.running.values():
            process.kill()
            process.wait()
        self._collect()
