"""``tacit audit``: check, export and prove the ledger."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tacit.commands.options import Home, Key, Url, console
from tacit.config import load_settings
from tacit.errors import IntegrityError, InvalidInputError
from tacit.remote import Remote

if TYPE_CHECKING:
    from gatekeeper.audit import LedgerHead
    from tacit.signing import Verifier

app = typer.Typer(help="Check the ledger.", no_args_is_help=True)

PublicKey = Annotated[Path | None, typer.Option(help="signing.pub of the service.")]


@app.command("verify")
def audit_verify(
    file: Annotated[
        Path | None, typer.Argument(help="An export or a proof; by default the live ledger.")
    ] = None,
    public_key: PublicKey = None,
    mlflow: Annotated[
        str | None, typer.Option(help="MLflow with heads of the ledger; of a live one its own.")
    ] = None,
    no_mlflow: Annotated[bool, typer.Option("--no-mlflow", help="Compare with no heads.")] = False,
    url: Url = None,
    key: Key = None,
    home: Home = None,
) -> None:
    """Check every entry, link and signature; exit code 1 if any is wrong.

    Also compares with the heads kept in MLflow: a ledger cut at its end or put back from an older
    copy is found there alone. A file is compared only with --mlflow.
    """
    from tacit.signing import PUBLIC_NAME, Verifier

    settings = load_settings(home=home)
    verifier = Verifier.load(public_key or settings.signing_path / PUBLIC_NAME)
    tree = None if file is None else _read(file)
    if tree is not None and "entries" not in tree:
        _verify_proofs(tree, verifier)
        return
    if no_mlflow:
        mlflow = None
    elif tree is None:
        mlflow = mlflow or settings.tracking_uri
    # The heads first: one kept after the entries were read would look like a cut.
    known, problems = ([], []) if mlflow is None else _heads(mlflow, verifier)
    if tree is None:
        tree = Remote.connect(url=url, key=key, home=home).get("/v1/ledger")
    _verify_ledger(tree, verifier, known, problems)


def _verify_ledger(
    tree: dict[str, Any], verifier: "Verifier", known: list["LedgerHead"], problems: list[str]
) -> None:
    from gatekeeper.ledger import verify_export

    check = verify_export(tree, verifier, known=known)
    problems = problems + check.problems
    for problem in problems:
        console.print(problem, style="red", markup=False, highlight=False)
    console.print(f"{check.num_entries} entries, root {check.root[:16]}…, ", end="")
    if known:
        console.print(f"{len(known)} heads in MLflow, ", end="")
    console.print(f"{len(problems)} problems" if problems else "all verified")
    raise typer.Exit(1 if problems else 0)


def _heads(uri: str, verifier: "Verifier") -> tuple[list["LedgerHead"], list[str]]:
    """The heads in MLflow, and what is wrong with them; no answer is wrong too."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    from mlflow.exceptions import MlflowException

    from gatekeeper.audit import LedgerHead, open_head
    from tacit.heads import HeadStore

    known: list[LedgerHead] = []
    problems: list[str] = []
    try:
        envelopes = HeadStore(uri).all()
    except MlflowException as error:
        mend = "Name another with --mlflow, or compare with none by --no-mlflow."
        return [], [f"the heads in MLflow at {uri} could not be read: {error}\n{mend}"]
    for envelope in envelopes:
        try:
            head = open_head(envelope, verifier)
            known.append(LedgerHead(head.sequence, head.root))
        except IntegrityError as error:
            problems.append(f"a head in MLflow does not verify: {error}")
    return known, problems


@app.command("export")
def audit_export(path: Path, url: Url = None, key: Key = None, home: Home = None) -> None:
    """Write the ledger to a file that can be checked offline."""
    entries = Remote.connect(url=url, key=key, home=home).get("/v1/ledger")
    path.write_text(json.dumps(entries, indent=1))
    console.print(f"wrote {path}")


@app.command("prove")
def audit_prove(
    about: Annotated[
        str | None,
        typer.Argument(help="Id of a decision, candidate, release or event, or an entry's number."),
    ] = None,
    since: Annotated[
        int | None, typer.Option(help="Prove instead that the first N entries are as they were.")
    ] = None,
    url: Url = None,
    key: Key = None,
    home: Home = None,
) -> None:
    """Print proofs (RFC 6962) that anyone checks with `tacit audit verify FILE`."""
    if (about is None) == (since is None):
        raise typer.BadParameter("expected what to prove, or --since")
    remote = Remote.connect(url=url, key=key, home=home)
    if since is None:
        answer = remote.get("/v1/ledger/proofs", about=about)
    else:
        answer = remote.get("/v1/ledger/growth", first=since)
    typer.echo(json.dumps(answer, indent=1))


def _verify_proofs(tree: dict[str, Any], verifier: "Verifier") -> None:
    """Print what each proof proves. Raises IntegrityError at the first that proves nothing."""
    from gatekeeper.proofs import InclusionProof, check_consistency, check_inclusion, read_proof

    parts = tree.get("proofs", [tree])
    if not parts:
        raise IntegrityError("at least one proof", got="none")
    for part in parts:
        proof = read_proof(part)
        if isinstance(proof, InclusionProof):
            head = check_inclusion(proof, verifier)
            entry = json.loads(proof.entry)
            what = f"entry {proof.sequence}, {entry['kind']} of {entry['subject']}, is in"
        else:
            first, head = check_consistency(proof, verifier)
            what = f"the first {first.sequence + 1} entries are the beginning of"
        whole = f"{what} the {head.sequence + 1} entries with root {head.root[:16]}…"
        console.print(whole, markup=False, highlight=False)


def _read(file: Path) -> dict[str, Any]:
    try:
        tree = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"an export or a proof in {file}", got=str(error)) from error
    if not isinstance(tree, dict):
        raise InvalidInputError(f"an export or a proof in {file}", got=type(tree).__name__)
    return tree
