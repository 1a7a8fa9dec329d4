"""Checks of options, and on the first batch: pretraining by restoration differentiates through a gradient.

Engines that shard the parameters gather and free them in hooks that assume one backward pass per step: with two,
weights get no gradient or are not updated, mostly without an error. ``docs/engines.md`` lists what was tried.
"""

from collections.abc import Mapping
from inspect import signature

from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm
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


def has_token_energies(head: nn.Module) -> bool:
    """Whether a head has an energy for each token of one stage."""
    is_of_tokens = getattr(head, 'over', None) == 'tokens' and len(getattr(head, 'energies', ())) == 1
    return is_of_tokens and returns_parts(head)


def returns_parts(head: nn.Module) -> bool:
    """Whether a head can be called with ``in_parts=True``; a subclass with a ``forward`` of its own may not."""
    return 'in_parts' in signature(head.forward).parameters


def check_losses_of_energies(model: nn.Module) -> None:
    """Reject an ``EBMAlgorithm`` whose head has not the energies that its losses need.

    Raises:
        ValueError: It has not; the message names the option and the head.
    """
    head = model.head
    for dropping in ('position_dropping', 'content_dropping'):
        if getattr(model, dropping) and not returns_parts(head):
            raise ValueError(
                f'EBMAlgorithm: {dropping} needs a head whose forward takes in_parts=True, such as EnergyHead, '
                f'which that of {type(head).__name__} does not'
            )
    if model.content_dropping and not model.token_dropping:
        raise ValueError(
            'EBMAlgorithm: content_dropping restores patches that are not read, so it needs token_dropping, such as '
            'dict(patch_size=16, visible=0.5, corrupted=0.25)'
        )
    if model.token_nce_weight and not has_token_energies(head):
        raise ValueError(
            "EBMAlgorithm: token_nce_weight needs a head with an energy for each token of one stage: over='tokens' and "
            'a single number as in_channels'
        )
    weights = [name for name in ('nce_weight', 'token_nce_weight') if getattr(model, name)]
    if weights and getattr(head, 'is_nonnegative', False):
        raise ValueError(
            f'EBMAlgorithm: {weights[0]} takes energies as logits, which those of ResidualEnergyHead and of '
            "kind='quadratic' cannot be, as they are never negative; use EnergyHead with kind='mlp' or 'linear'"
        )


def check_restored_share(model: nn.Module, training_step: Mapping) -> None:
    """Reject a ``restored_share`` of an ``EBMAlgorithm`` that cannot be, or not with its other options.

    Raises:
        ValueError: It cannot; the message names the other option.
    """
    share = model.restored_share
    if not (isinstance(share, (int, float)) and 0 < share <= 1):
        raise ValueError(f'EBMAlgorithm: restored_share must be above 0 and at most 1, not {share!r}')
    if share == 1:
        return
    problem = f'EBMAlgorithm: restored_share={share}'
    if not (model.nce_weight or model.token_nce_weight or model.droppings):
        raise ValueError(
            f'{problem}: the other images train nothing; set nce_weight, token_nce_weight, position_dropping or '
            'content_dropping'
        )
    # Their losses would be added up and differentiated within the step, where those of the other images are not.
    if model.num_steps > 1 or training_step.get('micro_batch') or training_step.get('low_memory'):
        raise ValueError(f'{problem} excludes num_steps above 1, micro_batch and low_memory; leave it at 1')
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise ValueError(f'{problem}: batch normalisation would see a batch in two parts; use GN or LN')


def check_low_memory(model: nn.Module) -> None:
    """Reject ``low_memory`` with options of an ``EBMAlgorithm`` that it cannot be used with.

    Raises:
        ValueError: There is one; the message names it.
    """
    if not model.training_step.low_memory:
        return
    if model.nce_weight or model.token_nce_weight:
        raise ValueError(
            'EBMAlgorithm: low_memory=True excludes nce_weight and token_nce_weight, since it differentiates no '
            'energy; use micro_batch'
        )
    if model.content_dropping:
        raise ValueError(
            'EBMAlgorithm: low_memory=True excludes content_dropping, whose tokens pass through parts of the blocks; '
            'use micro_batch'
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
