"""One settings tree, a section a stage.

Sources, strongest first: ``--set a.b=c`` on the command line, ``TACIT_A__B`` in the environment,
``tacit.toml``, the defaults below. Secrets never stand in the file: they come from the environment.
"""

from tacit.config.collector import (
    CollectorSettings,
    KafkaSettings,
    MetricSettings,
    QuorumRule,
    ScreeningSettings,
)
from tacit.config.methods import RewardSettings, SamplingSettings, StarSettings
from tacit.config.profiles import require_backends
from tacit.config.replay import RebuildSettings, ReplaySettings
from tacit.config.rollout import RolloutSettings
from tacit.config.stages import (
    DeploySettings,
    EvaluatorSettings,
    GatekeeperSettings,
    LoopSettings,
    TrackingSettings,
    WebhookSettings,
)
from tacit.config.trainer import LoraSettings, TrainerSettings
from tacit.config.tree import (
    Settings,
    load_settings,
    public_dump,
    settings_from_json,
    settings_to_json,
    suited,
    with_overrides,
)

__all__ = [
    "CollectorSettings",
    "DeploySettings",
    "EvaluatorSettings",
    "GatekeeperSettings",
    "KafkaSettings",
    "LoopSettings",
    "LoraSettings",
    "MetricSettings",
    "QuorumRule",
    "RebuildSettings",
    "ReplaySettings",
    "RewardSettings",
    "RolloutSettings",
    "SamplingSettings",
    "ScreeningSettings",
    "Settings",
    "StarSettings",
    "TrackingSettings",
    "TrainerSettings",
    "WebhookSettings",
    "load_settings",
    "public_dump",
    "require_backends",
    "settings_from_json",
    "settings_to_json",
    "suited",
    "with_overrides",
]
