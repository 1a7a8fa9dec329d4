"""A patch embedding that is initialised to whiten patches."""

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce, broadcast
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmebm.checkpoint import loads_weights
from mmebm.model_building import unwrapped
from mmebm.registry import HOOKS


@HOOKS.register_module()
class PatchWhiteningHook(Hook):
    """Begin a training with a patch embedding that whitens patches, by the covariance of those of the first batch.

    Neighbouring pixels are much alike, so that nearly all of a patch's variance is its mean colour, and so is what a
    random embedding tells of it. Whitened, all patterns have about the same variance, and none has to be learned first.
    In terms of energy: half the squared length of what the embedding gives is, up to a factor and to the floor, the
    energy of the Gaussian that fits the patches.

    It changes initial weights alone: not the network, not a run that is resumed, nor weights that were loaded from a
    file (``load_from``, ``Pretrained``). It works with any model whose ``backbone.patch_embed.projection`` is a
    convolution, such as mmpretrain's ViTs in MAE, SimMIM, BEiT or a classifier. Of a
    corrupted pair, the clean images are read, of other views the first; with several processes, the batches of all.

    What is measured before the first iteration, as ``FrozenFeatureHook``'s first point, is of the initial weights.

    Args:
        floor: Added to all variances, those of normalised pixels: directions of less variance remain faint.
    """

    priority = 'VERY_HIGH'  # before the hooks of the first iteration look at the weights

    def __init__(self, floor: float = 0.01) -> None:
        if not floor > 0:
            raise ValueError(f'PatchWhiteningHook: floor must be positive, not {floor}')
        self.floor = floor

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Set the embedding, before the first iteration of a run from initial weights.

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
        clean = getattr(model, 'num_inputs', 1) - 1  # restoration's pairs are of corrupted and clean images
        whiten(projection, images if isinstance(images, Tensor) else images[clean], self.floor)
        runner.logger.info('The patch embedding begins with whitened patches of the first batch.')


@torch.no_grad()
def whiten(projection: nn.Conv2d, images: Tensor, floor: float) -> None:
    """Set a patch embedding W, b to W = c R (S + floor)^(-1/2) U^T and b = -W m.

    m and U S U^T are mean and covariance of the patches, of which as many principal directions are kept as there are
    channels. R, with orthonormal columns, is that of the QR decomposition of the initial weights times U. The factor c
    leaves the mean variance of what the embedding gives as it was with the initial weights.

    Args:
        projection: The convolution, with a bias or without.
        images: Normalised images (N, C, H, W) of this process; statistics are those of all processes.
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
    for parameter in projection.parameters():  # other hardware may find directions that differ in the last digits
        broadcast(parameter.data)


def _variance(weight: Tensor, covariance: Tensor) -> Tensor:
    """Summed variance of W x, given the covariance of x."""
    return ((weight @ covariance) * weight).sum()
