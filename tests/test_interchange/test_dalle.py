"""DALL-E's tokenizer: its decoder, and its published pickles, which are read without running anything in them."""

import hashlib
import os
import sys
import types

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn

from mmebm.commands import import_dalle as command
from mmebm.interchange.dalle import import_dalle, read_pickled_module
from mmebm.models import DALLE, FrozenTokenizer
from mmebm.registry import MODELS

SIZES = dict(width=8, vocabulary=12, embed_dims=6)


def small(**options):
    torch.manual_seed(0)
    return DALLE(**SIZES, **options)


@pytest.fixture
def pickles(tmp_path, monkeypatch):
    """Modules saved whole, of classes in a package that is gone when they are read, as that of the published files."""
    model, package = small(), types.ModuleType('dall_e_of_others')
    monkeypatch.setitem(sys.modules, package.__name__, package)
    for part in ('encoder', 'decoder'):
        Part = type(part.title(), (nn.Module,), dict(__module__=package.__name__))
        setattr(package, part.title(), Part)
        whole = Part()
        whole.blocks = getattr(model, part).blocks
        torch.save(whole, tmp_path / f'{part}.pkl')
    monkeypatch.delitem(sys.modules, package.__name__)
    return model, tmp_path / 'encoder.pkl', tmp_path / 'decoder.pkl'


def test_pickles_become_a_tokenizer(pickles, tmp_path):
    model, encoder, decoder = pickles
    out = tmp_path / 'dalle.safetensors'
    digest = hashlib.sha256(encoder.read_bytes()).hexdigest()
    found = import_dalle(encoder, decoder, out, dict(encoder=digest.upper()), small())
    assert found['encoder'] == digest
    with safe_open(out, 'pt') as file:
        assert file.metadata() == {f'{part}_sha256': value for part, value in found.items()}
    loaded = MODELS.build(dict(type='mmebm.DALLE', checkpoint=str(out), **SIZES))
    nn.init.zeros_(loaded.decoder.blocks.output.conv.w)
    loaded.init_weights()
    assert all(value.equal(model.state_dict()[name]) for name, value in loaded.state_dict().items())
    tokens = loaded.tokens(torch.rand(2, 3, 16, 24))
    assert tokens.shape == (2, 2, 3) and loaded.decode(tokens).shape == (2, 3, 16, 24)


def test_decoder_has_the_published_names_and_sizes():
    """Of its 43.8 million parameters; on the meta device, which allocates nothing."""
    with torch.device('meta'):
        decoder = DALLE().decoder
    state = {name: tuple(value.shape) for name, value in decoder.state_dict().items()}
    assert sum(value.numel() for value in decoder.parameters()) == pytest.approx(43.8e6, rel=0.002)
    assert state['blocks.input.w'] == (128, 8192, 1, 1)
    assert state['blocks.group_1.block_1.id_path.w'] == (2048, 128, 1, 1)
    assert state['blocks.group_1.block_1.res_path.conv_1.w'] == (512, 128, 1, 1)
    assert state['blocks.group_4.block_2.res_path.conv_4.w'] == (256, 64, 3, 3)
    assert state['blocks.output.conv.w'] == (6, 256, 1, 1)
    assert 'blocks.group_1.block_2.id_path.w' not in state


def test_a_look_up_equals_a_convolution_of_one_hot_vectors():
    decoder = small().decoder
    tokens = torch.randint(12, (2, 3, 4))
    one_hot = F.one_hot(tokens, 12).permute(0, 3, 1, 2).float()
    x = decoder.blocks.input(one_hot)
    for number in range(1, 5):
        x = decoder.blocks[number](x)
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3) if number < 4 else x
    torch.testing.assert_close(decoder(tokens), decoder.blocks.output(x)[:, :3].sigmoid())


def test_a_residual_block():
    block = small().decoder.blocks.group_2.block_2
    x = torch.randn(1, 32, 3, 3)
    y = x
    for number, padding in enumerate((0, 1, 1, 1), start=1):
        conv = getattr(block.res_path, f'conv_{number}')
        y = F.conv2d(y.relu(), conv.w, conv.b, padding=padding)
    torch.testing.assert_close(block(x), x + y / 64)


