class Plan:
    @property
    def algorithm(self) -> str: ...
    @property
    def flops(self) -> float: ...
    @property
    def bytes(self) -> float: ...
    @property
    def reason(self) -> str: ...

class BuildInfo:
    @property
    def torch_target(self) -> str: ...
    @property
    def torch_built(self) -> str: ...
    @property
    def nvcc(self) -> str: ...
    @property
    def architectures(self) -> list[str]: ...
    @property
    def simd_levels(self) -> list[str]: ...
    @property
    def compiler(self) -> str: ...
    @property
    def revision(self) -> str: ...

def plan(
    *,
    n: int,
    d: int,
    m: int,
    patches: int,
    heads: int,
    steps: int,
    networks: int,
    piecewise_linear: bool,
    item_size: int,
    cuda: bool,
    l2: bool,
    box: bool,
    trajectory: bool,
    start: bool,
    gram: bool,
    need_x: bool,
    algorithm: str,
) -> Plan: ...
def available_algorithms() -> list[str]: ...
def build_info() -> BuildInfo: ...
