"""What a training step costs, found without a device and without data: the step runs on tensors that have no storage.

torch's MemTracker and FlopCounterMode would do the counting, but they hook the modules, and these hooks fail where a
loss calls ``torch.autograd.grad``. ``OpCounter`` counts the same things at the operators.
"""

import copy
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict
from mmengine.optim import build_optim_wrapper
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakIdKeyDictionary

from mmebm.model_building import build, complete_model_config, type_name
from mmebm.models.selfsup.base import BaseRestorer
from mmebm.planning.config_facts import step_options
from mmebm.training_step import trainable

aten = torch.ops.aten

# Bytes, the grain of torch's allocator on a GPU.
ALLOCATION_UNIT = 512

# The fused attention of the CPU has none of its own.
FLOP_FORMULAS = flop_registry | {
    aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[aten._scaled_dot_product_flash_attention],
    aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        aten._scaled_dot_product_flash_attention_backward
    ],
}


class StepCost(NamedTuple):
    """Cost of a training step on one device. Memory is in bytes, FLOPs count a multiplication and an addition as two.

    Attributes:
        parameters: Of the model.
        trained: Those of them that are not frozen.
        flops_per_image: Forward pass, inner gradient and the backward pass through both; matrix products alone.
        weights: Memory of parameters and buffers.
        gradients: Of the trained parameters.
        optimizer_states: All of them, as if nothing were sharded.
        peak: All memory at the moment when there is most.
        can_be_split: Whether a batch may be computed in parts or recomputed: not where batch normalisation would see
            other images, nor with a ``restored_share`` below 1.
    """

    parameters: int
    trained: int
    flops_per_image: float
    weights: int
    gradients: int
    optimizer_states: int
    peak: int
    can_be_split: bool


def step_cost(cfg: Config, image_size: tuple[int, int], precision: torch.dtype, on_gpu: bool) -> StepCost:
    """Cost of a training step of a config, optimiser included.

    Args:
        cfg: The config of a run.
        image_size: Height and width of the images in pixels.
        precision: float32, or the type of autocast.
        on_gpu: Whether autocast and optimiser do as on a GPU.

    Raises:
        TypeError: The config's model is none of ours.
    """
    dry_run = DryRun(cfg, image_size, precision, on_gpu)
    batch_size, micro_batch = cfg.train_dataloader.batch_size, step_options(cfg).get('micro_batch')
    if micro_batch is None or batch_size <= 3 * micro_batch:
        flops, peak = dry_run.step(batch_size)
    else:  # From the second part on, each adds its images alone.
        _, peak_of_two = dry_run.step(2 * micro_batch)
        flops, peak_of_three = dry_run.step(3 * micro_batch)
        peak = peak_of_two + round((batch_size / micro_batch - 2) * (peak_of_three - peak_of_two))
        batch_size = 3 * micro_batch
    model = dry_run.model
    return StepCost(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trained=sum(parameter.numel() for parameter in trainable(model)),
        flops_per_image=flops / batch_size,
        weights=dry_run.weights,
        gradients=dry_run.gradients,
        optimizer_states=dry_run.optimizer_states,
        peak=peak,
        can_be_split=can_be_split(model),
    )


def can_be_split(model: nn.Module) -> bool:
    """Whether a batch may be computed in parts or recomputed; see ``StepCost``."""
    has_batch_norm = any(isinstance(module, _BatchNorm) for module in model.modules())
    return hasattr(model, 'training_step') and getattr(model, 'restored_share', 1) == 1 and not has_batch_norm


