"""UPerNet on ADE20K, 512 x 512, from a pretrained ViT-B/16.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384
Command:  tools/dist_train.sh configs/ade20k/upernet_ebm-vit-b_ade20k.py 8
          another checkpoint: add --cfg-options model.backbone.init_cfg.checkpoint=FILE
          from random weights: add --cfg-options model.backbone.init_cfg=None
          other data in ADE20K's layout: add --cfg-options data_root=FOLDER
          model.decode_head.num_classes=N model.auxiliary_head.num_classes=N
Hardware: 8 GPUs, 2 images each
Time:     not run
Expect:   not run

Output layers, heads, augmentation and schedule are those of mmseg's MAE, which this config inherits: layers 4, 6, 8 and
12, the last one after the backbone's final norm. Mixed precision is on, as that config intends by its name and by
`fp16`, which mmengine no longer reads. With other data, the table of classes still shows ADE20K's first N names;
upernet_ebm-vit-t_shapes.py sets its own.
"""

_base_ = 'mmseg::mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py'
custom_imports = dict(imports=['mmebm'], allow_failed_imports=False)  # its stand-in for mmcv's compiled ops

model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='mmpretrain.VisionTransformer',
        arch='base',
        img_size=512,  # position embeddings of another size are interpolated when they are loaded
        patch_size=16,
        out_type='featmap',
        out_indices=[3, 5, 7, 11],
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/ebm_vit-b_in1k/epoch_100.pth', prefix='backbone.'),
    ),
)

optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    constructor='mmebm.BackboneLayerDecay',
    # No decay of norms, biases, position embeddings and class token.
    paramwise_cfg=dict(
        _delete_=True,
        layer_decay_rate=0.65,
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={'pos_embed': dict(decay_mult=0.0), 'cls_token': dict(decay_mult=0.0)},
    ),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
default_hooks = dict(checkpoint=dict(type='mmebm.AtomicCheckpointHook'))
custom_hooks = [dict(type='mmebm.ProgressHook')]
