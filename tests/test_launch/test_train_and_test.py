import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS

from mmebm import config_files
from mmebm.config_files import find_config
from mmebm.launch import options, scripts
from mmebm.launch.preparation import prepare_test, prepare_training
from mmebm.launch.scripts import load_script, run_script

CONFIG = """
default_scope = 'mmpretrain'
data_root = 'data/old/'
resume = True
train_dataloader = dict(
    batch_size=2,
    dataset=dict(type='ConcatDataset', datasets=[
        dict(type='ImageNet', data_root=data_root, split='train'),
        dict(type='ImageNet', data_root='data/other', split='train'),
    ]),
)
test_data_root = 'data/test'
val_dataloader = dict(batch_size=2, dataset=dict(type='CocoDataset', data_root='data/old'))
test_dataloader = dict(batch_size=2, dataset=dict(type='CocoDataset', data_root=test_data_root))
val_evaluator = test_evaluator = dict(type='CocoMetric', ann_file=data_root + 'annotations/val.json')
custom_hooks = [dict(type='Probe', dataset=dict(data_root=data_root))]
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1.0))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a config and its data folders, as the current one."""
    for folder in ('data/old', 'data/other', 'new'):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / 'tiny.py').write_text(CONFIG)
    torch.save(dict(state_dict={'backbone.weight': torch.ones(2, 3)}), tmp_path / 'a.pth')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LOCAL_RANK', '0')
    return tmp_path


def merged(name, argv):
    """The config with which mmpretrain's script would build its runner."""
    script = load_script(name)
    seen = {}

    class FakeRunner:
        @classmethod
        def from_cfg(cls, cfg):
            seen['cfg'] = cfg
            return cls()

        def train(self):
            seen['ran'] = 'train'

        def test(self):
            seen['ran'] = 'test'

    script.Runner = FakeRunner
    run_script(script, argv, dict(train=prepare_training, test=prepare_test)[name])
    assert seen['ran'] == name
    return seen['cfg']


def test_data_root_reaches_every_data_set_that_had_the_old_one(folder):
    cfg = merged('train', ['tiny.py', '--cfg-options', 'data_root=new'])
    assert [d.data_root for d in cfg.train_dataloader.dataset.datasets] == ['new', 'data/other']
    assert cfg.val_dataloader.dataset.data_root == 'new'
    assert cfg.test_dataloader.dataset.data_root == 'data/test'
    assert cfg.custom_hooks[0].dataset.data_root == 'new'
    assert cfg.val_evaluator.ann_file == 'new/annotations/val.json'


def test_without_the_option_every_root_stays(folder):
    cfg = merged('train', ['tiny.py'])
    assert [d.data_root for d in cfg.train_dataloader.dataset.datasets] == ['data/old/', 'data/other']
    assert (cfg.work_dir, cfg.resume) == ('./work_dirs/tiny', True)


def test_train_flags_are_mmpretrains(folder, monkeypatch):
    monkeypatch.setattr(scripts, 'get_device', lambda: 'cuda')
    meta, optimizer = dict(epoch=1, iter=1), dict(state={}, param_groups=[])
    torch.save(dict(meta=meta, state_dict={}, message_hub={}, optimizer=optimizer), 'a.pth')
    cfg = merged('train', ['tiny.py', '--amp', '--no-validate', '--resume', 'a.pth', '--work-dir', 'out'])
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.loss_scale) == ('AmpOptimWrapper', 'dynamic')
    assert (cfg.val_dataloader, cfg.load_from, cfg.work_dir) == (None, 'a.pth', 'out')


def test_without_a_gpu_amp_becomes_float32(folder, monkeypatch):
    monkeypatch.setattr(scripts, 'get_device', lambda: 'cpu')
    with pytest.warns(UserWarning, match='No GPU here: training in float32'):
        cfg = merged('train', ['tiny.py', '--amp'])
    assert cfg.optim_wrapper == dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1.0))


def test_amp_is_switched_off_by_the_type_alone(folder, monkeypatch):
    monkeypatch.setattr(scripts, 'get_device', lambda: 'cuda')
    amp = "optim_wrapper = dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale='dynamic')"
    (folder / 'amp.py').write_text(f"_base_ = './tiny.py'\n{amp}")
    cfg = merged('train', ['amp.py', '--cfg-options', 'optim_wrapper.type=OptimWrapper'])
    assert cfg.optim_wrapper == dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1.0))


