"""What pretraining by restoration refuses on a first batch: it differentiates through a gradient.

Engines that shard the parameters gather and free them in hooks, which count on one backward pass a step: with two,
weights get no gradient or never move, and mostly there is no error. ``docs/engines.md`` says what was tried.
"""

from torch import nn
from torch.distributed.tensor import DTensor

ALTERNATIVES = (
    "train with DistributedDataParallel; to save memory there, add optimizer=dict(type='ZeroRedundancyOptimizer', "
    "optimizer_type='AdamW', ...), optim_wrapper.accumulative_counts, model.training_step.micro_batch or "
    'model.training_step.low_memory=True (see docs/engines.md). Evaluation and fine-tuning are not restricted'
)
COMPILE_INSTEAD = (
    "mmengine's compile would differentiate a compiled step twice, which torch cannot; use "
    'model.training_step.compile=True instead (--cfg-options model.training_step.compile=True), which compiles the '
    'inner gradient too'
)


def check_engine(model: nn.Module) -> None:
    """Refuse a model that an engine has sharded or mmengine has compiled.

    Raises:
        ValueError: Says why, and what to use instead.
    """
    if 'train_step' in vars(model):  # where mmengine puts the compiled one; of a wrapped model, in the wrapper
        raise ValueError(f'compile: {COMPILE_INSTEAD}')
    for module in model.modules():
        if getattr(module, '_is_fsdp_managed_module', False):  # by FSDP 1 and 2, for the compiler; no public sign
            raise ValueError(refusal('FSDP'))
    for parameter in model.parameters():
        if hasattr(parameter, 'ds_id'):
            raise ValueError(refusal('DeepSpeed ZeRO-3'))
        if isinstance(parameter, DTensor):
            raise ValueError(refusal('Tensor parallelism'))


def check_twice_differentiable(model: nn.Module) -> None:
    """Refuse layers whose double backward is missing.

    Raises:
        ValueError: Names the layer, why, and what to do.
    """
    for name, module in model.named_modules():
        if type(module).__name__ == 'SyncBatchNorm':  # torch's, and mmcv's of the same name
            raise ValueError(f'{name}: SyncBN has no double backward; use BN, GN or LN in its place')
        if getattr(module, 'with_cp', False):
            raise ValueError(f'{name}: with_cp=True checkpoints re-entrantly, which has no double backward; unset it')


def refusal(engine: str) -> str:
    """Why an engine is refused, and what to use instead."""
    return f'{engine} cannot pretrain by restoration, which differentiates twice; {ALTERNATIVES}'
