"""ResNet-50 on ImageNet-1k, restoring masked images.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  tools/dist_train.sh configs/ebm_resnet50_in1k.py 8
Hardware: 8 GPUs, 256 images each, two steps accumulated to a batch of 4096
Time:     not run
Expect:   not run

Batch normalisation couples the images of a training batch, so energies are independent per image only in evaluation. It
is kept because the downstream configs of ResNet-50 load it. The energy must not be linear: with ReLU, the gradient of a
linear energy does not depend on the network's biases. The running statistics are replaced by those of clean images,
since downstream tasks use clean images.
"""

_base_ = './ebm-mask_vit-b_in1k.py'

model = dict(
    backbone=dict(_delete_=True, type='ResNet', depth=50),
    head=dict(in_channels=2048),
)

# A mask unit is one position of the last stage, as in SimMIM.
corruption = dict(type='mmebm.PatchMask', ratio=0.6, patch_size=32)
_base_.train_dataloader.dataset.pipeline[-2].corruption = corruption
_base_.test_dataloader.dataset.pipeline[-2].corruption = dict(**corruption, seed=0)
custom_hooks = [*_base_.custom_hooks, dict(type='mmebm.CleanBatchNormHook')]
