"""Prints a table of what happens when a command is stopped: ``PYTHONPATH=tests python -m stopped.table``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from forked import Forks

from stopped.phases import PHASES
from stopped.scene import SIGNALS, Commands, Scene


def main() -> None:
    """Stop every command in every phase by every signal, and print the table in Markdown."""
    print("Each cell is the exit status, and what was wrong after it (nothing lost, half written or left behind, one")
    print(
        "sentence, no traceback, no process left). Then the same command to its end; and one beside another that waits"
    )
    print("in the phase: it goes on, or waits for the other's lock, and both end right.\n")
    print(f"| command | phase | {' | '.join(number.name for number in SIGNALS)} | the next run | a second process |")
    print(f"|{' --- |' * (len(SIGNALS) + 4)}")
    with tempfile.TemporaryDirectory() as name:
        forks = Forks()
        whole = Scene(Commands(forks), Path(name) / "whole")
        whole.prepare()
        for count, phase in enumerate(PHASES):
            scene = whole.copy(Path(name) / str(count))
            stops = [scene.stop(phase, number, group=number.value % 2 == 0) for number in SIGNALS]
            cells = ["; ".join([str(status), *wrong]) for status, wrong in stops]
            cells.append("; ".join(scene.next_run(phase)) or "right")
            waits = "waits, then right" if phase.locked else "right"
            cells.append("; ".join(scene.beside(phase)) or waits)
            print(f"| {phase.command[0]} | {phase.name} | {' | '.join(cells)} |", flush=True)
        forks.close()


if __name__ == "__main__":
    main()