def test_test_flags_are_mmpretrains(folder):
    argv = ['tiny.py', 'a.pth', '--cfg-options', 'test_data_root=new']
    cfg = merged('test', argv)
    assert (cfg.load_from, cfg.resume, cfg.test_dataloader.dataset.data_root) == ('a.pth', False, 'new')
    assert cfg.train_dataloader.dataset.datasets[0].data_root == 'data/old/'


def test_a_missing_data_root_is_named_with_its_place(folder):
    with pytest.raises(FileNotFoundError, match=r'"absent" \(train_dataloader\.dataset\.datasets\.0\.data_root\)'):
        merged('train', ['tiny.py', '--cfg-options', 'data_root=absent'])
    with pytest.raises(FileNotFoundError, match=r'"data/test".*--cfg-options test_data_root=FOLDER'):
        merged('test', ['tiny.py', 'a.pth'])


def test_data_roots_change_places():
    cfg = Config(dict(a='old', b='new', loaders=[dict(data_root='old'), dict(data_root='new', ann_file='new/x.txt')]))
    options.replace_data_roots(cfg, [('old', 'new'), ('new', 'old')])
    assert cfg.loaders == [dict(data_root='new'), dict(data_root='old', ann_file='old/x.txt')]


def test_a_data_root_that_no_data_set_reads_is_refused():
    cfg = Config(dict(data_root='old', train_dataloader=dict(dataset=dict(data_root='other'))))
    with pytest.raises(ValueError, match='No data set of the config reads from "old", so "new" would be ignored'):
        options.replace_data_root(cfg, 'old', 'new')


def test_only_the_sections_in_use_need_their_folder():
    cfg = Config(dict(train_dataloader=dict(dataset=dict(data_root='absent')), test_dataloader=None))
    options.check_data_roots(cfg, ('test_dataloader',))
    cfg.train_dataloader.dataset.type = 'mmpretrain.CIFAR10'
    options.check_data_roots(cfg, ('train_dataloader',))
    cfg.train_dataloader.dataset.download = False
    with pytest.raises(FileNotFoundError, match='absent'):
        options.check_data_roots(cfg, ('train_dataloader',))


def test_mmpretrains_collation_is_not_forced_on_mmseg(folder):
    (folder / 'seg.py').write_text(CONFIG.replace("'mmpretrain'", "'mmseg'"))
    assert merged('train', ['seg.py']).train_dataloader.collate_fn.type == 'pseudo_collate'
    assert merged('train', ['tiny.py']).train_dataloader.collate_fn.type == 'default_collate'


def test_collation_inherited_from_mmpretrain_is_callable(folder):
    base = "_base_ = 'mmpretrain::mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py'\n"
    (folder / 'mae.py').write_text(base + "train_dataloader = dict(dataset=dict(data_root='new'))")
    assert merged('train', ['mae.py']).train_dataloader.collate_fn == dict(type='default_collate')


def test_an_unknown_option_is_named_with_close_matches():
    cfg = Config(dict(train_dataloader=dict(batch_size=2)))
    with pytest.warns(UserWarning, match=r'train_dataloder\.batch_size.*Did you mean train_dataloader'):
        options.warn_unknown_options(cfg, {'train_dataloder.batch_size': 4})


@pytest.mark.filterwarnings('error')
def test_options_of_config_or_runner_do_not_warn():
    given = {'train_dataloader.batch_size': 4, 'randomness.seed': 1, 'find_unused_parameters': True}
    options.warn_unknown_options(Config(dict(train_dataloader=dict())), given)


VARIABLES = """
rate = 0.25
size = 32
corruption = dict(type='Mask', ratio=rate)
train_pipeline = [dict(type='Crop', scale=size), corruption]
train_dataloader = dict(batch_size=2, dataset=dict(type='ImageNet', data_root=data_root, pipeline=train_pipeline))
vis_backends = [dict(type='LocalVisBackend')]
unused = 'never'
"""


@pytest.mark.parametrize(
    'option, hint',
    [
        ('rate=0.9', 'What is used is at train_dataloader.dataset.pipeline.1.ratio; set it there'),
        ('corruption.ratio=0.9', 'What is used is at train_dataloader.dataset.pipeline.1.ratio; set it there'),
        ('train_pipeline.0.scale=64', 'What is used is at train_dataloader.dataset.pipeline.0.scale; set it there'),
    ],
)
def test_an_option_that_changes_a_mere_variable_is_refused(folder, option, hint):
    (folder / 'tiny.py').write_text(CONFIG + VARIABLES)
    key = option.partition('=')[0]
    message = f'--cfg-options {key}: "{key.partition(".")[0]}" is a variable of the config file.*{hint}'
    with pytest.raises(ValueError, match=message):
        merged('train', ['tiny.py', '--cfg-options', 'train_dataloader.batch_size=4', option])


