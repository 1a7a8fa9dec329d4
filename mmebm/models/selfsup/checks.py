"""Checks on the first batch: pretraining by restoration differentiates through a gradient.

Engines that shard the parameters gather and free them in hooks that assume one backward pass per step: with two,
weights get no gradient or are not updated, mostly without an error. ``docs/engines.md`` lists what was tried.
"""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from mmebm.error_text import first_few

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
    """Reject a model that an engine has sharded or mmengine has compiled.

    Raises:
        ValueError: It is one; the message names the reason and alternatives.
    """
    if 'train_step' in vars(model):  # mmengine's compiled one; of a wrapped model, in the wrapper
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
    """Reject layers without a double backward.

    Raises:
        ValueError: There is one; the message names it, the reason and the remedy.
    """
    for name, module in model.named_modules():
        if type(module).__name__ == 'SyncBatchNorm':  # torch's, and mmcv's of the same name
            raise ValueError(f'{name}: SyncBN has no double backward; use BN, GN or LN in its place')
        if getattr(module, 'with_cp', False):
            raise ValueError(f'{name}: with_cp=True checkpoints re-entrantly, which has no double backward; unset it')


def check_reached(model: nn.Module, losses: Mapping[str, Tensor]) -> None:
    """Reject, under DistributedDataParallel, parameters that a first step's losses do not depend on.

    It would wait for their gradients, and stop at the second step with their numbers.

    Raises:
        ValueError: There are some; the message names them and the remedies.
    """
    # Set while its forward pass runs; there is no public way to ask.
    wrapper = getattr(DistributedDataParallel, '_active_ddp_module', None)
    if wrapper is None or wrapper.find_unused_parameters or wrapper.static_graph:
        return
    reached = _leaves(list(losses.values()))
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p not in reached]
    if missing:
        raise ValueError(
            f'{type(model).__name__}: distributed training would wait for gradients of {first_few(missing)}, which '
            "the losses do not depend on. Name them in the model's option `frozen`, let the backbone do without them "
            '(out_indices, final_norm), or set find_unused_parameters=True in the config'
        )


def _leaves(losses: list[Tensor]) -> set[Tensor]:
    """The tensors that losses depend on and that are not computed."""
    pending, seen = [loss.grad_fn for loss in losses], set()
    while pending:
        node = pending.pop()
        if node is not None and node not in seen:
            seen.add(node)
            pending += [parent for parent, _ in node.next_functions]
    return {node.variable for node in seen if hasattr(node, 'variable')}


def refusal(engine: str) -> str:
    """The message that an engine is not supported, with alternatives."""
    return f'{engine} cannot pretrain by restoration, which differentiates twice; {ALTERNATIVES}'
