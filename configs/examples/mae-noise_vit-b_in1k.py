"""MAE on ImageNet-1k, with noise added to half of the images.

Paper:    MAE, arXiv 2111.06377; the noise is this project's
Command:  tools/dist_train.sh configs/examples/mae-noise_vit-b_in1k.py 8
Hardware: 8 GPUs, 512 images each
Time:     not run
Expect:   not run
"""

_base_ = 'mmpretrain::mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py'

data_root = 'data/imagenet'
noise = dict(type='mmebm.GaussianNoise', sigma=(10.0, 50.0))
_base_.train_dataloader.dataset.pipeline.insert(-1, dict(type='RandomApply', transforms=[noise], prob=0.5))
_base_.train_dataloader.collate_fn = dict(type='default_collate')  # if inherited, it would get a scope as an argument
resume = False  # inherited as True, which would resume from any checkpoint in work_dir
default_hooks = dict(checkpoint=dict(type='mmebm.AtomicCheckpointHook'))
custom_hooks = [dict(type='mmebm.ProgressHook')]
