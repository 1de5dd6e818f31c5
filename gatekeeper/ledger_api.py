"""JSON API of the ledger: export, verification and proofs. Everything here needs scope ``read``.

The ledger is one for all policy lines, since it verifies only as a whole.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from gatekeeper.ledger_reader import LedgerReader
from gatekeeper.subjects import Related, entries_about
from tacit.errors import NotFoundError
from tacit.http import bearer_principal
from tacit.keys import KeyStore, Scope

PROOFS_FORMAT = "tacit-proofs/1"

NumEntries = Annotated[int, Query(ge=1)]


def create_ledger_router(
    ledger: LedgerReader, keys: KeyStore, *, related: Related | None = None
) -> APIRouter:
    """Routes under ``/ledger``; ``related`` names what an event or a subject has to do with."""

    def reader(request: Request) -> None:
        bearer_principal(keys, request).require(Scope.READ)

    router = APIRouter(prefix="/ledger", dependencies=[Depends(reader)])

    @router.get("")
    def export_ledger() -> dict[str, Any]:
        """The whole ledger, for checking on any machine with the public key."""
        return ledger.export()

    @router.get("/verify")
    def verify_ledger() -> dict[str, Any]:
        """Check every entry in place."""
        check = ledger.verify()
        return {"ok": check.ok, **check._asdict()}

    @router.get("/proofs")
    def prove(about: Annotated[str, Query(min_length=1, max_length=512)]) -> dict[str, Any]:
        """Inclusion proofs of an entry by number, or of all entries about something."""
        entries = entries_about(ledger, about, related)
        if not entries:
            raise NotFoundError(
                "the number of an entry, or what one is about",
                got=about,
                mend="The audit page lists the newest entries.",
            )
        size = ledger.size()
        proofs = [ledger.prove(sequence, size=size) for sequence in entries]
        return {
            "format": PROOFS_FORMAT,
            "about": about,
            "proofs": [proof.model_dump(mode="json") for proof in proofs],
        }

    @router.get("/growth")
    def prove_growth(first: NumEntries, second: NumEntries | None = None) -> dict[str, Any]:
        """Proof that the first ``first`` entries are the beginning of the first ``second``."""
        return ledger.prove_growth(first, second).model_dump(mode="json")

    return router