def test_refuses_to_scale_for_a_part_of_the_batch(folder):
    (folder / 'tiny.py').write_text(
        CONFIG
        + "auto_scale_lr = dict(base_batch_size=64)\noptim_wrapper = dict(type='OptimWrapper', accumulative_counts=4)\n"
    )
    merged('train', ['tiny.py'])
    with pytest.raises(ValueError, match='accumulative_counts=4 .* 4 times too small; tools/plan.py CONFIG'):
        merged('train', ['tiny.py', '--auto-scale-lr'])


def test_a_variable_that_nothing_is_made_of_is_named(folder):
    (folder / 'tiny.py').write_text(CONFIG + VARIABLES)
    with pytest.warns(UserWarning, match='--cfg-options unused: no part of a training or a test reads "unused"'):
        cfg = merged('train', ['tiny.py', '--cfg-options', 'unused=ever'])
    assert cfg.unused == 'ever'


def test_shipped_variables_are_refused_and_where_their_values_are_is_said():
    pretraining, finetuning = (
        Config.fromfile(find_config(name)) for name in ('ebm-mask_vit-b_in1k', 'finetune_ebm-vit-b_in1k')
    )
    with pytest.raises(ValueError, match=r'is at train_dataloader\.dataset\.pipeline\.3\.corruption\.ratio; set'):
        options.merge_options(pretraining, {'corruption.ratio': 0.9})
    with pytest.raises(ValueError, match=r'is at model\.backbone\.init_cfg\.checkpoint; set'):
        options.merge_options(finetuning, {'checkpoint': 'mine.pth'})
    assert pretraining.corruption.ratio == 0.6
    given = {'train_dataloader.dataset.pipeline.3.corruption.ratio': 0.9, 'data_root': 'new', 'test_data_root': 'b'}
    options.merge_options(pretraining, given)
    assert pretraining.train_dataloader.dataset.pipeline[3].corruption.ratio == 0.9
    assert [pretraining[f'{part}_dataloader'].dataset.data_root for part in ('train', 'test')] == ['new', 'b']


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('name', ['sort', 'sr', 'denoise', 'color'])
def test_an_inherited_variable_that_was_changed_is_refused_too(name):
    cfg = Config.fromfile(find_config(f'ebm-{name}_vit-b_in1k'))
    with pytest.raises(ValueError, match=r'at train_dataloader\.dataset\.pipeline\.3\.corruption\.seed, test_'):
        options.merge_options(cfg, {'corruption.seed': 3})


def test_what_an_engine_reads_is_no_variable():
    cfg = Config(dict(strategy=dict(type='DDPStrategy'), sync_bn='torch', runner_type='FlexibleRunner'))
    options.merge_options(cfg, {'strategy.type': 'SingleDeviceStrategy', 'sync_bn': 'mmcv', 'compile': True})
    assert (cfg.strategy.type, cfg.sync_bn, cfg.compile) == ('SingleDeviceStrategy', 'mmcv', True)


class Unsafe:
    def __reduce__(self):
        return print, ('unpickled',)


@pytest.mark.parametrize('is_listed', [False, True])
@pytest.mark.parametrize(
    'content, message',
    [
        (None, 'No checkpoint "b.pth"'),
        ({'head.weight': torch.ones(1)}, r'b.pth has no weights under "backbone."'),
        ({'backbone.weight': torch.ones(1)}, 'b.pth is of another architecture than ResNet'),
        (Unsafe(), 'b.pth is refused'),
        (b'', 'b.pth is truncated'),
    ],
)
def test_pretrained_weights_are_checked_first(folder, capsys, content, message, is_listed):
    init = "dict(type='Pretrained', checkpoint='b.pth', prefix='backbone.')"
    init = f"init_cfg=[dict(type='Kaiming', layer='Conv2d'), {init}]" if is_listed else f'init_cfg={init}'
    model = f"\nmodel = dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=18, {init}))"
    (folder / 'tune.py').write_text(CONFIG + model)
    if content == b'':
        (folder / 'b.pth').write_bytes((folder / 'a.pth').read_bytes()[:200])
    elif content is not None:
        torch.save(dict(state_dict=content), folder / 'b.pth')
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        merged('train', ['tune.py'])
    assert 'unpickled' not in capsys.readouterr().out


