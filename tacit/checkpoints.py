"""Content-addressed store of checkpoints.

A checkpoint is a folder of files with a manifest; its digest is the digest of the manifest, which
names the digest of every file. An *adapter* checkpoint holds a LoRA adapter and names the *full*
checkpoint it sits on. What has a digest can be copied between machines and checked anywhere.
"""

import hashlib
import json
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from tacit.contracts import Contract, Digest
from tacit.errors import IntegrityError, NotFoundError

MANIFEST_NAME = "tacit-checkpoint.json"


class CheckpointManifest(Contract):
    """Files of a checkpoint. The digest of this model is the digest of the checkpoint."""

    kind: Literal["full", "adapter"]
    base: Digest | None = None
    """For an adapter: the full checkpoint it belongs to."""
    files: Annotated[dict[str, Digest], Field(min_length=1)]


class CheckpointStore:
    """Puts, finds and verifies checkpoints under one root folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def put(self, folder: Path, *, base: Digest | None = None) -> Digest:
        """Copy ``folder`` into the store and return its digest; nothing half-written stays.

        ``base`` makes it an adapter on that full checkpoint.
        """
        names = sorted(p.name for p in folder.iterdir() if p.is_file() and p.name != MANIFEST_NAME)
        manifest = CheckpointManifest(
            kind="full" if base is None else "adapter",
            base=base,
            files={name: file_digest(folder / name) for name in names},
        )
        digest = manifest.digest()
        target = self._folder(digest)
        if not target.exists():
            self._install(folder, names, manifest, target)
        return digest

    def _install(
        self, folder: Path, names: list[str], manifest: CheckpointManifest, target: Path
    ) -> None:
        staging = Path(tempfile.mkdtemp(prefix="incoming-", dir=self.root))
        try:
            for name in names:
                shutil.copyfile(folder / name, staging / name)
            (staging / MANIFEST_NAME).write_bytes(manifest.canonical_json())
            for path in staging.iterdir():
                _sync(path)
            os.rename(staging, target)
            _sync(self.root)
        except OSError:
            shutil.rmtree(staging, ignore_errors=True)
            if not target.exists():  # else another process put the same bytes first
                raise

    def path(self, digest: Digest) -> Path:
        """Folder of a checkpoint. Raises NotFoundError."""
        folder = self._folder(digest)
        if not folder.is_dir():
            raise NotFoundError("a checkpoint in the store", got=digest)
        return folder

    def manifest(self, digest: Digest) -> CheckpointManifest:
        """The manifest, checked against ``digest``. Raises NotFoundError, IntegrityError."""
        try:
            raw = json.loads((self.path(digest) / MANIFEST_NAME).read_bytes())
            manifest = CheckpointManifest.model_validate(raw)
        except (OSError, ValueError, ValidationError) as error:
            raise IntegrityError(f"a manifest of checkpoint {digest}", got=str(error)) from error
        if manifest.digest() != digest:
            raise IntegrityError(f"a manifest with digest {digest}", got=manifest.digest())
        return manifest

    def verify(self, digest: Digest) -> CheckpointManifest:
        """Hash every file, of the base too. Raises IntegrityError naming the first that differs."""
        manifest = self.manifest(digest)
        folder = self.path(digest)
        for name, expected in manifest.files.items():
            path = folder / name
            got = file_digest(path) if path.is_file() else "no such file"
            if got != expected:
                raise IntegrityError(f"{name} of {digest} with digest {expected}", got=got)
        extra = {p.name for p in folder.iterdir()} - set(manifest.files) - {MANIFEST_NAME}
        if extra:
            raise IntegrityError(f"only the files of {digest}", got=f"also {sorted(extra)}")
        if manifest.base is not None:
            self.verify(manifest.base)
        return manifest

    def num_weights(self, digest: Digest) -> int:
        """Numbers in the weight files of the full checkpoint that ``digest`` is or stands on.

        0 where it has none as safetensors. Raises NotFoundError, IntegrityError.
        """
        from safetensors import safe_open  # late: not all who use a store read weights

        base = self.manifest(digest).base
        if base is not None:
            return self.num_weights(base)
        total = 0
        for path in self.path(digest).glob("*.safetensors"):
            with safe_open(path, framework="np") as weights:
                names = weights.keys()
                total += sum(math.prod(weights.get_slice(name).get_shape()) for name in names)
        return total

    def _folder(self, digest: Digest) -> Path:
        return self.root / digest.removeprefix("sha256:")


def file_digest(path: Path) -> Digest:
    """``sha256:…`` of a file's bytes."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
