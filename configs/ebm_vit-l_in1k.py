"""ViT-L/16 on ImageNet-1k, for features: detects and restores shuffled patches, predicts positions and contents.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  tools/dist_train.sh configs/ebm_vit-l_in1k.py 8
Hardware: 8 GPUs, 64 images each, eight steps accumulated to a batch of 4096
Time:     not run
Expect:   not run
"""

_base_ = './ebm_vit-b_in1k.py'

model = dict(backbone=dict(arch='large'), head=dict(in_channels=1024))
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(accumulative_counts=8)
