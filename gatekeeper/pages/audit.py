"""Audit: the ledger a page at a time, one entry in full, verification and export."""

from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from gatekeeper.ledger import Ledger
from gatekeeper.ledger_api import PROOFS_FORMAT
from gatekeeper.logbook import MAX_READ, Logbook
from gatekeeper.pages.route import Word, render
from gatekeeper.pages.visits import Visits

NUM_VERIFIED_AT_ONCE = 2_000
"""Entries that are verified whenever the page opens; of more a person asks for it."""


def add_audit(router: APIRouter, visits: Visits, ledger: Ledger, logbook: Logbook) -> None:
    """``/audit``, ``/audit/NUMBER`` and the download."""

    @router.get("/audit")
    def audit(
        request: Request,
        q: Word = "",
        kind: Word = "",
        before: int | None = None,
        verify: bool = False,
    ) -> Response:
        login = visits.reader(request)
        size = ledger.size()
        asked = {name: text for name, text in (("q", q), ("kind", kind)) if text}
        page = logbook.page(kind=kind or None, text=q or None, before=before)
        older = urlencode({**asked, "before": page.next}) if page.next is not None else None
        return render(
            "audit.html",
            login=login,
            check=ledger.verify() if verify or size <= NUM_VERIFIED_AT_ONCE else None,
            size=size,
            asked=asked,
            kinds=logbook.kinds(),
            entries=page.entries,
            older=older,
            newest=urlencode(asked) if before is not None else None,
            searched=min(size, MAX_READ),
        )

    @router.get("/audit/ledger.json")
    def download(request: Request) -> Response:
        visits.reader(request)
        headers = {"Content-Disposition": 'attachment; filename="ledger.json"'}
        return JSONResponse(ledger.export(), headers=headers)

    @router.get("/audit/{sequence}/proof.json")
    def proof(sequence: int, request: Request) -> Response:
        visits.reader(request)
        # Also refuses a number that no entry has.
        entry = logbook.entry(sequence)
        headers = {"Content-Disposition": f'attachment; filename="proof-{sequence}.json"'}
        proofs = [ledger.prove(entry.sequence).model_dump(mode="json")]
        found = {"format": PROOFS_FORMAT, "about": str(sequence), "proofs": proofs}
        return JSONResponse(found, headers=headers)

    @router.get("/audit/{sequence}")
    def one_entry(sequence: int, request: Request) -> Response:
        login = visits.reader(request)
        return render("entry.html", login=login, entry=logbook.entry(sequence), size=ledger.size())
