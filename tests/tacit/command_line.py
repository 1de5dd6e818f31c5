"""The command line as a shell starts it, but in this process: starting another takes a second."""

import contextlib
import io
import sys
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from tacit.cli import main


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def tacit(*words: str, home: Path) -> Done:
    """Run ``tacit WORDS`` in ``home``. Raises what is no error on purpose, as it would be shown."""
    arguments = ["tacit", *words, "--home", str(home)]
    code = 0
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
        contextlib.chdir(home),
        patch.object(sys, "argv", arguments),
    ):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Done(code, out.getvalue(), err.getvalue())
