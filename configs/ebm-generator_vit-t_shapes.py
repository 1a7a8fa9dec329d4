"""A small ViT on the embedded data set, restoring and telling the tokens that a trained generator has replaced.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384; the corruption is that of
          Corrupted Image Modeling for Self-Supervised Visual Pre-Training, arXiv 2202.03382
Command:  make cim
          python tools/train.py configs/ebm-generator_vit-t_shapes.py
Hardware: 2 CPU cores
Time:     not run in full; 160 steps took 2 minutes of one core, evaluation included
Expect:   after 160 steps (one seed, images 100, generator of one epoch with an accuracy of 4.4%): PSNR 17.8 -> 18.9 dB,
          all clean images have less energy than their corrupted versions, AUROC of the energy 0.895, of the energies
          of tokens as a score of replaced ones 0.822

Generator and tokenizer are those of RevDet; of another training of CIM: --cfg-options model.corruption.checkpoint=FILE.
All sizes and options are this project's choice: docs/cim.md.
"""

_base_ = './ebm_vit-t_shapes.py'

model = dict(
    corruption=dict(
        type='mmebm.GeneratorCorruption',
        checkpoint='work_dirs/demo_cim/revdet/epoch_2.pth',
        target='decoded',  # so that what is restored is the tokens, and not the sharpness that decoding takes away
    ),
    token_nce_weight=1.0,
)
_base_.train_dataloader.dataset.pipeline = [dict(type='PackInputs', meta_keys=('sample_idx',))]

# A list of one view, which the model corrupts as in training, by the same random numbers in every evaluation.
held_out = [
    dict(type='MultiView', num_views=[1], transforms=[[]]),
    dict(type='PackInputs', meta_keys=('sample_idx',)),
]
val_dataloader = dict(
    dataset=dict(_delete_=True, type='mmebm.Shapes', size=200, split='val', pipeline=held_out),
)
_base_.test_dataloader.dataset.datasets = [dict(type='mmebm.Shapes', size=1000, split='val', pipeline=held_out)]
val_evaluator = [
    dict(type='mmebm.RestorationMetric'),
    dict(type='mmebm.EnergyMetric'),
    dict(type='mmebm.TokenEnergyMetric'),
]
test_evaluator = val_evaluator
