"""GPUs that a run can be planned for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GPU:
    """A kind of GPU.

    Attributes:
        name: Words of the name that its driver gives.
        memory: GiB. Data sheets say GB, and drivers then show about as many GiB.
        matrix_rate: TFLOP/s in bfloat16 without sparsity; half of what data sheets give with it.
        float32_rate: TFLOP/s in float32, not TF32.
    """

    name: str
    memory: float
    matrix_rate: float
    float32_rate: float

    def rate(self, precision: str) -> float:
        """TFLOP/s in a precision: ``bf16``, ``fp16``, ``tf32``, which has half of their rate, or ``fp32``."""
        return {'tf32': self.matrix_rate / 2, 'fp32': self.float32_rate}.get(precision, self.matrix_rate)


# From the makers' data sheets and, for the RTX 4090, NVIDIA's white paper on the Ada architecture.
GPUS = {
    'a100-40': GPU('A100-SXM4-40GB', 40, 312, 19.5),
    'a100-80': GPU('A100-SXM4-80GB', 80, 312, 19.5),
    'h100': GPU('H100 80GB', 80, 989, 67),
    'h200': GPU('H200', 141, 989, 67),
    'b200': GPU('B200', 180, 2250, 75),
    'l4': GPU('L4', 24, 121, 30.3),
    'l40s': GPU('L40S', 48, 362, 91.6),
    'rtx4090': GPU('RTX 4090', 24, 165, 82.6),
    'mi300x': GPU('MI300X', 192, 1307, 163.4),
}
