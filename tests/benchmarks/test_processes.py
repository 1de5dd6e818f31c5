"""benchmarks.processes: all tasks are run, and one that kills its process fails alone."""

import os
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from itertools import pairwise

import psutil
import pytest

from benchmarks.processes import RecycledProcesses


def test_another_process_takes_over_after_so_many_tasks() -> None:
    with RecycledProcesses(1, tasks_each=3) as processes:
        found = [processes.submit(os.getpid) for _ in range(8)]
        numbers = [future.result(timeout=60) for future in found]

    assert [len(set(numbers[start : start + 3])) for start in (0, 3, 6)] == [1, 1, 1]
    assert [one == other for one, other in pairwise(numbers)].count(False) == 2


def test_a_task_that_kills_its_process_fails_and_the_others_do_not() -> None:
    with RecycledProcesses(1, tasks_each=10) as processes:
        before = processes.submit(os.getpid)
        killed = processes.submit(os._exit, 1)
        after = processes.submit(os.getpid)

        with pytest.raises(BrokenProcessPool):
            killed.result(timeout=60)
        assert before.result(timeout=60) != after.result(timeout=60)


def test_what_a_task_raises_comes_back_and_its_process_goes_on() -> None:
    with RecycledProcesses(1, tasks_each=10) as processes:
        before = processes.submit(os.getpid)
        wrong = processes.submit(int, "one")
        after = processes.submit(os.getpid)

        with pytest.raises(ValueError, match="one"):
            wrong.result(timeout=60)
        assert before.result(timeout=60) == after.result(timeout=60)


def test_as_many_processes_at_a_time_as_there_are_jobs() -> None:
    with RecycledProcesses(2, tasks_each=1) as processes:
        found = [processes.submit(os.getpid) for _ in range(6)]

        assert len({future.result(timeout=60) for future in found}) == 6


def test_what_still_waits_is_not_begun_once_the_run_is_broken_off() -> None:
    with suppress(KeyboardInterrupt), RecycledProcesses(1, tasks_each=1) as processes:
        begun = processes.submit(time.sleep, 0.5)
        waiting = [processes.submit(os.getpid) for _ in range(3)]
        while not begun.running():
            time.sleep(0.01)
        raise KeyboardInterrupt

    assert begun.result(timeout=60) is None
    assert all(future.cancelled() for future in waiting)


def test_processes_end_with_the_one_that_is_killed() -> None:
    source = """
import os, time
from benchmarks.processes import RecycledProcesses

if __name__ == "__main__":
    with RecycledProcesses(1, tasks_each=9) as processes:
        print(processes.submit(os.getpid).result(), flush=True)
        processes.submit(time.sleep, 600).result()
"""
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        worker = psutil.Process(int(run.stdout.readline()))
        run.kill()
    worker.wait(timeout=60)
