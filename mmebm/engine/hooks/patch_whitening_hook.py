"""Initialises a patch embedding such that it whitens patches."""

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce, broadcast
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmebm.checkpoint import loads_weights
from mmebm.engine.dry_run import idle_in_dry_runs
from mmebm.model_building import unwrapped
from mmebm.registry import HOOKS


@HOOKS.register_module()
@idle_in_dry_runs
class PatchWhiteningHook(Hook):
    """Initialise the patch embedding so that it whitens patches, by the covariance of patches of the first batch.

    Neighbouring pixels are highly correlated, so a patch's mean colour dominates its variance and the output of a
    random embedding. Whitened, all patterns have about the same variance, which the embedding need not learn first. In
    terms of energy: half the squared norm of the embedding's output is, up to a factor and the floor, the energy of the
    Gaussian fitted to the patches.

    It changes only initial weights: not the architecture, not a resumed run, and no weights loaded from a file
    (``load_from``, ``Pretrained``). It works with any model whose ``backbone.patch_embed.projection`` is a convolution,
    such as mmpretrain's ViTs in MAE, SimMIM, BEiT or a classifier. Of a corrupted pair it reads the clean images, of
    other views the first; with several processes, the batches of all.

    Measurements before the first iteration, such as ``FrozenFeatureHook``'s first, see the weights before whitening.

    Args:
        floor: Above 0, else ValueError; added to variances of normalised pixels: directions below it stay attenuated.
    """

    priority = 'VERY_HIGH'  # before other hooks of the first iteration read the weights

    def __init__(self, floor: float = 0.01) -> None:
        if not floor > 0:
            raise ValueError(f'PatchWhiteningHook: floor must be positive, not {floor}')
        self.floor = floor

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Set the embedding before the first iteration of a run from initial weights.

        Raises:
            TypeError: The backbone has no such embedding.
        """
        if runner.iter > 0:
            return
        model = unwrapped(runner.model)
        if runner._load_from is not None or loads_weights(model) or loads_weights(model.backbone):
            runner.logger.info('The patch embedding is not whitened: its weights were loaded.')
            return
        projection = getattr(getattr(model.backbone, 'patch_embed', None), 'projection', None)
        if not isinstance(projection, nn.Conv2d) or projection.groups > 1:
            raise TypeError(
                f'PatchWhiteningHook: {type(model.backbone).__name__} has no convolution patch_embed.projection; leave '
                'the hook out of custom_hooks'
            )
        images = model.data_preprocessor(data_batch, False)['inputs']  # without mixup and the like
        clean = getattr(model, 'num_inputs', 1) - 1  # restoration's pairs are [corrupted, clean]
        whiten(projection, images if isinstance(images, Tensor) else images[clean], self.floor)
        runner.logger.info('The patch embedding is initialised by whitening patches of the first batch.')


@torch.no_grad()
def whiten(projection: nn.Conv2d, images: Tensor, floor: float) -> None:
    """Set a patch embedding W, b to W = c R (S + floor)^(-1/2) U^T and b = -W m.

    m and U S U^T are mean and covariance of the patches; at most D principal directions are kept, for D output
    channels. R has orthonormal columns: the Q factor of the initial weights times U. The factor c keeps the mean
    variance of the embedding's output as with the initial weights.

    Args:
        projection: The convolution, with or without bias.
        images: Normalised images (N, C, H, W) of this process; statistics are over all processes.
        floor: Added to the variances S.

    Raises:
        ValueError: All patches are equal.
    """
    patches = F.unfold(images.double(), projection.kernel_size, stride=projection.stride)
    patches = patches.transpose(1, 2).flatten(0, 1)  # (N L, C p p)
    moments = torch.cat([patches.new_tensor([len(patches)]), patches.sum(dim=0), (patches.T @ patches).flatten()])
    all_reduce(moments)
    number, total, products = moments.split([1, patches.shape[1], patches.shape[1] ** 2])
    mean = total / number
    covariance = products.view(len(mean), len(mean)) / number - torch.outer(mean, mean)
    if not covariance.trace() > 1e-9:  # rounding leaves more than 0
        raise ValueError('patches cannot be whitened: in the first batch all of them are equal')
    variances, directions = torch.linalg.eigh(covariance)
    initial = projection.weight.flatten(1).double()  # (D, C p p)
    kept = slice(-min(initial.shape), None)  # eigenvalues ascend
    variances, directions = variances[kept].clamp(min=0), directions[:, kept]
    rotation = torch.linalg.qr(initial @ directions).Q
    weight = rotation @ ((variances + floor).rsqrt().unsqueeze(1) * directions.T)
    weight *= (_variance(initial, covariance) / _variance(weight, covariance)).sqrt()
    projection.weight.copy_(weight.view_as(projection.weight))
    if projection.bias is not None:
        projection.bias.copy_(-weight @ mean)
    for parameter in projection.parameters():  # on other hardware, directions may differ in the last digits
        broadcast(parameter.data)


def _variance(weight: Tensor, covariance: Tensor) -> Tensor:
    """Total variance of W x, given the covariance of x."""
    return ((weight @ covariance) * weight).sum()
