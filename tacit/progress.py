"""Progress bars for what the loop and the product do; one live display for all threads."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed

from tacit.cycles import CycleRow
from tacit.loop import LoopObserver
from trainer.update import StepMetrics


class Bars:
    """Named bars that appear when first advanced. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("  {task.description:<44}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            Elapsed(),
            console=console,
            transient=False,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, name: str, done: int, total: int, *, note: str = "") -> None:
        """Show ``done`` of ``total`` on the bar ``name``; ``note`` stands behind the name."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total)
        description = f"{name} {note}".rstrip()
        task = self._tasks[name]
        self._progress.update(task, completed=done, total=total, description=description)


class LoopBars(LoopObserver):
    """Shows training steps and evaluation as bars, and remembers the states it saw."""

    def __init__(self, bars: Bars, *, label: str = "") -> None:
        self._bars = bars
        self._label = label

    def on_state(self, cycle: CycleRow) -> None:
        """States are shown by what happens in them."""

    def on_step(self, step: StepMetrics) -> None:
        """The training bar, with the loss."""
        loss = next((v for k, v in step.metrics.items() if str(k).endswith("train/loss")), None)
        note = "" if loss is None else f"(loss {loss:.3f})"
        self._bars.advance(f"training{self._label}", step.step, step.num_steps, note=note)

    def on_evaluation(self, suite: str, done: int, total: int) -> None:
        """One bar for all suites and probes, with the name of the present one."""
        self._bars.advance(f"evaluating{self._label}", done, total, note=f"({suite})")
