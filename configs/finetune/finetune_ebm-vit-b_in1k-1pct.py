"""ViT-B/16 pretrained by restoration, fine-tuned on 1% of ImageNet-1k's labels.

Paper:    the images are SimCLR's, arXiv 2002.05709; the recipe is MAE's for all labels, arXiv 2111.06377
Command:  tools/dist_train.sh configs/finetune/finetune_ebm-vit-b_in1k-1pct.py 8
Hardware: 8 GPUs, 16 images each
Time:     not run
Expect:   not run

Batch and learning rate are an eighth of those for all labels, so that 100 epochs make 10,000 steps: this project's
choice. The labelled images are those of 1percent.txt in SimCLR's repository, one name per line. This converts it to
the list that is read here, in data/imagenet:

    mkdir -p meta
    ls train | awk 'NR == FNR {label[$1] = NR - 1; next} {split($1, name, "_"); print name[1] "/" $1, label[name[1]]}' \
        - 1percent.txt > meta/train_1pct.txt
"""

_base_ = './finetune_ebm-vit-b_in1k.py'

train_dataloader = dict(batch_size=16, dataset=dict(ann_file='meta/train_1pct.txt'))
optim_wrapper = dict(optimizer=dict(lr=2.5e-4))
auto_scale_lr = dict(base_batch_size=128)