def test_in_cim_a_token_is_a_patch():
    frozen = FrozenTokenizer(small(), mean=[-31.875] * 3, std=[318.75] * 3, scale=0.5)
    assert (frozen.stride, frozen.vocabulary) == (16, 12)
    pixels = torch.rand(1, 3, 32, 32) * 255
    tokens = frozen.tokens(pixels)
    assert tokens.shape == (1, 2, 2)
    decoded = frozen.decode(tokens)
    assert decoded.shape == pixels.shape and decoded.min() >= 0 and decoded.max() <= 255
    assert not any(p.requires_grad for p in frozen.parameters())


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, *command):
        self.command = command

    def __reduce__(self):
        return os.system, self.command


@pytest.mark.parametrize('place', ['whole', 'attribute', 'parameter'])
def test_a_hostile_file_runs_nothing(place, tmp_path):
    mark, path, module = tmp_path / 'ran', tmp_path / 'hostile.pkl', small().decoder
    hostile = Hostile(f'touch {mark}')
    if place == 'attribute':
        module.extra = hostile
    if place == 'parameter':
        module.blocks.input._parameters['b'] = hostile
    torch.save(hostile if place == 'whole' else module, path)
    if place == 'whole':
        with pytest.raises(ValueError, match='holds no module with weights, but a Inert'):
            read_pickled_module(path)
    else:
        expected = set(small().decoder.state_dict()) - ({'blocks.input.b'} if place == 'parameter' else set())
        assert set(read_pickled_module(path)) == expected
    assert not mark.exists()
    torch.load(path, weights_only=False)  # it is hostile indeed
    assert mark.exists()


def test_a_module_within_itself(tmp_path):
    module = small().decoder
    module.blocks.input._modules['again'] = module
    torch.save(module, tmp_path / 'loop.pkl')
    with pytest.raises(ValueError, match='is damaged, or no pickled module .RecursionError'):
        read_pickled_module(tmp_path / 'loop.pkl')


def test_what_is_refused(pickles, tmp_path):
    model, encoder, decoder = pickles
    out = tmp_path / 'out.safetensors'
    with pytest.raises(ValueError, match=r'encoder.pkl has the SHA-256 [0-9a-f]{64}, not 00: download it again'):
        import_dalle(encoder, decoder, out, dict(encoder='00'), small())
    with pytest.raises(
        ValueError, match=r"of another architecture than DALL-E's published tokenizer: .*encoder.blocks"
    ):
        import_dalle(decoder, encoder, out, model=small())
    (tmp_path / 'text.pkl').write_text('no pickle')
    with pytest.raises(ValueError, match='text.pkl is no file of torch.save'):
        import_dalle(encoder, tmp_path / 'text.pkl', out, model=small())
    torch.jit.script(nn.ReLU()).save(tmp_path / 'script.pkl')
    with pytest.raises(ValueError, match='script.pkl holds compiled code'):
        import_dalle(encoder, tmp_path / 'script.pkl', out, model=small())
    half = tmp_path / 'half.pkl'
    half.write_bytes(encoder.read_bytes()[:-2000])
    with pytest.raises(ValueError, match='half.pkl is no file of torch.save'):
        import_dalle(half, decoder, out, model=small())
    with pytest.raises(FileNotFoundError, match='No file ".*none.pkl"'):
        import_dalle(encoder, tmp_path / 'none.pkl', out, model=small())
    with pytest.raises(ValueError, match='name a file that ends in .safetensors'):
        import_dalle(encoder, decoder, tmp_path / 'out.pth', model=small())
    assert not out.exists()
    out.write_text('')
    with pytest.raises(FileExistsError, match='name a new file'):
        import_dalle(encoder, decoder, out, model=small())


def test_weights_of_another_size_or_none(pickles, tmp_path):
    _, encoder, decoder = pickles
    out = tmp_path / 'dalle.safetensors'
    import_dalle(encoder, decoder, out, model=small())
    with pytest.raises(ValueError, match='of another architecture than DALLE of 13 tokens'):
        DALLE(out, **SIZES | dict(vocabulary=13)).init_weights()
    with pytest.raises(FileNotFoundError, match='No checkpoint ".*none.safetensors"'):
        small(checkpoint=tmp_path / 'none.safetensors').init_weights()


def test_the_command_names_what_is_wrong(tmp_path, capsys):
    with pytest.raises(SystemExit):
        command.main([str(tmp_path / 'e.pkl'), str(tmp_path / 'd.pkl'), '--out', str(tmp_path / 'o.safetensors')])
    assert 'No file' in capsys.readouterr().err
