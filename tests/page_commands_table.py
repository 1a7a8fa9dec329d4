"""How each command of README and documentation is executed in tests, or why it is not."""

from typing import NamedTuple

# What makes a training short. Networks are small as the prepared folder's configs say, or anyhow.
SHORT = 'model.training_step.compile=False train_dataloader.num_workers=0 train_dataloader.batch_size=8'
SHORT += ' train_cfg.max_epochs=1 optim_wrapper.accumulative_counts=1 test_dataloader.num_workers=0'
SMALL = 'model.backbone.arch.num_layers=1 model.backbone.arch.embed_dims=32 model.head.in_channels=32'
TOKENIZER = 'train_dataloader.num_workers=0 train_dataloader.batch_size=8 train_cfg.max_epochs=1'
TOKENIZER += ' model.width=8 model.num_embed=32'
SHAPES = 'train_dataloader.dataset.size=16'
QUANTIZER = 'model.tokenizer.model'
CIM = f'{SHAPES} val_dataloader.dataset.size=16 train_cfg.max_epochs=1 model.tokenizer.checked=False'
CIM += f' {QUANTIZER}.init_cfg.checkpoint=work_dirs/vqvae_shapes/epoch_1.pth {QUANTIZER}.num_embed=32'
CIM += f' {QUANTIZER}.width=8 model.generator.vocabulary=32 custom_hooks.4.bank.dataset.size=24'
CIM += ' custom_hooks.4.queries.dataset.size=8'

# What stands for a word of the user's. Checkpoints are those of the first epoch.
WORDS = dict(FOLDER='images', LABELLED='images', HELD_OUT='images/val', SHARDS='shards', N='8',
             CONFIG='configs/ebm_vit-b_in1k.py', KIND='h200', CHECKPOINT='RUN/epoch_1.pth', WORK_DIR='RUN', RUN_A='RUN',
             RUN_B='work_dirs/ebm_vit-b_in1k', RUN_C='run_folder')  # fmt: skip

PRETRAIN = 'pretrain FOLDER --backbone vit-tiny --epochs 100 --out RUN'
FOLDER = 'train ebm_vit-t_folder --work-dir RUN --cfg-options data_root=FOLDER train_cfg.max_epochs=100'
TRAIN = 'train configs/ebm_vit-b_in1k.py'
IMPORT = 'import_weights mae_pretrain_vit_base.pth --from mae --config ebm_vit-b_in1k --out checkpoints/mae.pth'
START = 'model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=checkpoints/mae.pth'
BANDS = 'train bands.py --work-dir RUN --cfg-options data_root=FOLDER train_cfg.max_epochs=100'
SCRATCHED = 'train scratched.py --work-dir RUN --cfg-options data_root=FOLDER'
MINE = 'train mine.py --work-dir RUN --cfg-options data_root=FOLDER'
TOKENIZE = 'train configs/tokenizers/vqvae_shapes.py'
RESPIX = 'train configs/cim-respix_vit-t_shapes.py'
DEMO = 'demo --seed 1 --work-dir work_dirs/demo1'


class Here(NamedTuple):
    """How a command is executed in the prepared folder."""

    leaves: str  # files that are there afterwards, or words that are printed
    more: str = ''  # words behind it; options are added to its own
    after: tuple[str, ...] = ()  # commands whose files it reads
    instead: dict[str, str] = {}  # of its words, before ``WORDS``


