"""The tests of the emulated kernels catch what they are for: each mutant of a real kernel fails.

Every mutant replaces one piece of text in one source, is compiled with the sanitizers, and runs the test of its kernel.
"""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE

import pytest

pytestmark = pytest.mark.slow  # a minute of compiling
CSRC = Path(__file__).parents[1] / "csrc"
# -O0: a mutant takes longer to compile than to be caught.
FLAGS = ["-std=c++17", "-O0", "-w", "-fsanitize=address,alignment", "-fno-sanitize-recover=alignment"]
LINK_FLAGS = ["-fsanitize=address,undefined"]  # what the mutants are linked with has both


@dataclass(frozen=True)
class Mutant:
    what: str
    kernel: str  # a key of KERNELS
    source: str  # the file of csrc/cuda that changes
    old: str
    new: str


# The test of csrc/tests, and the source of csrc/cuda that is compiled anew for mutants of its headers.
KERNELS = {
    "pgd_step": ("pgd_step_test", "pgd_step"),
    "product": ("product_test", "product"),
    "hidden": ("hidden_test", "hidden_float64"),
    "hidden_float": ("hidden_test", "hidden_float32"),
    "gram_walk": ("gram_test", "gram_walk"),
    "gram_steps": ("gram_test", "gram_steps_float64"),
}
TEAM, TILE, PRODUCT = ("pgd_step", "team.cuh"), ("product", "tile.cuh"), ("product", "product.cu")
MULTIPLY, PLAIN, SPLIT = (("product", f"{name}.cuh") for name in ("multiply", "plain_panels", "split_panels"))
HIDDEN, OPERANDS = ("hidden", "hidden_kernel.cuh"), ("product", "library_operands.cu")
WALK, STATE = ("gram_walk", "gram_walk.cu"), ("gram_walk", "gram_state.cuh")
STEPS, RESUMED = ("gram_steps", "gram_steps.cuh"), ("gram_steps", "gram_state.cuh")
MUTANTS = [
    Mutant("a reduction reads before its barrier", *TEAM, "__syncthreads();\n      V total", "V total"),
    Mutant("a reduction is overtaken by the next", *TEAM, "__syncthreads();  // the next", "// the next"),
    Mutant("a shuffle's mask is half a warp", *TEAM, "__shfl_xor_sync(kFullWarp", "__shfl_xor_sync(0xffffu"),
    Mutant("a shuffle leaves out its first round", *TEAM, "kWarp / 2; distance", "kWarp / 4; distance"),
    Mutant("a shuffle reads the wrong lane", *TEAM, "distance /= 2", "distance -= 3"),
    Mutant("a row is read one too far", *TEAM, "i < count", "i <= count"),
    Mutant("a row begins one too late", *TEAM, "int64_t i = lane();", "int64_t i = lane() + 1;"),
    Mutant("a panel is read before its barrier", *MULTIPLY, "store(0);\n  __syncthreads();", "store(0);"),
    Mutant("a panel is overwritten before its barrier", *MULTIPLY, "    __syncthreads();\n  }\n", "  }\n"),
    Mutant("a panel is stored where another is read", *MULTIPLY, "panels[panel % 2].left);", "panels[0].left);"),
    Mutant("a tile is staged before its barrier", *MULTIPLY, "if (kAcross > 1) __syncthreads();", ""),
    Mutant("a tile outside the layer is summed", "hidden_float", "multiply.cuh", "place.row() >= rows || ", ""),
    Mutant("a panel is read one too deep", *PLAIN, "term < kDepth", "term <= kDepth"),
    Mutant("a tile is read before its barrier", *SPLIT, "    __syncthreads();\n#pragma", "#pragma"),
    Mutant("a piece of a number is forgotten", *SPLIT, "value.v[2 * half] -= widen", "widen"),
    Mutant(
        "the last rows are left out", *SPLIT, "ceil_div(rows - row(0), LeftFragment::kLines)", "(rows - row(0)) / 16"
    ),
    Mutant("all warps stage all tiles", *SPLIT, "row(0) / kTile == tile_row_of_side", "true"),
    Mutant("the smallest products are left out", *SPLIT, "order = kPieces - 1", "order = kPieces - 2"),
    Mutant("the precision is not heard", "product", "precision.h", "precision == Precision::tf32", "false"),
    Mutant("warps share their columns", *SPLIT, "% kWarpsAcross", "% (kWarpsAcross - 1)"),
    Mutant("an operand is read one line too far", *TILE, "Mine::line(i) < lines", "Mine::line(i) <= lines"),
    Mutant("an operand is read one term too far", *TILE, "left > term ?", "left >= term ?"),
    Mutant("quads are read where they are not aligned", *TILE, "% alignof(Quad<E>) == 0", "% sizeof(E) == 0"),
    Mutant("half a fragment is read twice", "product", "fragment.cuh", "lane / 16 * 2", "0"),
    Mutant("a result is written one row too far", *PRODUCT, "row + i < product.rows", "row + i <= product.rows"),
    Mutant("parts are summed before their barrier", *PRODUCT, "__syncthreads();\n", "\n"),
    Mutant(
        "a mirrored tile is read before its barrier",
        *PRODUCT,
        "__syncthreads();\n    const int along",
        "const int along",
    ),
    Mutant("both halves of a tile on the diagonal are made", *PRODUCT, "mirrored_row < mirrored", "-1 < mirrored"),
    Mutant("tiles below the diagonal are counted wrong", *PRODUCT, "q - tiles % 2", "q"),
    Mutant("a library is given its left operand turned", *PRODUCT, "kLeftTerms ? left.stride :", "kLeftTerms ? 1 :"),
    Mutant("a library is not told to add", *PRODUCT, "product.accumulate,\n  };", "false,\n  };"),
    Mutant("the scale of a library's product is forgotten", *PRODUCT, "product.right.scale == nullptr", "true"),
    Mutant("panels for a library are not summed", *PRODUCT, "first > 0", "false"),
    Mutant("a number is scaled too many", *OPERANDS, "kThreads < size", "kThreads <= size"),
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
    Mutant("the best iterate is kept", *STEPS, "margin < saved.least", "margin > saved.least"),
    Mutant("V follows U and not its change", *STEPS, "turned - U[i]", "turned"),
    Mutant("the scale of G is forgotten", *STEPS, "scale * by", "by"),
    Mutant("a step forgets how far it has shrunk", *RESUMED, "state.shrink = saved.shrink", "state.shrink = 1"),
    Mutant("a step forgets the start", *RESUMED, "start_norm = saved.start_norm", "start_norm = 0"),
    Mutant("turns off the chip lie over another warp's", *STATE, "patches * neurons + k", "neurons + k"),
]


