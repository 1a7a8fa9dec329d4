"""Linear probe of ConvNeXt-T whose predictions carry an energy, and out-of-distribution detection by that energy.

Paper:    none
Command:  tools/dist_train.sh configs/examples/ood_ebm-convnext-t_in1k.py 8
          python tools/test.py configs/examples/ood_ebm-convnext-t_in1k.py CHECKPOINT
          --cfg-options ood_data_root=FOLDER
          another pretraining: add --cfg-options model.backbone.init_cfg.checkpoint=FILE
          model.energy_head.init_cfg.checkpoint=FILE
Hardware: 8 GPUs, 2048 images each
Time:     not run
Expect:   not run
"""

_base_ = '../linear/linear_ebm-convnext-t_in1k.py'

checkpoint = 'work_dirs/ebm_convnext-t_in1k/epoch_100.pth'
model = dict(
    type='mmebm.EnergyClassifier',
    # As in pretraining.
    energy_head=dict(
        type='mmebm.EnergyHead',
        in_channels=768,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='head.'),
    ),
)

# Any folder of out-of-distribution images. Validation is the probe's, with labels; the test needs no labels.
ood_data_root = 'data/ood'
pipeline = _base_.val_dataloader.dataset.pipeline
_base_.test_dataloader.dataset = dict(
    type='mmebm.ConcatDataset',
    pipeline=pipeline,  # of other images, for mmpretrain's inferencers
    datasets=[
        dict(type='mmebm.ImageFolder', data_root=_base_.data_root, data_prefix='val', pipeline=pipeline),
        dict(type='mmebm.ImageFolder', data_root=ood_data_root, pipeline=pipeline),
    ],
)
_base_.test_evaluator = dict(type='mmebm.OODEnergyMetric', data_root=ood_data_root)