# By module and arguments, whether it is called by tools/ or by its installed name.
EXECUTED = {
    PRETRAIN: Here('RUN/report.html RUN/backbone_timm/model.safetensors RUN/epoch_1.pth',
                   f'--epochs 1 --image-size 32 --cfg-options train_dataloader.num_workers=0 {SMALL}'),
    FOLDER: Here('run_folder/epoch_1.pth', f'{SHORT} {SMALL}', (), dict(RUN='run_folder')),
    TRAIN: Here('work_dirs/ebm_vit-b_in1k/epoch_1.pth', f'--cfg-options {SHORT}'),
    f'{TRAIN} --cfg-options data_root=FOLDER': Here('run_b/epoch_1.pth', f'{SHORT} --work-dir run_b'),
    f'{TRAIN} --cfg-options {START} model.backbone.init_cfg.prefix=backbone.': Here(
        'run_c/epoch_1.pth', f'{SHORT} --work-dir run_c', (IMPORT,)),
    IMPORT: Here('checkpoints/mae.pth', '', (), {'ebm_vit-b_in1k': 'configs/ebm_vit-b_in1k.py'}),
    'test configs/ebm_vit-b_in1k.py CHECKPOINT --cfg-options test_data_root=FOLDER': Here(
        'psnr_restored_db', f'{SHORT} test_dataloader.batch_size=8', (TRAIN,),
        dict(CHECKPOINT='work_dirs/ebm_vit-b_in1k/epoch_1.pth', FOLDER='images/val')),
    BANDS: Here('run_bands/epoch_1.pth', f'{SHORT} {SMALL}', (), dict(RUN='run_bands', FOLDER='bands')),
    'restore FOLDER --checkpoint RUN/epoch_100.pth --out restored.png': Here(
        'bands.png', '--out bands.png', (BANDS,), dict(FOLDER='bands', RUN='run_bands')),
    SCRATCHED: Here('run_scratched/epoch_1.pth', SHORT, (),
                    {'RUN': 'run_scratched', 'scratched.py': 'small_scratched.py'}),
    'restore FOLDER --config scratched.py --checkpoint RUN/epoch_100.pth --out restored.png': Here(
        'scratched.png', '--out scratched.png', (SCRATCHED,),
        {'RUN': 'run_scratched', 'scratched.py': 'small_scratched.py'}),
    MINE: Here('run_mine/epoch_1.pth', SHORT, (), dict(RUN='run_mine')),
    'embed FOLDER --config mine.py --checkpoint RUN/epoch_100.pth --out features.npy': Here(
        'mine.npy', '--out mine.npy', (MINE,), dict(RUN='run_mine')),
    'report WORK_DIR': Here('RUN/report.html', '', (PRETRAIN,)),
    'report RUN': Here('RUN/report.html', '', (PRETRAIN,)),
    'report RUN_A RUN_B RUN_C --out compared.html': Here('compared.html', '', (PRETRAIN, TRAIN, FOLDER)),
    'app CHECKPOINT': Here('http://127.0.0.1:', '', (PRETRAIN,)),
    'app CHECKPOINT --images FOLDER': Here('http://127.0.0.1:', '', (PRETRAIN,)),
    'app RUN/epoch_100.pth --images FOLDER': Here('http://127.0.0.1:', '', (PRETRAIN,)),
    'restore photo.jpg --checkpoint CHECKPOINT --out restored.png': Here('restored.png', '', (PRETRAIN,)),
    'restore photo.jpg --checkpoint CHECKPOINT --corruption denoise --steps 10 --out restored.webp': Here(
        'restored.webp', '', (PRETRAIN,)),
    'energy FOLDER --checkpoint CHECKPOINT --out energies.csv': Here(
        'energies.csv energies.csv.json', '', (PRETRAIN,)),
    'embed FOLDER --checkpoint CHECKPOINT --out features.npy': Here('features.npy features.txt', '', (PRETRAIN,)),
    'export CHECKPOINT --to timm': Here('RUN/epoch_1_timm/model.safetensors', '', (PRETRAIN,)),
    'export RUN/epoch_100.pth --to timm': Here('exported/load.py', '--out exported', (PRETRAIN,)),
    'export RUN/epoch_100.pth --to mmpretrain': Here('exported_mm/backbone.py', '--out exported_mm', (PRETRAIN,)),
    'export work_dirs/ebm_vit-b_in1k/epoch_100.pth --to timm': Here(
        'work_dirs/ebm_vit-b_in1k/epoch_1_timm/load.py', '', (TRAIN,)),
    'export CHECKPOINT --to hf --out FOLDER --image-size 384': Here(
        'exported_hf/preprocessor_config.json', '', (PRETRAIN,), {'FOLDER': 'exported_hf', '384': '96'}),
    'evaluate CHECKPOINT --data FOLDER': Here('work_dirs/evaluate/results.md', '--tasks knn', (PRETRAIN,)),
    'evaluate RUN/epoch_100.pth --data LABELLED': Here(
        'evaluated/results.md', '--tasks knn --work-dir evaluated', (PRETRAIN,)),
    'evaluate ours=A.pth mae=B.pth --tasks linear finetune': Here(
        'evaluated_b/results.md', '--tasks knn --data images --work-dir evaluated_b', (PRETRAIN,),
        {'A.pth': 'RUN/epoch_1.pth', 'B.pth': 'RUN/epoch_1.pth'}),
    'plan configs/ebm_vit-b_in1k.py --gpus 8 --gpu h200': Here('learning rate'),
    'plan configs/ebm_vit-b_in1k.py --gpus 1 --gpu h200': Here('learning rate'),
    'plan CONFIG --gpus N --gpu KIND': Here('learning rate'),
    'browse_corruptions ebm_vit-t_shapes --split test --out corruptions.png': Here('corruptions.png', '--images 2'),
    'browse_corruptions ebm-mix_vit-b_in1k --cfg-options data_root=FOLDER': Here(
        'mix.png', '--images 5 --out mix.png'),
    'make_shapes data/shapes_coco --layout coco --image-size 64 --train 1000 --val 1000': Here(
        'data/shapes_coco/train2017', '--train 4 --val 2'),
    TOKENIZE: Here('work_dirs/vqvae_shapes/epoch_1.pth', f'--cfg-options {TOKENIZER} {SHAPES}'),
    RESPIX: Here('work_dirs/cim-respix_vit-t_shapes/epoch_1.pth', f'--cfg-options {CIM}', (TOKENIZE,)),
    RESPIX.replace('respix', 'revdet'): Here(
        'work_dirs/cim-revdet_vit-t_shapes/epoch_1.pth', f'--cfg-options {CIM}', (TOKENIZE,)),
    'train configs/tokenizers/vqvae_in1k.py --cfg-options data_root=FOLDER': Here(
        'work_dirs/vqvae_in1k/epoch_1.pth', TOKENIZER),
    'train configs/peers/tokenizer_32px.py --cfg-options data_root=FOLDER': Here(
        'work_dirs/tokenizer_32px/epoch_1.pth', TOKENIZER),
    'make_corrupted cim-respix_vit-b_in1k CHECKPOINT data/replaced --data FOLDER': Here(
        'data/replaced/clean data/replaced/corrupted', '', (RESPIX,),
        {'cim-respix_vit-b_in1k': 'small_cim.py', 'CHECKPOINT': 'work_dirs/cim-respix_vit-t_shapes/epoch_1.pth'}),
    'pack FOLDER --out SHARDS': Here('shards'),
    'pack data/imagenet22k --out data/shards': Here('data/shards', '', (), {'data/imagenet22k': 'images'}),
    DEMO: Here('work_dirs/demo/report.html work_dirs/demo/summary.json work_dirs/demo/curves.png',
               '--config small_demo.py', (), dict(demo1='demo')),
}  # fmt: skip

