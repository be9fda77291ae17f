"""The numbers and structs of `ols._abi` are those of include/ols.h (rules R3 and R4)."""

import ctypes
import re
import subprocess

import pytest
from conftest import HEADER, compile_c

from ols import _abi, _library
from ols._errors import OF_STATUS

TEXT = HEADER.read_text()
ENUMS = {
    "ols_status_t": (_abi.Status, "OLS_STATUS_"),
    "ols_dtype_t": (_abi.Dtype, "OLS_DTYPE_"),
    "ols_initial_t": (_abi.Initial, "OLS_INITIAL_"),
    "ols_empty_class_t": (_abi.EmptyClass, "OLS_EMPTY_CLASS_"),
    "ols_reduction_t": (_abi.Reduction, "OLS_REDUCTION_"),
    "ols_mode_t": (_abi.Mode, "OLS_MODE_"),
    "ols_preset_t": (_abi.Preset, "OLS_PRESET_"),
}
STRUCTS = {
    "ols_tensor_t": _abi.Tensor,
    "ols_options_t": _abi.Options,
    "ols_batch_t": _abi.Batch,
    "ols_statistics_t": _abi.Statistics,
    "ols_report_t": _abi.Report,
}


def test_r03_enums_are_the_headers():
    found = {}
    for name, body in re.findall(r"^enum (\w+)\n(?:#[^\n]*\n[^\n]*\n#[^\n]*\n)? \{\n(.*?)^\};", TEXT, re.M | re.S):
        found[name] = {member: int(value) for member, value in re.findall(r"^\s+(OLS_\w+) = (-?\d+),", body, re.M)}
    assert found == {name: {prefix + member.name: int(member) for member in kind} for name, (kind, prefix) in ENUMS.items()}
    assert sum(map(len, found.values())) > 30


def test_r03_constants_are_the_headers():
    found = {name: int(value) for name, value in re.findall(r"^#define OLS_(\w+) (\d+)$", TEXT, re.M) if not name.startswith("VERSION")}
    assert found == {name: getattr(_abi, name, None) for name in found}
    ours = {name for name in vars(_abi) if re.fullmatch(r"[A-Z][A-Z_]+", name)} - {"VERSION_PREFIX"}
    assert ours == set(found)
    version = re.search(r'^#define OLS_VERSION "(.*)"', TEXT, re.M)[1]
    assert version.startswith(_abi.VERSION_PREFIX)
    assert _library.version() == version


def test_r03_functions_are_the_headers():
    declared = set(re.findall(r"^(?:\w+ )+\*?(ols_\w+)\(", TEXT, re.M)) - {"ols_tensor_0d", "ols_tensor_1d", "ols_tensor_2d", "ols_tensor_3d"}
    assert declared == set(_library._FUNCTIONS)


def test_r03_every_status_has_a_kind():
    assert set(OF_STATUS) == set(_abi.Status) - {_abi.Status.OK}
    assert len(set(OF_STATUS.values())) == len(OF_STATUS)


def test_r04_structs_are_the_compilers(tmp_path):
    lines = []
    for name, struct in STRUCTS.items():
        lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
        for field, *_ in struct._fields_:
            lines.append(f'printf("{name}.{field} %zu %zu\\n", offsetof({name}, {field}), sizeof((({name} *)0)->{field}));')
    source = "#include <ols.h>\n#include <stdio.h>\nint main(void) {\n" + "\n".join(lines) + "\nreturn 0;\n}\n"
    program = compile_c(source, tmp_path / "layout")
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split("\n")[:-1]
    ours = []
    for name, struct in STRUCTS.items():
        ours.append(f"{name} {ctypes.sizeof(struct)}")
        ours += [f"{name}.{field} {getattr(struct, field).offset} {getattr(struct, field).size}" for field, *_ in struct._fields_]
    assert printed == ours


@pytest.mark.parametrize("name", STRUCTS)
def test_r04_structs_have_the_headers_fields(name):
    body = re.search(rf"typedef struct {name} \{{\n(.*?)^\}} {name};", TEXT, re.M | re.S)[1]
    fields = re.findall(r"^    [\w ]+?\*?(\w+)(?:\[\d\])?;$", body, re.M)
    assert fields == [field for field, *_ in STRUCTS[name]._fields_]


def test_r04_new_structs_hold_what_the_library_says():
    options, batch = _library.options_init(), _library.batch_init()
    assert (options.struct_size, batch.struct_size) == (ctypes.sizeof(_abi.Options), ctypes.sizeof(_abi.Batch))
    assert bytes(batch)[8:] == bytes(ctypes.sizeof(batch) - 8)
    assert bytes(options.soft_labels) == bytes(ctypes.sizeof(_abi.Tensor))
