"""What errors of Ray mean for an update: start again, start again smaller, or give up."""

from collections.abc import Sequence

from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from tacit.cluster import LOST
from tacit.errors import TacitError
from trainer.group import WorkerFailedError, WorkerLostError
from trainer.memory import UpdateTooLargeError


def explain(errors: Sequence[RayError]) -> Exception:
    """The one error to raise: survivors of a failure only see their connection close.

    ``errors`` are those of all workers, the first noticed first.
    """
    causes = [found.cause for found in errors if isinstance(found, RayTaskError)]
    for cause in causes:
        if isinstance(cause, UpdateTooLargeError):
            return cause
    for found in errors:
        if isinstance(found, OutOfMemoryError):  # Ray ended a worker before the kernel would
            return UpdateTooLargeError("an update that fits into memory", got=str(found))
    if any(isinstance(found, LOST) for found in errors):
        return WorkerLostError(str(errors[0]))
    for cause in causes:
        if isinstance(cause, TacitError):
            return cause
    got = "; ".join(f"{type(cause).__name__}: {cause}" for cause in causes or errors)
    return WorkerFailedError("an update without errors in the workers", got=got)
