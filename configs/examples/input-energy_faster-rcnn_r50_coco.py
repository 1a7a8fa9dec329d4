"""mmdet's Faster R-CNN on COCO, which logs the energy of its inputs.

Paper:    Faster R-CNN, arXiv 1506.01497
Command:  tools/dist_train.sh configs/examples/input-energy_faster-rcnn_r50_coco.py 8
          another energy: add --cfg-options custom_hooks.0.config=CONFIG custom_hooks.0.checkpoint=FILE
Hardware: 8 GPUs, 2 images each
Time:     not run
Expect:   not run
"""

_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
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