def test_what_task_and_pretraining_need_not_share_is_not_checked(folder):
    backbone = dict(type='VisionTransformer', arch='deit-tiny', img_size=32, patch_size=16)
    state = {f'backbone.{k}': v for k, v in MODELS.build(backbone).state_dict().items()}
    torch.save(dict(state_dict=state | {'backbone.mask_token': torch.ones(1)}), folder / 'b.pth')
    init = dict(type='Pretrained', checkpoint='b.pth', prefix='backbone.')
    backbone |= dict(img_size=64, out_type='avg_featmap', init_cfg=init)  # other positions, a norm behind the mean
    (folder / 'tune.py').write_text(f'{CONFIG}\nmodel = dict(type="ImageClassifier", backbone={backbone})')
    assert merged('train', ['tune.py']).model.backbone == backbone


@pytest.mark.parametrize('prefix', ['', 'backbone', 'backbone.'])
def test_what_mmengine_would_load_is_not_refused(folder, prefix):
    """A prefix without its point, and a classifier beside the weights."""
    backbone = dict(type='ResNet', depth=18)
    start = 'backbone.' if prefix else ''
    state = {f'{start}{k}': v for k, v in MODELS.build(backbone).state_dict().items()}
    torch.save(dict(state_dict=state | {f'{start}fc.weight': torch.ones(1)}), folder / 'b.pth')
    backbone |= dict(init_cfg=dict(type='Pretrained', checkpoint='b.pth', prefix=prefix or None))
    (folder / 'tune.py').write_text(f'{CONFIG}\nmodel = dict(type="ImageClassifier", backbone={backbone})')
    assert merged('train', ['tune.py']).model.backbone == backbone


def test_a_checkpoint_to_test_is_checked_first(folder):
    torch.save(dict(state_dict=Unsafe()), folder / 'b.pth')
    with pytest.raises(ValueError, match='b.pth is refused'):
        merged('test', ['tiny.py', 'b.pth', '--cfg-options', 'test_data_root=new'])


@pytest.fixture
def configs(tmp_path, monkeypatch):
    """A folder of three configs and one base, in place of mmebm's."""
    folder = tmp_path / 'configs'
    for name in ('_base_/ebm.py', 'ebm_a.py', 'finetune/vit.py', 'linear/vit.py'):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    monkeypatch.setattr(config_files, 'config_folder', lambda: folder)
    return folder


@pytest.mark.parametrize('name', ['ebm_a', 'ebm_a.py', 'configs/ebm_a.py'])
def test_config_names(configs, name):
    assert find_config(name) == configs / 'ebm_a.py'
    assert find_config('linear/vit') == configs / 'linear' / 'vit.py'


def test_an_existing_path_wins(configs, tmp_path):
    (tmp_path / 'ebm_a.py').touch()
    assert find_config(str(tmp_path / 'ebm_a.py')) == tmp_path / 'ebm_a.py'


def test_config_names_that_fit_none_or_several(configs):
    with pytest.raises(FileNotFoundError, match=r'"ebm_b".*Close names: ebm_a\.py'):
        find_config('ebm_b')
    with pytest.raises(FileNotFoundError, match='"/nowhere/x.py"'):
        find_config('/nowhere/x.py')
    with pytest.raises(ValueError, match=r'finetune/vit\.py, linear/vit\.py'):
        find_config('vit')


def test_options_of_the_model_reach_it_behind_averaging(folder, monkeypatch):
    """``--tta`` wraps the model, as ``module``, before options are merged."""
    monkeypatch.setitem(globals(), 'prepare_test', lambda cfg: None)  # its data and weights are not there
    options = ['--cfg-options', 'model.head.num_classes=7', 'model.module.backbone.drop_path_rate=0.25']
    cfg = merged('test', [str(find_config('finetune_ebm-vit-t_shapes')), 'a.pth', '--tta', *options])
    assert cfg.model.type == 'mmpretrain.AverageClsScoreTTA'
    assert (cfg.model.module.head.num_classes, cfg.model.module.backbone.drop_path_rate) == (7, 0.25)
    assert 'head' not in cfg.model and 'module' not in cfg.model.module


def test_a_test_leaves_the_mark_of_a_training_that_was_stopped(folder):
    (folder / 'run').mkdir()
    (folder / 'data/test').mkdir()
    (folder / 'run' / 'requeue').write_text('SIGUSR1')
    merged('test', ['tiny.py', 'a.pth', '--work-dir', 'run'])
    assert (folder / 'run' / 'requeue').is_file()


def test_two_checkpoints_to_start_from(folder):
    with pytest.raises(ValueError, match='--resume a.pth and --cfg-options load_from=b.pth: give one of them'):
        merged('train', ['tiny.py', '--resume', 'a.pth', '--cfg-options', 'load_from=b.pth'])
