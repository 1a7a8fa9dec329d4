"""MAE with a small ViT of 12 blocks at 32 pixels.

Paper:    MAE, arXiv 2111.06377
Command:  tools/train.py configs/peers/mae_vit-w128-d12_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/, in it one folder a class
Hardware: 1 GPU, or some CPU cores
Time:     16 epochs of 5,000 images: 8 minutes on one CPU core
Expect:   after these, on CIFAR-10, learning rate 2e-3, two seeds: linear probe 52.6%, kNN 36.4%, fine-tuned 57.5%
          (docs/recipe.md)
"""

_base_ = './mae_vit-w128_32px.py'

# The blocks begin as those of the others; Xavier, which MAE's own config has for all layers, is left to the decoder.
model = dict(
    backbone=dict(arch=dict(num_layers=12)),
    neck=dict(init_cfg=_base_.model.init_cfg),
    init_cfg=None,
)
optim_wrapper = dict(clip_grad=dict(max_norm=3.0))
