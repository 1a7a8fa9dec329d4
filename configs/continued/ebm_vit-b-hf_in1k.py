"""ViT-B/16 of HuggingFace's transformers on ImageNet-1k, restoring masked images, starting from supervised weights.

Paper:    Energy-Inspired Self-Supervised Pretraining for Vision Models, arXiv 2302.01384; starting from
          other weights is this project's idea
Command:  tools/dist_train.sh configs/continued/ebm_vit-b-hf_in1k.py 8
Hardware: 8 GPUs, 256 images each, two steps accumulated to a batch of 4096
Time:     not run
Expect:   not run

transformers downloads the weights when the model is built.
"""

_base_ = '../ebm-mask_vit-b_in1k.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmebm.HuggingFaceBackbone',
        model_name='google/vit-base-patch16-224-in21k',
        pretrained=True,
    ),
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5], to_rgb=True),  # as it was trained
)
