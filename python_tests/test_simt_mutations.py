"""The tests of the emulated kernels catch what they are for: each mutant of a real kernel fails, the original passes.

Every mutant replaces one piece of text in one source, is compiled with the sanitizers, and runs the test of its kernel.
"""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # a minute of compiling
CSRC = Path(__file__).parents[1] / "csrc"
FLAGS = ["-std=c++17", "-O1", "-w", "-fno-omit-frame-pointer", "-fsanitize=address,undefined"]
FLAGS += ["-fno-sanitize-recover=all"]


@dataclass(frozen=True)
class Mutant:
    what: str
    kernel: str  # a key of KERNELS
    source: str  # the file of csrc/cuda that changes
    old: str
    new: str


# csrc/tests/<kernel>_test.cpp -> what it needs of csrc/cuda
KERNELS = {
    "pgd_step": ["pgd_step"],
    "product": ["product", "scaled"],
    "hidden": ["hidden_float64", "product", "scaled"],
    "gram": ["gram_walk"],
}
# and what of it no mutant changes
REST_OF_PGD = "gram gram_rows gram_steps_bfloat16 gram_steps_float32 gram_steps_float64 half_sparse half_sparse_rows hidden_bfloat16 hidden_float32 hidden_float64 passes pgd"
OTHERS = {"gram": [f"cuda/{source}.cu" for source in f"{REST_OF_PGD} pgd_rows product scaled".split()]}
RUNTIME = ["simt/block.cpp", "simt/fiber.cpp"]
TEAM, TILE, PRODUCT = ("pgd_step", "team.cuh"), ("product", "tile.cuh"), ("product", "product.cu")
MULTIPLY, PLAIN, SPLIT = (("product", f"{name}.cuh") for name in ("multiply", "plain_panels", "split_panels"))
HIDDEN = ("hidden", "hidden_kernel.cuh")
WALK, STATE = ("gram", "gram_walk.cu"), ("gram", "gram_state.cuh")
MUTANTS = [
    Mutant("a reduction reads before its barrier", *TEAM, "__syncthreads();\n      V total", "V total"),
    Mutant("a reduction is overtaken by the next", *TEAM, "__syncthreads();  // the next", "// the next"),
    Mutant("a shuffle's mask is half a warp", *TEAM, "__shfl_xor_sync(kFullWarp", "__shfl_xor_sync(0xffffu"),
    Mutant("a shuffle leaves out its first round", *TEAM, "kWarp / 2; distance", "kWarp / 4; distance"),
    Mutant("a shuffle reads the wrong lane", *TEAM, "distance /= 2", "distance -= 3"),
    Mutant("a row is read one too far", *TEAM, "i < count", "i <= count"),
    Mutant("a row begins one too late", *TEAM, "int64_t i = lane();", "int64_t i = lane() + 1;"),
    Mutant("a panel is read before its barrier", *MULTIPLY, "__syncthreads();\n    left", "left"),
    Mutant("a panel is overwritten before its barrier", *MULTIPLY, "    __syncthreads();\n  }\n", "  }\n"),
    Mutant("a panel is read one too deep", *PLAIN, "term < kDepth", "term <= kDepth"),
    Mutant("a tile is read before its barrier", *SPLIT, "    __syncthreads();\n#pragma", "#pragma"),
    Mutant("a piece of a number is forgotten", *SPLIT, "      value -= widen", "      widen"),
    Mutant("the smallest products are left out", *SPLIT, "order = kPieces - 1", "order = kPieces - 2"),
    Mutant("the precision is not heard", "product", "precision.h", "precision == Precision::tf32", "false"),
    Mutant("warps share their columns", *SPLIT, "% kWarpsAcross", "% (kWarpsAcross - 1)"),
    Mutant("an operand is read one line too far", *TILE, "line_of(i) < lines", "line_of(i) <= lines"),
    Mutant("an operand is read one term too far", *TILE, "left >= 2 ? data_", "left >= 1 ? data_"),
    Mutant("pairs are read where they are not aligned", *TILE, "% sizeof(Pair<E>) == 0", "% sizeof(E) == 0"),
    Mutant("half a fragment is not turned", "product", "fragment.cuh", "turned(first + 8)", "turned(first)"),
    Mutant("a result is written one row too far", *PRODUCT, "row >= product.rows", "row > product.rows"),
    Mutant("parts are summed before their barrier", *PRODUCT, "__syncthreads();\n", "\n"),
    Mutant("a mirrored tile is read before its barrier", *PRODUCT, "__syncthreads();\n\n  A* out", "A* out"),
    Mutant("a mirrored tile overwrites panels in use", *PRODUCT, "tile);\n  __syncthreads();", "tile);"),
    Mutant("both halves of a tile on the diagonal are made", *PRODUCT, "mirrored_row < mirrored", "-1 < mirrored"),
    Mutant("tiles below the diagonal are counted wrong", *PRODUCT, "q - tiles % 2", "q"),
    Mutant("a library is given its left operand turned", *PRODUCT, "kLeftTerms ? left.stride :", "kLeftTerms ? 1 :"),
    Mutant("a library is not told to add", *PRODUCT, "product.accumulate,\n  };", "false,\n  };"),
    Mutant("the scale of a library's product is forgotten", *PRODUCT, "right.scale == nullptr", "true"),
    Mutant(
        "panels for a library are not summed", *PRODUCT, "first > 0, product.arithmetic", "false, product.arithmetic"
    ),
    Mutant("a number is scaled too many", "product", "scaled.cu", "kThreads < size", "kThreads <= size"),
    Mutant("a row of a tile is summed over too many lanes", *HIDDEN, "distance = kLanes / 2", "distance = kLanes"),
    Mutant("columns are summed before their barrier", *HIDDEN, "__syncthreads();\n  const", "const"),
    Mutant("column sums are overtaken by the next head's", *HIDDEN, "  __syncthreads();\n}\n", "}\n"),
    Mutant("a row of U is written too many", *HIDDEN, "i < layer.rows()", "i <= layer.rows()"),
    Mutant("turns are read before they are listed", *WALK, "team.sync();  // the turns", "// the turns"),
    Mutant("sums are read before they are there", *STATE, "team.sync();  // the sums", "// the sums"),
    Mutant("a step is made before it is known", *STATE, "team.sync();  // the step", "// the step"),
    Mutant("g is summed over before it is there", *STATE, "team.sync();  // g is", "// g is"),
    Mutant("a batch of turns is overwritten", *WALK, "__syncwarp();  // all lanes", "// all lanes"),
    Mutant("a batch ends one turn early", *WALK, "turns - first : kBatch", "turns - first : kBatch - 1"),
    Mutant("a turn pulls at another patch", *WALK, "turned < 0 || turned >= m()", "turned < 0"),
    Mutant("turns off the chip lie over another warp's", *STATE, "patches * neurons + k", "neurons + k"),
]


