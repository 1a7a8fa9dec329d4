"""ResNet-50 pretrained by restoration, fine-tuned on 1% of ImageNet-1k's labels.

Paper:    the images are SimCLR's, arXiv 2002.05709; the recipe is SparK's for all labels, arXiv 2301.03580
Command:  tools/dist_train.sh configs/finetune/finetune_ebm-resnet50_in1k-1pct.py 8
Hardware: 8 GPUs, 32 images each
Time:     not run
Expect:   not run

Batch and learning rate are an eighth of those for all labels, so that 300 epochs make 15,000 steps: this project's
choice. The list of images is made as in finetune_ebm-vit-b_in1k-1pct.py.
"""

_base_ = './finetune_ebm-resnet50_in1k.py'

train_dataloader = dict(batch_size=32, dataset=dict(ann_file='meta/train_1pct.txt'))
optim_wrapper = dict(optimizer=dict(lr=0.002))
auto_scale_lr = dict(base_batch_size=256)
