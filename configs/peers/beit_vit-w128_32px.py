"""BEiT with a small ViT at 32 pixels and a tokenizer trained on the same images, on equal terms with the EBM config.

Paper:    BEiT, arXiv 2106.08254
Command:  python tools/train.py configs/peers/tokenizer_32px.py --cfg-options data_root=FOLDER
          python tools/train.py configs/peers/beit_vit-w128_32px.py --cfg-options data_root=FOLDER
          FOLDER holds train/ with one folder per class
Hardware: 1 GPU, or some CPU cores
Time:     8 epochs of 5,000 images: 264 CPU seconds, plus the tokenizer's
Expect:   after that, on CIFAR-10, learning rate 2e-3, three seeds: linear probe 44.2%, kNN 32.5% (docs/results.md)
"""

_base_ = './beit-dalle_vit-w128_32px.py'

model = dict(
    head=dict(num_embed=512),
    target_generator=dict(
        _delete_=True,
        type='mmebm.VQVAE',
        num_embed=512,
        downsampling=4,
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/tokenizer_32px/epoch_30.pth'),
    ),
)
# Its tokenizer has one token per patch, and reads the same view.
_base_.train_dataloader.dataset.pipeline[-2] = dict(type='MultiView', num_views=2, transforms=[[]])