def build(csrc: Path, folder: Path) -> None:
    """Everything that no mutant changes, by CMake; that the originals pass, ctest sees."""
    targets = [f"--target={test}" for test in dict(KERNELS.values())]
    subprocess.run(
        ["cmake", "-S", str(csrc.parent), "-B", str(folder), "-DBENIGN_KERNELS_LIBRARY=OFF"], check=True, stdout=PIPE
    )
    subprocess.run(["cmake", "--build", str(folder), f"-j{os.cpu_count()}", *targets], check=True, stdout=PIPE)


def is_caught(mutant: Mutant, built: Path, folder: Path) -> bool:
    csrc = folder / mutant.what.replace(" ", "_") / "csrc"
    for part in ("cuda", "simt", "model"):
        shutil.copytree(CSRC / part, csrc / part)
    changed = csrc / "cuda" / mutant.source
    text = changed.read_text()
    assert mutant.old in text, f"{mutant.source} no longer has {mutant.old!r}: update the mutant"
    changed.write_text(text.replace(mutant.old, mutant.new, 1))
    test, compiled = KERNELS[mutant.kernel]
    source = changed if changed.suffix == ".cu" else csrc / "cuda" / f"{compiled}.cu"
    # The linker takes from the library what the mutant does not have.
    objects = [source.with_suffix(".o"), built / f"CMakeFiles/{test}.dir/{test}.cpp.o", built / "libemulated_kernels.a"]
    compile_source = ["g++", *FLAGS, f"-I{csrc / 'simt'}", "-x", "c++", "-c", str(source), "-o", str(objects[0])]
    program = folder / mutant.what.replace(" ", "_") / "test"
    for command in (compile_source, ["g++", *LINK_FLAGS, *map(str, objects), "-o", str(program)]):
        subprocess.run(command, check=True, capture_output=True, text=True)
    environment = {**os.environ, "BK_TEST_STOP_EARLY": "1"}
    return subprocess.run([str(program)], capture_output=True, timeout=300, env=environment).returncode != 0


@pytest.mark.skipif(shutil.which("cmake") is None or shutil.which("g++") is None, reason="needs CMake and g++")
def test_every_mutant_is_caught(tmp_path: Path) -> None:
    built = CSRC.parent / "build" / "cmake"
    build(CSRC, built)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        caught = list(pool.map(lambda mutant: is_caught(mutant, built / "csrc" / "tests", tmp_path), MUTANTS))
    survivors = [mutant.what for mutant, seen in zip(MUTANTS, caught, strict=True) if not seen]
    assert not survivors, f"not caught: {survivors}"
