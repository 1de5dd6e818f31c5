"""How many examples a property is tried on: few by default, more where time is given."""

import os

_TIMES = int(os.environ.get("TACIT_TEST_EXAMPLES", "1"))


def num_examples(few: int) -> int:
    """``few``, times what TACIT_TEST_EXAMPLES says."""
    return few * _TIMES
