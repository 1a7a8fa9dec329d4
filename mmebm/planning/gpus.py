"""GPUs that a run can be planned for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GPU:
    """A kind of GPU.

    Attributes:
        name: Words of the name that its driver gives.
        memory: GiB. Data sheets say GB, and drivers then show about as many GiB.
        matrix_rate: TFLOP/s in bfloat16 without sparsity; half of what data sheets give with it.
    """

    name: str
    memory: float
    matrix_rate: float


# From the makers' data sheets and, for the RTX 4090, NVIDIA's white paper on the Ada architecture.
GPUS = {
    'a100-40': GPU('A100-SXM4-40GB', 40, 312),
    'a100-80': GPU('A100-SXM4-80GB', 80, 312),
    'h100': GPU('H100 80GB', 80, 989),
    'h200': GPU('H200', 141, 989),
    'b200': GPU('B200', 180, 2250),
    'l4': GPU('L4', 24, 121),
    'l40s': GPU('L40S', 48, 362),
    'rtx4090': GPU('RTX 4090', 24, 165),
    'mi300x': GPU('MI300X', 192, 1307),
}
