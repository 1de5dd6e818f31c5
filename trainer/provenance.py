"""What a checkpoint's bits hang on beside its inputs: versions of libraries, and the processor.

Libraries choose their kernels by instruction set and model, and other kernels round otherwise.
"""

import importlib.metadata
import platform
from pathlib import Path

LIBRARIES = (
    "tacit",
    "torch",
    "transformers",
    "peft",
    "trl",
    "accelerate",
    "numpy",
    "ray",
    "safetensors",
    "tokenizers",
)
PROCESSOR = "processor"
"""What the kind of processor is called among the versions of a candidate."""
AMX = "amx_bf16"
"""What Linux calls units for products of bfloat16 matrices."""
CPU_INFO = Path("/proc/cpuinfo")


def library_versions() -> dict[str, str]:
    """Versions of everything that takes part in an update."""
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {"python": platform.python_version(), **versions}


def processor_kind(device: str, *, cpu_info: Path = CPU_INFO) -> str:
    """``x86_64 AVX512 AMX, Intel(R) Xeon(R) Processor, family 6, model 143``, or a GPU's name.

    Virtual machines may hide units that the model has, so they are named too.
    """
    import torch  # the driver, which only asks for versions, goes without

    if device != "cpu":
        return torch.cuda.get_device_name()
    kind = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    if AMX in processor_flags(cpu_info=cpu_info):
        kind += " AMX"
    fields = _first_processor(cpu_info)
    named = [fields.get("model name"), _numbered(fields, "cpu family"), _numbered(fields, "model")]
    return ", ".join([kind, *filter(None, named)])


def processor_flags(*, cpu_info: Path = CPU_INFO) -> frozenset[str]:
    """Instruction sets by their names in Linux; empty where the system does not tell."""
    return frozenset(_first_processor(cpu_info).get("flags", "").split())


def _first_processor(path: Path) -> dict[str, str]:
    """Fields of the first processor; empty where the system has no such file."""
    try:
        first, *_ = path.read_text().split("\n\n")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _numbered(fields: dict[str, str], name: str) -> str | None:
    return f"{name.removeprefix('cpu ')} {fields[name]}" if name in fields else None
