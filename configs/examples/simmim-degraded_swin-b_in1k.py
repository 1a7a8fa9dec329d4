"""SimMIM on ImageNet-1k, with a third of the images in grey and a third blurred by downsampling.

Paper:    SimMIM, arXiv 2111.09886; the corruptions are this project's
Command:  tools/dist_train.sh configs/examples/simmim-degraded_swin-b_in1k.py 8
Hardware: 8 GPUs, 256 images each
Time:     not run
Expect:   not run
"""

_base_ = 'mmpretrain::simmim/simmim_swin-base-w6_8xb256-amp-coslr-100e_in1k-192px.py'

data_root = 'data/imagenet'
ways = [[dict(type='mmebm.Grayscale')], [dict(type='mmebm.Downsample', factor=(2.0, 4.0))], []]
_base_.train_dataloader.dataset.pipeline.insert(-1, dict(type='RandomChoice', transforms=ways))
_base_.train_dataloader.collate_fn = dict(type='default_collate')  # if inherited, it would get a scope as an argument
default_hooks = dict(checkpoint=dict(type='mmebm.AtomicCheckpointHook'))
custom_hooks = [dict(type='mmebm.ProgressHook')]
