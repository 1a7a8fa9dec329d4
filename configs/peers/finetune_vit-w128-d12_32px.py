"""Fine-tuning of a small ViT of 12 blocks at 32 pixels.

Paper:    the recipe is MAE's, arXiv 2111.06377, with weaker settings for a small network
Command:  python tools/train.py configs/peers/finetune_vit-w128-d12_32px.py --cfg-options data_root=FOLDER
          model.backbone.init_cfg.checkpoint=FILE; from random weights: model.backbone.init_cfg=None
          FOLDER holds train/ and test/, each with one folder per class
Hardware: 1 GPU, or some CPU cores
Time:     not run in full
Expect:   not run in full
"""

_base_ = './finetune_vit-w128_32px.py'

checkpoint = 'work_dirs/ebm-patches_vit-w128-d12_32px/epoch_30.pth'
model = dict(backbone=dict(arch=dict(num_layers=12), init_cfg=dict(checkpoint=checkpoint)))
