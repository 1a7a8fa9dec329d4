"""mmseg's PSPNet on ADE20K, which logs the energy of its inputs.

Paper:    PSPNet, arXiv 1612.01105
Command:  tools/dist_train.sh configs/examples/input-energy_pspnet_r50_ade20k.py 4
          another energy: add --cfg-options custom_hooks.0.config=CONFIG custom_hooks.0.checkpoint=FILE
Hardware: 4 GPUs, 4 images each
Time:     not run
Expect:   not run
"""

_base_ = 'mmseg::pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py'
custom_imports = dict(imports=['mmebm'], allow_failed_imports=False)  # its stand-in for mmcv's compiled ops

default_hooks = dict(checkpoint=dict(type='mmebm.AtomicCheckpointHook'))
custom_hooks = [
    dict(
        type='mmebm.InputEnergyHook',
        config='configs/ebm-mix_vit-b_in1k.py',
        checkpoint='work_dirs/ebm-mix_vit-b_in1k/epoch_100.pth',
    ),
    dict(type='mmebm.ProgressHook'),
]
