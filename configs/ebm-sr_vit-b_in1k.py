"""ViT-B/16 on ImageNet-1k, restoring images of low resolution.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  tools/dist_train.sh configs/ebm-sr_vit-b_in1k.py 8
Hardware: 8 GPUs, 256 images each, two steps accumulated to a batch of 4096
Time:     not run
Expect:   not run
"""

_base_ = './ebm-mask_vit-b_in1k.py'

corruption = dict(type='mmebm.Downsample', factor=4, interpolation='bicubic')
_base_.train_dataloader.dataset.pipeline[-2].corruption = corruption
_base_.test_dataloader.dataset.pipeline[-2].corruption = dict(**corruption, seed=0)