class Workshop:
    """Objects that no mutant changes, compiled once."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.csrc = folder / "csrc"
        shutil.copytree(CSRC, self.csrc)
        self.parts = {kernel: [*RUNTIME, f"tests/{kernel}_test.cpp", *OTHERS.get(kernel, [])] for kernel in KERNELS}
        every = sorted({part for parts in self.parts.values() for part in parts})
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = pool.map(lambda part: self.compile(self.csrc / part, self.csrc), every)
            self.objects = dict(zip(every, objects, strict=True))

    def compile(self, source: Path, csrc: Path) -> Path:
        target = source.with_suffix(".o")
        command = ["g++", *FLAGS, f"-I{csrc / 'simt'}", "-x", "c++", "-c", str(source), "-o", str(target)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        return target

    def run_test(self, kernel: str, mutant: Mutant | None) -> subprocess.CompletedProcess[str]:
        name = kernel if mutant is None else mutant.what.replace(" ", "_")
        csrc = self.folder / name / "csrc"
        for part in ("cuda", "simt", "model"):
            shutil.copytree(CSRC / part, csrc / part)
        if mutant is not None:
            changed = csrc / "cuda" / mutant.source
            text = changed.read_text()
            assert mutant.old in text, f"{mutant.source} no longer has {mutant.old!r}: update the mutant"
            changed.write_text(text.replace(mutant.old, mutant.new, 1))
        program = self.folder / name / "test"
        objects = [self.compile(csrc / "cuda" / f"{source}.cu", csrc) for source in KERNELS[kernel]]
        objects += [self.objects[part] for part in self.parts[kernel]]
        subprocess.run(["g++", *FLAGS, *map(str, objects), "-o", str(program)], check=True, capture_output=True)
        environment = {**os.environ, "BK_TEST_STOP_EARLY": "1"}
        return subprocess.run([str(program)], capture_output=True, text=True, timeout=300, env=environment)


def _has_sanitizers(folder: Path) -> bool:
    source = folder / "probe.cpp"
    source.write_text("int main() { return 0; }\n")
    command = ["g++", *FLAGS, str(source), "-o", str(folder / "probe")]
    return shutil.which("g++") is not None and subprocess.run(command, capture_output=True).returncode == 0


def test_every_mutant_is_caught(tmp_path: Path) -> None:
    if not _has_sanitizers(tmp_path):
        pytest.skip("needs g++ with AddressSanitizer and UBSan")
    workshop = Workshop(tmp_path / "original")
    # Where others are linked, the test is of a whole attack: a minute, which ctest spends on the original anyway.
    runs: list[tuple[str, Mutant | None]] = [(kernel, None) for kernel in KERNELS if kernel not in OTHERS]
    count = len(runs)
    runs += [(mutant.kernel, mutant) for mutant in MUTANTS]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda run: workshop.run_test(*run), runs))
    originals, mutants = results[:count], results[count:]
    for original in originals:
        assert original.returncode == 0, original.stdout + original.stderr
    survivors = [m.what for m, result in zip(MUTANTS, mutants, strict=True) if result.returncode == 0]
    assert not survivors, f"not caught: {survivors}"