# Executed by a test elsewhere, since they need more than a folder.
ELSEWHERE = {
    'train configs/ebm-generator_vit-t_shapes.py': (
        'test_cim_training.py::test_a_resumed_training_on_corrupted_images_ends_in_the_same_weights'
    ),
    'train configs/ebm_vit-b_in1k.py --cfg-options train_dataloader.dataset.type=mmebm.HFImages '
    'train_dataloader.dataset.data_root=data/imagenet-1k train_dataloader.dataset.split=train': (
        'test_launch/test_hf_images_run.py::test_a_training_by_options_alone'
    ),
    'compare --data FOLDER --methods ebm-patches mae random --budget epochs=16': (
        'test_experiments/test_compare.py::test_from_end_to_end_and_again'
    ),
    'compare --data FOLDER --select --learning-rates 1e-3 2e-3 4e-3 --work-dir work_dirs/chosen': (
        'test_experiments/test_protocol.py::test_from_choice_to_final_figures'
    ),
    'compare --data FOLDER --final HELD_OUT --selection work_dirs/chosen --work-dir work_dirs/final': (
        'test_experiments/test_protocol.py::test_from_choice_to_final_figures'
    ),
    'train ebm_vit-b_in1k': 'test_launch/test_train_and_test.py::test_config_names',
    'demo --method cim': 'test_experiments/test_cim_demo.py::test_leaves_picture_summary_and_checkpoints',
    'import_dalle encoder.pkl decoder.pkl --out checkpoints/dalle.safetensors': (
        'test_interchange/test_dalle.py::test_pickles_become_a_tokenizer'
    ),
    'replay work_dirs/ebm_vit-b_in1k/captures/iter_1200_rank_0.pth': (
        'test_engine/test_faulty_steps.py::test_a_capture_is_run_again'
    ),
    'replay CAPTURE': 'test_engine/test_faulty_steps.py::test_a_capture_is_run_again',
    'test configs/examples/ood_ebm-convnext-t_in1k.py CHECKPOINT --cfg-options ood_data_root=FOLDER': (
        'test_downstream/test_examples.py::test_energy_of_a_classifiers_images_is_that_of_the_pretraining'
    ),
}

# Parsed alone, by test_documentation.py, with their configs and options: the beginnings of commands, and why.
NOT_HERE = {
    'python tools/plan.py configs/ebm_vit-b_in1k.py --gpus 8 --gpu h200 --images': 'that without --images is executed',
    'python tools/plan.py configs/ebm_vit-b_in1k.py --gpus 64 ': 'likewise',
    'python tools/compare.py --data shapes ': 'ten minutes for each method, by the clock',
    'make ': 'fills .venv from the network; what the targets call is executed here',
    'pip install ': 'downloads',
    'mim train ': 'needs another package, and mmebm installed',
    'python -m benchmarks.': 'measures for minutes to hours; test_benchmarks/ has parts',
    'python tools/evaluate.py CHECKPOINT --tasks knn linear finetune seg det --gpus 8': '8 GPUs and three data sets',
    'python tools/compare.py --data FOLDER --images 5000 ': 'hours: a published run',
    'python tools/compare.py --data FOLDER --methods ebm-patches mae random --budget epochs=16 --': 'likewise',
    'python tools/compare.py --data FOLDER --methods ebm-patches mae random --budget cpu-seconds': 'likewise',
}
