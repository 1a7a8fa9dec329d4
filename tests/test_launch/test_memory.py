"""Whether a training that does not fit into the memory is stopped, or warned of, before it starts."""

import warnings

import pytest
from mmengine.config import Config

from mmebm.config_files import find_config
from mmebm.launch.checks import memory
from mmebm.planning.memory import GIB, Memory, container_limits


@pytest.fixture
def cfg():
    """The folder config with a ViT of two blocks, 32 wide."""
    cfg = Config.fromfile(find_config('ebm-mask_vit-s_in1k'))
    arch = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
    cfg.model.backbone.update(arch=arch, img_size=64)
    cfg.model.head.in_channels = 32
    cfg.train_dataloader.batch_size = 64
    cfg.train_dataloader.dataset.pipeline[1].scale = 64
    return cfg


@pytest.fixture
def machine(monkeypatch):
    """Sets a machine's device and memory in bytes, and how many processes share it."""

    def of(available, device='cpu', processes=1):
        monkeypatch.setattr(memory, 'get_device', lambda: device)
        monkeypatch.setattr(memory, 'available_memory', lambda gpu: available)
        properties = type('Properties', (), dict(total_memory=available))
        monkeypatch.setattr(memory.torch.cuda, 'get_device_properties', lambda index: properties)
        monkeypatch.setenv('LOCAL_RANK', '0')
        for variable in ('WORLD_SIZE', 'LOCAL_WORLD_SIZE'):
            monkeypatch.setenv(variable, str(processes))

    return of


def peak_of(cfg):
    with memory.quietly():
        return memory.estimate(cfg, on_gpu=False)[0].peak


@pytest.mark.filterwarnings('error')
def test_a_model_that_cannot_be_built_is_left_to_the_run(cfg, machine):
    machine(2**20)
    cfg.model.head.kind = 'cubic'
    memory.check_memory(cfg)


@pytest.mark.filterwarnings('error')
def test_what_fits_says_nothing(cfg, machine, capsys):
    machine(64 * GIB)
    memory.check_memory(cfg)
    assert capsys.readouterr().out == ''


def test_a_cpu_without_enough_is_refused_and_the_first_way_out_is_one(cfg, machine):
    cfg.model.backbone.arch = 'deit-tiny'  # beside whose activations the images, which stay, are small
    cfg.model.head.in_channels = 192
    machine(peak_of(cfg) // 2)
    with pytest.raises(
        ValueError, match=r'on this machine \(cpu\)\. It does not fit: .*\n.*micro_batch=(\d+)'
    ) as error:
        memory.check_memory(cfg)
    cfg.model.training_step.micro_batch = int(str(error.value).partition('micro_batch=')[2].partition(':')[0])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        memory.check_memory(cfg)


def test_the_processes_of_a_machine_share_its_memory(cfg, machine, monkeypatch):
    machine(4 * peak_of(cfg))
    memory.check_memory(cfg)
    machine(4 * peak_of(cfg), processes=8)
    with pytest.raises(ValueError, match='It does not fit'):
        memory.check_memory(cfg)
    monkeypatch.setenv('LOCAL_RANK', '1')  # one process says so for all
    memory.check_memory(cfg)


def test_where_little_is_left_it_warns(cfg, machine):
    machine(round(1.02 * peak_of(cfg)))
    with pytest.warns(UserWarning, match='It does not fit'):
        memory.check_memory(cfg)


def test_a_gpu_is_warned_of(cfg, machine):
    machine(2**20, device='cuda')
    with pytest.warns(UserWarning, match=r'on this machine \(cuda\)\. It does not fit'):
        memory.check_memory(cfg)


def test_a_model_that_cannot_be_estimated_is_trained(cfg, machine, monkeypatch):
    machine(2**20)

    def step_cost(*args):
        raise RuntimeError('no values here\nat all')

    monkeypatch.setattr(memory, 'step_cost', step_cost)
    with pytest.warns(UserWarning, match='could not be estimated: no values here$'):
        memory.check_memory(cfg)


@pytest.mark.filterwarnings('error')
def test_other_models_are_not_estimated(machine):
    machine(1)
    memory.check_memory(Config(dict(model=dict(type='ImageClassifier'), default_scope='mmpretrain')))


@pytest.mark.parametrize(
    'file, text, limits', [('memory.max', '1024\n', [1024]), ('memory.max', 'max\n', []), ('other', '1', [])]
)
def test_a_container_has_less_than_its_machine(tmp_path, file, text, limits):
    (tmp_path / file).write_text(text)
    assert container_limits(tmp_path) == limits
    (tmp_path / 'memory').mkdir()
    (tmp_path / 'memory/memory.limit_in_bytes').write_text('2048\n')
    assert container_limits(tmp_path) == [*limits, 2048]


def test_the_smallest_share_that_is_usable():
    assert Memory(1, 1, 1, 1, 86, available=100).fits
    assert not Memory(1, 1, 1, 1, 87, available=100).fits