class DryRun:
    """A config's model and optimiser on fake tensors, with which training steps can be run.

    Args:
        cfg: As in ``step_cost``.
        image_size: As in ``step_cost``.
        precision: As in ``step_cost``.
        on_gpu: As in ``step_cost``.
    """

    def __init__(self, cfg: Config, image_size: tuple[int, int], precision: torch.dtype, on_gpu: bool) -> None:
        self.image_size = image_size
        self.precision = precision
        self.on_gpu = on_gpu
        self.keeps_gradients = cfg.optim_wrapper.get('accumulative_counts', 1) > 1
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.counter = OpCounter()
        self.model = build_model(cfg)
        convolutions = (module for module in self.model.backbone.modules() if isinstance(module, nn.Conv2d))
        self.channels = next((convolution.in_channels for convolution in convolutions), 3)
        with self.fake, self.counter:
            self.model.to_empty(device='cpu')
            self.weights = self.counter.now
            self.optimizer = build_optimizer(self.model, cfg.optim_wrapper, on_gpu)
            for parameter in trainable(self.model):
                parameter.grad = torch.zeros_like(parameter)
            self.gradients = self.counter.now - self.weights
        self._update()
        self.optimizer_states = self.counter.now - self.weights - self.gradients

    def step(self, batch_size: int) -> tuple[int, int]:
        """FLOPs of a training step, and the peak of the memory in it."""
        if not self.keeps_gradients:
            self.optimizer.zero_grad()
        self.counter.flops, self.counter.peak = 0, self.counter.now
        with self.fake, self.counter:
            inputs = list(torch.empty(self.model.num_inputs, batch_size, self.channels, *self.image_size).unbind())
            with self._autocast():
                losses = self.model.loss(inputs)
            sum(value for name, value in losses.items() if 'loss' in name).backward()
            del losses, inputs
        self._update()
        return self.counter.flops, self.counter.peak

    def _update(self) -> None:
        with self.counter:  # the optimiser's own counters are real
            self.optimizer.step()

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        # Autograd on fake tensors of a GPU needs one, so everything is on the CPU.
        enabled = self.precision != torch.float32
        with torch.autocast('cpu', dtype=self.precision if enabled else None, enabled=enabled):
            if not (enabled and self.on_gpu):
                yield
                return
            with GPUAutocast():
                yield


class OpCounter(TorchDispatchMode):
    """Counts FLOPs, and the memory of the tensors that operators make, as long as their storage lives.

    Attributes:
        flops: So far.
        now: Bytes alive.
        peak: The most that there were at a time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.now = self.peak = 0
        self._sizes = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        results = func(*args, **kwargs)
        formula = FLOP_FORMULAS.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=results)
        for result in tree_leaves(results):
            if isinstance(result, Tensor):
                self._add(result.untyped_storage())
        return results

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage in self._sizes:
            return
        size = -(-storage.nbytes() // ALLOCATION_UNIT) * ALLOCATION_UNIT
        self._sizes[storage] = size
        weakref.finalize(storage, self._free, size).atexit = False
        self.now += size
        self.peak = max(self.peak, self.now)

    def _free(self, size: int) -> None:
        self.now -= size


# What autocast computes in float32 on a GPU and not on a CPU, of that which networks are made of.
# https://docs.pytorch.org/docs/stable/amp.html#autocast-op-reference
FLOAT32_ON_GPU = {
    F.layer_norm,
    F.group_norm,
    F.softmax,
    torch.softmax,
    Tensor.softmax,
    F.log_softmax,
    torch.sum,
    Tensor.sum,
    torch.pow,
    Tensor.pow,
    torch.rsqrt,
    torch.exp,
}


class GPUAutocast(TorchFunctionMode):
    """Context in which the CPU's autocast takes float32 where a GPU's does."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in FLOAT32_ON_GPU and torch.is_autocast_enabled('cpu'):
            args = tree_map_only(Tensor, lambda x: x.float() if x.is_floating_point() else x, args)
        return func(*args, **(kwargs or {}))


def build_model(cfg: Config) -> BaseRestorer:
    """A config's model, in training mode, as it is after its first batch; eager where the config says ``compile``.

    Raises:
        TypeError: It is none of ours.
    """
    model_cfg = complete_model_config(cfg)
    (model_cfg.get('training_step') or {}).pop('compile', None)
    model = build(model_cfg, cfg.get('default_scope'))
    if not isinstance(model, BaseRestorer):
        raise TypeError(
            f"only models of type 'mmebm.EBMAlgorithm', 'mmebm.PatchEBM' or 'mmebm.CIM' can be planned, not "
            f'{cfg.model.type!r}'
        )
    model._is_first_batch = False  # which looks at values
    return model.train()


def build_optimizer(model: nn.Module, cfg: ConfigDict, on_gpu: bool) -> Optimizer:
    """The optimiser of an ``optim_wrapper`` config, unsharded."""
    optimizer_cfg = copy.deepcopy(cfg.optimizer)
    if is_sharded(cfg):
        optimizer_cfg.type = optimizer_cfg.pop('optimizer_type')
    others = {name: cfg[name] for name in ('constructor', 'paramwise_cfg') if name in cfg}
    optimizer = build_optim_wrapper(model, dict(type='OptimWrapper', optimizer=optimizer_cfg, **others)).optimizer
    for group in optimizer.param_groups:
        if on_gpu and group.get('foreach', True) is None and not group.get('fused'):
            group['foreach'] = True  # torch's choice there: faster, at the price of a temporary as large as the weights
    return optimizer


def is_sharded(optim_wrapper: ConfigDict) -> bool:
    """Whether the states of the optimiser are split over the devices."""
    return type_name(optim_wrapper.optimizer) == 'ZeroRedundancyOptimizer'
