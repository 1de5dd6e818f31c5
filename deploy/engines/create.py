"""The engine that the settings name."""

from deploy.engines.base import Engine
from tacit.checkpoints import CheckpointStore
from tacit.config import Settings


def create_engine(settings: Settings, store: CheckpointStore) -> Engine:
    """The engine of ``deploy.engine``; it answers once it is started and has loaded a policy."""
    deploy = settings.deploy
    if deploy.engine == "vllm":
        from deploy.engines.vllm import VllmEngine

        return VllmEngine(
            store,
            url=deploy.vllm_url,
            max_batch_size=deploy.max_batch_size,
            max_queue=deploy.max_queue,
        )
    from deploy.engines.transformers import TransformersEngine

    return TransformersEngine(
        store,
        max_batch_size=deploy.max_batch_size,
        max_queue=deploy.max_queue,
        device=deploy.device,
    )
