"""The settings tree and where its values come from."""

import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from tacit.config.collector import CollectorSettings
from tacit.config.profiles import merged, profile_for, profile_values
from tacit.config.stages import (
    DeploySettings,
    EvaluatorSettings,
    GatekeeperSettings,
    LoopSettings,
    TrackingSettings,
)
from tacit.config.trainer import TrainerSettings
from tacit.contracts.base import Name
from tacit.errors import ConfigError


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(
        env_prefix="TACIT_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    home: Path = Path(".tacit")
    """Where the embedded backends keep everything."""
    policy: Name = "default"
    """The policy line this service trains and serves."""
    model: str | None = None
    """Path or hub id of the first policy; by default the small demo policy is made."""
    database_url: str | None = None
    """SQLAlchemy URL; by default SQLite in ``home``."""
    log_json: bool = False
    """Log one JSON object a line."""
    collector: CollectorSettings = CollectorSettings()
    trainer: TrainerSettings = TrainerSettings()
    evaluator: EvaluatorSettings = EvaluatorSettings()
    gatekeeper: GatekeeperSettings = GatekeeperSettings()
    deploy: DeploySettings = DeploySettings()
    tracking: TrackingSettings = TrackingSettings()
    loop: LoopSettings = LoopSettings()

    @model_validator(mode="after")
    def _batch_fits(self) -> "Settings":
        if self.loop.max_events < self.loop.min_events:
            raise ValueError(
                f"expected loop.max_events >= loop.min_events; got {self.loop.max_events} < "
                f"{self.loop.min_events}"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over values passed in: what is passed in comes from ``tacit.toml``."""
        return env_settings, init_settings

    @property
    def resolved_database_url(self) -> str:
        """``database_url``, or SQLite in ``home``."""
        return self.database_url or f"sqlite:///{self.home.resolve()}/tacit.db"

    @property
    def tracking_uri(self) -> str:
        """``tracking.uri``, or the MLflow server that ``tacit up`` starts."""
        return self.tracking.uri or f"http://{self.tracking.host}:{self.tracking.port}"

    @property
    def checkpoints_path(self) -> Path:
        """Folder of the content-addressed store."""
        return self.home / "checkpoints"

    @property
    def keys_path(self) -> Path:
        """Folder of the keys and secrets made at first start."""
        return self.home / "keys"

    @property
    def signing_path(self) -> Path:
        """Folder of the signing key."""
        return self.gatekeeper.signing_path or self.keys_path

    @property
    def spool_path(self) -> Path:
        """Folder of interactions that serving has yet to hand to the stream."""
        return self.home / "spool"

    @property
    def anchor_path(self) -> Path:
        """JSONL of anchor prompts."""
        return self.trainer.replay.anchor_path or self.home / "anchor.jsonl"

    @property
    def suites_path(self) -> Path:
        """Folder of the suites."""
        return self.evaluator.suites_path or self.home / "suites"


class _PlainSettings(Settings):
    """The same tree read from a dict alone, so that an override beats the environment."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def load_settings(
    path: Path | None = None,
    *,
    overrides: list[str] | None = None,
    profile: str | None = None,
    **values: Any,
) -> Settings:
    """Settings from ``path`` (default ``tacit.toml`` if it is there), environment and overrides.

    ``overrides`` are ``a.b=c`` strings; ``values`` are top-level fields that win over the file,
    which wins over ``profile``.
    Raises ConfigError naming the field, what was got and how to mend it.
    """
    tree = merged(profile_values(profile) if profile else {}, _read_toml(path))
    tree.update({k: v for k, v in values.items() if v is not None})
    try:
        settings = Settings(**tree)
        if overrides:
            settings = with_overrides(settings, overrides)
    except ValidationError as error:
        raise _config_error(error) from error
    return settings


def public_dump(settings: Settings) -> dict[str, Any]:
    """The tree as JSON-ready values, with the password of ``database_url`` taken out."""
    tree = settings.model_dump(mode="json")
    if settings.database_url:
        tree["database_url"] = re.sub(r"(://[^:/@]+):[^@]*@", r"\1:***@", settings.database_url)
    return tree


def settings_to_json(settings: Settings) -> str:
    """What was set, for another process; the rest are its defaults too."""
    return settings.model_dump_json(exclude_unset=True)


def settings_from_json(text: str) -> Settings:
    """The tree that ``settings_to_json`` wrote; the environment is not looked at."""
    return _PlainSettings.model_validate_json(text)


def suited(settings: Settings, num_weights: int) -> Settings:
    """What suits a policy of ``num_weights`` weights, 0 if unknown, where nobody said otherwise.

    A small policy gets what ``profile_for`` names, in place of defaults alone: what was set stays.
    Who sets ``trainer.full_fine_tuning`` has chosen how to train, and keeps all defaults; so do
    methods other than ``mixed``.
    """
    name = profile_for(num_weights)
    trainer = settings.trainer
    chosen = "full_fine_tuning" in trainer.model_fields_set or trainer.method != "mixed"
    if name is None or chosen:
        return settings
    given = settings.model_dump(mode="json", exclude_unset=True)
    return _PlainSettings.model_validate(merged(profile_values(name), given))


def with_overrides(settings: Settings, overrides: list[str]) -> Settings:
    """A copy of ``settings`` with each ``a.b=c`` applied, strongest of all sources."""
    known = settings.model_dump(mode="json")
    tree = settings.model_dump(mode="json", exclude_unset=True)
    for override in overrides:
        key, separator, raw = override.partition("=")
        if not separator:
            raise ConfigError("--set a.b=c", got=override)
        _assign(tree, key.strip(), raw, known=known)
    try:
        return _PlainSettings.model_validate(tree)
    except ValidationError as error:
        raise _config_error(error) from error


def _assign(tree: dict[str, Any], key: str, raw: str, *, known: Any) -> None:
    *parents, leaf = key.split(".")
    node = tree
    for parent in parents:
        known = known.get(parent) if isinstance(known, dict) else None
        node = node.setdefault(parent, {}) if isinstance(known, dict) else {}
    if not isinstance(known, dict) or leaf not in known:
        raise ConfigError(
            "--set with the name of a setting",
            got=key,
            mend="`tacit config show` lists all of them.",
        )
    node[leaf] = None if raw in {"null", "none"} else raw


def _read_toml(path: Path | None) -> dict[str, Any]:
    chosen = path or Path("tacit.toml")
    if not chosen.exists():
        if path is not None:
            raise ConfigError("a settings file", got=f"{path}, which does not exist")
        return {}
    try:
        return tomllib.loads(chosen.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"TOML in {chosen}", got=str(error)) from error


def _config_error(error: ValidationError) -> ConfigError:
    rows = [
        f"{'.'.join(str(part) for part in row['loc']) or 'settings'}: {row['msg']} "
        f"(got {row.get('input')!r})"
        for row in error.errors()
    ]
    return ConfigError(
        "valid settings",
        got="; ".join(rows),
        mend="`tacit config show` prints every setting with its present value.",
    )
