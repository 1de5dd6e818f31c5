import platform

from trainer.provenance import library_versions, processor_kind

CPU_INFO = """\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Processor

processor\t: 1
cpu family\t: 7
"""


def test_a_processor_is_named_by_instruction_set_and_model(tmp_path):
    (tmp_path / "cpuinfo").write_text(CPU_INFO)
    kind = processor_kind("cpu", cpu_info=tmp_path / "cpuinfo")
    assert kind.startswith(platform.machine())
    assert kind.endswith(", Intel(R) Xeon(R) Processor, family 6, model 143")


def test_the_same_model_with_its_matrix_units_hidden_is_another_kind(tmp_path):
    path = tmp_path / "cpuinfo"
    kinds = []
    for flags in ("fma avx512f amx_bf16", "fma avx512f"):
        path.write_text(CPU_INFO.replace("\n\n", f"\nflags\t\t: {flags}\n\n"))
        kinds.append(processor_kind("cpu", cpu_info=path))
    assert " AMX, Intel" in kinds[0]
    assert kinds[1] == kinds[0].replace(" AMX", "")


def test_a_system_without_cpuinfo_still_has_a_kind(tmp_path):
    kind = processor_kind("cpu", cpu_info=tmp_path / "none")
    assert kind.startswith(platform.machine())
    assert "," not in kind


def test_versions_name_python_and_what_computes():
    versions = library_versions()
    assert versions["python"] == platform.python_version()
    assert {"tacit", "torch", "peft", "accelerate", "safetensors"} <= set(versions)
