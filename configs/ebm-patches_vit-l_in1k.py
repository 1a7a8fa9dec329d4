"""ViT-L/16 on ImageNet-1k, restoring contents of masked and positions of position-dropped patches.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  tools/dist_train.sh configs/ebm-patches_vit-l_in1k.py 8
Hardware: 8 GPUs, 256 images each, two steps accumulated to a batch of 4096
Time:     not run
Expect:   not run
"""

_base_ = './ebm-patches_vit-b_in1k.py'

model = dict(backbone=dict(arch='large'), head=dict(in_channels=1024, embed_dims=512, num_heads=16))
train_dataloader = dict(batch_size=256)
optim_wrapper = dict(accumulative_counts=2)
