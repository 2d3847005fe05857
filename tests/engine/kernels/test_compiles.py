"""Every kernel compiles for a Hopper GPU, on a machine without one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# In a process of its own, as Triton interprets the kernels of this one.
PROGRAM = """
import re
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from llava_next_video.engine.kernels import few_rows, fused, generating, paged, store

STRIDES = ("behind", "scales_behind", "query_stride", "stride", "half")  # multiples of 16


def lines(kernel, types, constants, early_reads=r"ld\\.global\\.b32", **options):
    '''The machine's instructions for a kernel, which reads weights and such things before it waits.'''
    names = kernel.arg_names
    if "OVERLAPPED" in names:
        constants = constants | {"OVERLAPPED": True}
    types = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    aligned = [n for n, name in enumerate(names) if types[name].startswith("*") or name in STRIDES]
    source = ASTSource(
        kernel,
        signature=types,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(n,): [["tt.divisibility", 16]] for n in aligned},
    )
    options = options | {"launch_pdl": True}
    code = compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]
    if "OVERLAPPED" in names:
        early, waited, _ = code.partition("griddepcontrol.wait")
        assert waited and "griddepcontrol.launch_dependents" in early
        assert not re.search(r"st\\.global|cp\\.async|atom", early), "too early a write"
        for read in re.findall(r"ld\\.global\\S*", early):  # weights, or one number of the table of the step
            assert "evict_first" in read or re.fullmatch(early_reads, read), read
    return code


def split(number, stored, **constants):
    types = {"queries": f"*{number}", "numbers": f"*{stored}", "scales": "*fp32", "rows": "*i32",
             "tables": "*i32", "partial": "*fp32", "sums": "*fp32", "scale": "fp32"}
    given = {"SHARED": False, "DIRECT": False, "SCALED": stored != number, "WINDOW": 0, "KV_HEADS": 8,
             "GROUP": 1, "WIDTH": 128, "PADDED": 128, "PAGE": 16, "ROWS": 16, "TOKENS": 64} | constants
    return lines(paged._split_kernel, types, given, num_warps=4, num_stages=3)


for number, stored in (("bf16", "bf16"), ("fp16", "fp16"), ("bf16", "fp8e4nv")):
    code = split(number, stored)
    read = re.search(r"cp\\.async\\.cg\\S* \\[[^]]*\\], \\[[^]]*\\], 0x10", code)
    assert read, "keys are not read 16 bytes at once"
    assert "mma.sync" in code
split("bf16", "bf16", WIDTH=80, GROUP=7, WINDOW=4096)
split("fp32", "fp32", WIDTH=64, PADDED=64, GROUP=4, TOKENS=32)
assert "wgmma" in split("bf16", "bf16", SHARED=True, ROWS=64)
lines(paged._merge_kernel, {"partial": "*fp32", "sums": "*fp32", "out": "*bf16", "rows": "*i32"},
      {"HEADS": 32, "WIDTH": 80, "PADDED": 128, "COLUMNS": 32}, num_warps=2)


def generating_of(stored, **constants):
    types = {name: "*bf16" for name in ("queries", "keys_values", "out")} | {"numbers": f"*{stored}"}
    types |= {name: "*fp32" for name in ("turns", "scales", "partial", "sums")} | {"scale": "fp32"}
    types |= {name: "*i32" for name in ("rows", "tables", "arrived")}
    given = {"TURNED": True, "SCALED": stored != "bf16", "WINDOW": 0, "KV_HEADS": 32, "GROUP": 1, "ROWS": 1,
             "WIDTH": 128, "PADDED": 128, "PAGE": 16, "TOKENS": 32, "LEAST": 128, "COLUMNS": 16} | constants
    return lines(generating._generating_kernel, types, given, r"ld\\.global\\.(v[24]\\.)?b(16|32|64)",
                 num_warps=8 if given["ROWS"] == 1 else 4, num_stages=1)


for code in (generating_of("bf16"), generating_of("fp8e4nv"),
             generating_of("bf16", KV_HEADS=4, GROUP=7, ROWS=16, WINDOW=4096),
             generating_of("fp8e4nv", KV_HEADS=8, GROUP=4, ROWS=16, WIDTH=80)):
    early, _, late = code.partition("griddepcontrol.wait")
    assert re.search(r"ld\\.global\\.v[24]\\.b", early), "pages wait for the kernel before"
    written, told, merged = late.partition("atom.global.gpu.acq_rel.add")
    assert told and "bar.sync" in written[written.rindex("st.global"):], "told before all have written"
    assert re.search(r"ld\\.global\\.cg", merged), "what others wrote, from a cache"
    assert "ld.global.b" not in merged, "what others wrote, from a cache"
for stored in ("bf16", "fp8e4nv"):
    types = {"keys_values": "*bf16", "queries": "*bf16", "turns": "*fp32", "numbers": f"*{stored}",
             "scales": "*fp32", "rows": "*i32", "tables": "*i32", "out": "*bf16"}
    shape = {"SCALED": stored != "bf16", "HEADS": 8, "WIDTH": 128, "PADDED": 128, "PAGE": 16}
    for turned in (False, True):
        lines(store._store_kernel, types, {**shape, "TURNED": turned, "QUERY_HEADS": 32, "PADDED_HEADS": 8})
    lines(store._gather_kernel, types, {**shape, "TOKENS": 32})
floats = {name: "*bf16" for name in ("x", "weight", "out", "gate_up")}
lines(fused._rms_norm_kernel, floats | {"epsilon": "fp32"}, {"WIDTH": 4096, "PADDED": 4096})
lines(fused._turns_kernel, {"positions": "*i32", "scalings": "*i32"} | {name: "*fp32" for name in
      ("frequencies", "strengths", "out")}, {"HALF": 64, "PADDED": 128})
lines(fused._silu_kernel, floats, {"BLOCK": 1024})
row = {name: "*bf16" for name in ("x", "weight", "norm", "bias", "out")} | {"epsilon": "fp32"}
for width, padded, role in ((4096, 4096, "NORMED"), (4096, 4096, "GATED"), (11008, 1, "ADDED")):
    switches = {"GATED": role == "GATED", "ADDED": role == "ADDED", "BIASED": False}
    for cut in few_rows.ONE_ROW:
        shape = {"WIDTH": width, "OUT": cut.out, "AT_ONCE": cut.width, "AHEAD": cut.ahead}
        shape |= {"NORMED": role != "ADDED", "PADDED": padded}
        code = lines(few_rows._one_row_kernel, row, shape | switches, num_warps=4)
        early = code[:code.index("griddepcontrol.wait")]
        assert re.search(r"ld\\.global\\S*v4", early), "weights wait for the kernel before"
    for cut in few_rows.FEW_ROWS:
        shape = {"WIDTH": width, "OUT": cut.out, "AT_ONCE": cut.width, "ROWS": cut.rows}
        code = lines(few_rows._few_rows_kernel, row, shape | switches, num_warps=4,
                     num_stages=cut.ahead + 1)
        assert "mma.sync" in code and re.search(r"cp\\.async\\.cg", code), "weights are not on their way"
"""


@pytest.mark.slow
def test_every_kernel_compiles_for_hopper(tmp_path: object) -> None:
    quiet = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=quiet | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
