"""Corrupted image modelling: what generator, tokenizer and enhancer exchange, and what they do not."""

import pytest
import torch
from mmpretrain.registry import MODELS
from sklearn.metrics import roc_auc_score
from tiny import ColorTokenizer, tiny_cim, tiny_vit
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate, mse_loss

from mmebm.engine.hooks.restoration_visualization_hook import side_by_side
from mmebm.models import VQVAE
from mmebm.models.heads.grid_projection import GridProjection
from mmebm.models.losses.detection import auroc, detection_accuracy
from mmebm.models.losses.window_normalization import window_normalized
from mmebm.pixels import PICTURES

TASKS = ['respix', 'revdet']


def build(task='revdet', **options):
    torch.manual_seed(0)
    model = MODELS.build(tiny_cim(task, **options))
    model.init_weights()
    return model


def batch(num=4, size=16):
    """Normalised images of smooth colours."""
    coarse = torch.rand(num, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    return (interpolate(coarse, (size, size), mode='bilinear') * 255 - 127.5) / 64


def enhancer(model):
    return {name: p for name, p in model.named_parameters() if name.startswith(('backbone.', 'head.'))}


def generator(model):
    return {name: p for name, p in model.named_parameters() if name.startswith('generator.')}


@pytest.mark.parametrize('task', TASKS)
def test_losses_and_statistics(task):
    losses = build(task).train().loss([batch()])
    assert {name for name in losses if 'loss' in name} == {'loss_generator', f'loss_{task}'}
    own = ['objective_ratio'] if task == 'respix' else ['revdet_accuracy', 'revdet_auroc']
    assert sorted(set(losses) - {'loss_generator', f'loss_{task}'}) == sorted(
        [*own, 'generator_accuracy', 'replaced_share', 'token_perplexity']
    )
    assert all(value.isfinite() and value.dim() == 0 for value in losses.values())
    assert 0 < losses['replaced_share'] <= 9 / 16


def test_no_gradient_crosses_between_generator_and_enhancer():
    for task in TASKS:
        model = build(task).train()
        losses = model.loss([batch()])
        parts = {f'loss_{task}': enhancer(model), 'loss_generator': generator(model)}
        everything = {name: p for part in parts.values() for name, p in part.items()}
        assert {name for name, p in model.named_parameters() if p.requires_grad} == set(everything)
        for name, part in parts.items():
            gradients = torch.autograd.grad(
                losses[name], list(everything.values()), retain_graph=True, allow_unused=True
            )
            reached = {key for key, gradient in zip(everything, gradients, strict=True) if gradient is not None}
            assert reached == set(part)


def test_the_tokenizer_does_not_move():
    model = build(tokenizer=dict(model=ColorTokenizer())).train()
    before = {name: value.clone() for name, value in model.tokenizer.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    for _ in range(10):
        optimizer.zero_grad()
        losses = model.loss([batch()])
        (losses['loss_generator'] + losses['loss_revdet']).backward()
        optimizer.step()
    assert all(value.equal(before[name]) for name, value in model.tokenizer.state_dict().items())


def test_the_enhancer_reads_the_decoded_tokens(monkeypatch):
    for painting in ('decoded', 'pasted', 'masked'):
        model, read = build(painting=painting).eval(), []
        model.backbone.register_forward_pre_hook(lambda module, args, read=read: read.append(args[0]))
        images = batch()
        (sample, *_) = model.predict([images])
        decoded = model.tokenizer.decode(sample.sampled[None])[0]
        if painting == 'pasted':
            grey = (sample.masked == 127.5).all(dim=0)
            assert grey.sum() == 9 * 16
            decoded = torch.where(grey, decoded, model.to_pixels(images)[0])
        if painting == 'masked':  # whatever was drawn
            assert sample.replaced.sum() == 9
            decoded = decoded.masked_fill(sample.replaced.repeat_interleave(4, 0).repeat_interleave(4, 1), 127.5)
        torch.testing.assert_close(sample.corrupted, decoded)
        torch.testing.assert_close(read[0][0], (decoded - 127.5) / 64)


def test_masked_patches_are_told_by_revdet():
    model, labels = build(painting='masked').train(), []
    loss = model.head.loss
    model.head.loss = lambda output, view: labels.append(view.replaced) or loss(output, view)
    losses = model.loss([batch()])
    assert labels[0].sum(dim=(1, 2)).tolist() == [9] * 4
    assert losses['replaced_share'] <= 9 / 16  # of tokens, some draws of which may be golden


@pytest.mark.parametrize('task', TASKS)
def test_predictions(task):
    model = build(task).eval()
    state = torch.get_rng_state()
    samples, again = model.predict([batch()]), model.predict(batch())
    assert torch.get_rng_state().equal(state)
    assert len(samples) == 4
    sample = samples[0]
    for name in ('clean', 'masked', 'corrupted', *(['restored'] if task == 'respix' else [])):
        assert sample.get(name).shape == (3, 16, 16)
        assert sample.get(name).min() >= 0 and sample.get(name).max() <= 255
    for name in ('golden', 'sampled', 'replaced', *(['replaced_logits'] if task == 'revdet' else [])):
        assert sample.get(name).shape == (4, 4)
        assert sample.get(name).equal(again[0].get(name))
    assert sample.replaced.equal(sample.golden != sample.sampled)
    if task == 'revdet':
        assert sample.replaced_map[0, ::4, ::4].equal(sample.replaced * 255.0)
        torch.testing.assert_close(sample.detected_map[0, 3::4, 3::4], sample.replaced_logits.sigmoid() * 255)
    assert 0 <= sample.generator_accuracy <= 1


@pytest.mark.parametrize('task', TASKS)
def test_the_images_of_predictions_are_known(task):
    """So that they are drawn, and left out of files of predictions."""
    (sample,) = build(task).eval().predict([batch(1)])
    images = {name for name, value in sample.to_dict().items() if tuple(value.shape[-2:]) == (16, 16)}
    assert images <= set(PICTURES)
    assert side_by_side(sample).shape == (16, 16 * len(images), 3)


def test_features_are_those_of_clean_images():
    model = build().eval()
    torch.testing.assert_close(model([batch()]), model.backbone(batch()))


def test_revdet_loss_on_a_known_map():
    model = build()
    labels = torch.tensor([[[True, False], [False, False]]])
    logits = torch.tensor([[[2.0, -1.0], [0.5, -3.0]]])
    pixels = model.to_pixels(batch(1))
    view = model._view(pixels, model.generator(batch(1), model.tokenizer.tokens(pixels)))
    losses = model.head.loss(logits, view._replace(replaced=labels))
    torch.testing.assert_close(losses['loss_revdet'], binary_cross_entropy_with_logits(logits, labels.float()))
    assert losses['revdet_accuracy'] == 0.75 and losses['revdet_auroc'] == 1.0


def test_respix_recovers_what_is_normalised():
    """The target itself has no loss, and with the statistics of the clean image it gives back the clean image."""
    model = build('respix')
    images = batch(2)
    pixels = model.to_pixels(images)
    view = model._view(pixels, model.generator(images, model.tokenizer.tokens(pixels)))
    target = window_normalized(view.clean / 255, 8, 1e-4)
    assert model.head.loss(target, view)['loss_respix'] == 0
    unchanged = model.head.loss(window_normalized(view.corrupted / 255, 8, 1e-4), view)
    torch.testing.assert_close(unchanged['objective_ratio'], torch.tensor(1.0))
    losses = model.head.loss(torch.zeros_like(target), view)
    torch.testing.assert_close(losses['loss_respix'], mse_loss(torch.zeros_like(target), target))
    restored = model.head.predict(target, view._replace(corrupted=view.clean))['restored']
    torch.testing.assert_close(restored, view.clean, atol=1e-2, rtol=0)


@pytest.mark.parametrize('window', [3, 4, 8])
def test_window_normalisation_equals_a_loop(window):
    images = torch.rand(1, 2, 10, 9, generator=torch.Generator().manual_seed(0))
    before, behind = (window - 1) // 2, window // 2
    padded = torch.nn.functional.pad(images.double(), (before, behind, before, behind), mode='reflect')
    expected = torch.empty(1, 2, 10, 9, dtype=torch.float64)
    for channel in range(2):
        for row in range(10):
            for column in range(9):
                values = padded[0, channel, row : row + window, column : column + window]
                deviation = (values.var(correction=0) + 1e-4).sqrt()
                expected[0, channel, row, column] = (images[0, channel, row, column] - values.mean()) / deviation
    torch.testing.assert_close(window_normalized(images, window, 1e-4).double(), expected, atol=1e-4, rtol=1e-4)


def test_window_normalisation_of_flat_and_scaled_images():
    flat = torch.tensor([0.9, 0.1, 0.5]).view(1, 3, 1, 1).expand(1, 3, 12, 12)
    assert window_normalized(flat, 8, 1e-4).abs().max() < 1e-3
    images = torch.rand(1, 3, 12, 12)
    torch.testing.assert_close(window_normalized(images, 5, 0.0), window_normalized(0.3 * images + 0.6, 5, 0.0),
                               atol=1e-3, rtol=1e-3)  # fmt: skip
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert window_normalized(images.bfloat16(), 5, 1e-4).dtype == torch.float32


def test_a_position_predicts_the_tokens_within_it():
    """Of a backbone with a stride of 32: 2 x 2 tokens of 16 pixels at each position."""
    projection = GridProjection(2, 1, 32, 16)
    convolution = projection[0]
    torch.nn.init.zeros_(convolution.weight)
    convolution.weight.data[:, 0] = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1)
    torch.nn.init.zeros_(convolution.bias)
    features = torch.zeros(1, 2, 7, 7)
    features[0, 0, 2, 3] = 1
    cells = projection(features)
    assert cells.shape == (1, 1, 14, 14)
    assert cells[0, 0, 4:6, 6:8].tolist() == [[1, 2], [3, 4]] and cells.sum() == 10
    assert GridProjection(2, 1, 4, 16)(torch.zeros(1, 2, 8, 8)).shape == (1, 1, 2, 2)
    with pytest.raises(ValueError, match='a stride of 32 pixels cannot predict cells of 12'):
        GridProjection(2, 1, 32, 12)


def test_auroc_and_accuracy_equal_sklearns():
    rng = torch.Generator().manual_seed(0)
    labels = torch.rand(6, 50, generator=rng) < 0.4
    scores = 30 * torch.randn(6, 50, generator=rng) + 20 * labels
    assert auroc(scores, labels).item() == pytest.approx(roc_auc_score(labels.flatten(), scores.flatten()), abs=1e-6)
    assert detection_accuracy(scores, labels).item() == pytest.approx(((scores > 0) == labels).double().mean().item())
    assert auroc(scores, torch.zeros_like(labels)).isnan()


ARCH = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(generator=dict(vocabulary=28)), 'the tokenizer has 27 tokens; set model.generator.vocabulary to that'),
        (
            dict(generator=dict(backbone=dict(type='BEiTPretrainViT', arch=ARCH, img_size=16, patch_size=8))),
            'a token is 4 x 4 pixels of the image, and a patch of the generator 8 x 8',
        ),
        (dict(tokenizer=dict(scale=0.5)), 'a token is 8 x 8 pixels of the image, and a patch of the generator 4 x 4'),
        (dict(head=dict(token_stride=8)), 'set model.head.token_stride to that, not to 8'),
        (dict(painting=None), r"painting must be one of \['decoded', 'pasted', 'masked'\], not None"),
        (dict(head=dict(token_stride=0)), 'token_stride must be a whole number of at least 1, not 0'),
        (dict(head=dict(stride=None)), 'stride must be a whole number of at least 1, not None'),
        (dict(painting='drawn'), r"painting must be one of \['decoded', 'pasted', 'masked'\], not 'drawn'"),
    ],
)
def test_parts_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


@pytest.mark.parametrize(
    'task, options, inputs, message',
    [
        ('revdet', {}, [batch(), batch()], 'CIM needs one view of 16 x 16 pixels .* not 2 of 16 x 16'),
        ('revdet', {}, [batch(size=24)], 'not 1 of 24 x 24'),
        (
            'revdet',
            dict(head=dict(stride=8)),
            [batch()],
            r'RevDetHead predicts \(8, 8\) tokens, but there are \(4, 4\)',
        ),
        ('respix', dict(head=dict(stride=8)), [batch()], r'ResPixHead predicts \(32, 32\) pixels, .*model.head.stride'),
        ('revdet', {}, [], 'CIM needs one view of 16 x 16 pixels .* not 0'),
        ('revdet', dict(head=dict(in_channels=24)), [batch()], 'RevDetHead reads features of 24 channels, .* have 16'),
        ('respix', dict(head=dict(in_channels=24)), [batch()], 'ResPixHead reads features of 24 channels, .* have 16'),
        ('respix', dict(head=dict(window=32)), [batch()], 'images of 16 x 16 pixels are too small .* window of 32'),
        ('revdet', dict(tokenizer=dict(std=[1.0] * 3)), [batch()], 'other units than mean and std make'),
    ],
)
def test_bad_input_in_the_first_step(task, options, inputs, message):
    with pytest.raises(ValueError, match=message):
        build(task, **options).loss(inputs)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(window=0), 'window must be a whole number of at least 2, not 0'),
        (dict(window=4.5), 'window must be a whole number of at least 2, not 4.5'),
        (dict(eps=0), 'eps must be a positive number, not 0'),
        (dict(eps=-1e-4), 'eps must be a positive number, not -0.0001'),
    ],
)
def test_options_of_respix(options, message):
    with pytest.raises(ValueError, match=message):
        build('respix', head=options)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(tokenizer=VQVAE(num_embed=27, width=8)), 'model.tokenizer must be a FrozenTokenizer, not a VQVAE'),
        (dict(generator=None), 'model.generator must be a TokenGenerator, not a NoneType'),
        (dict(head=dict(type='mmebm.EnergyHead', in_channels=16)), 'a ResPixHead or a RevDetHead, not a EnergyHead'),
        (dict(head=None), 'model.head must be a ResPixHead or a RevDetHead, not a NoneType'),
        (
            dict(generator=dict(type='mmebm.TokenGenerator', backbone=tiny_vit(img_size=16), vocabulary=27)),
            "VisionTransformer does not read images with masked patches; set .*type='BEiTPretrainViT'",
        ),
    ],
)
def test_parts_of_another_kind(options, message):
    with pytest.raises(TypeError, match=message):
        MODELS.build(tiny_cim() | options)


def test_the_cost_of_an_untrained_tokenizer_can_be_measured():
    model = build(tokenizer=dict(std=[1.0] * 3, checked=False)).train()
    assert model.loss([batch()])['loss_revdet'].isfinite()


def test_a_head_needs_a_map():
    config = tiny_cim()
    config['backbone']['out_type'] = 'raw'
    with pytest.raises(ValueError, match="in model.backbone, set out_type='featmap'"):
        MODELS.build(config).loss([batch()])


RESNET50 = dict(type='ResNet', depth=50, base_channels=4, stem_channels=4)
CONVNEXT = dict(type='ConvNeXt', arch=dict(depths=[1, 1, 1, 1], channels=[4, 8, 8, 16]), gap_before_final_norm=False)
SWIN = dict(type='SwinTransformer', arch=dict(embed_dims=8, depths=[1] * 4, num_heads=[1, 1, 2, 2]), img_size=64)
VIT = tiny_vit(img_size=64, patch_size=16, out_type='featmap')


@pytest.mark.parametrize(
    'backbone, width, stride',
    [(RESNET50, 128, 32), (CONVNEXT, 16, 32), (SWIN | dict(pad_small_map=True), 64, 32), (VIT, 16, 16)],
)
@pytest.mark.parametrize('task', TASKS)
def test_other_backbones_take_a_step(backbone, width, stride, task):
    arch = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
    trunk = dict(type='BEiTPretrainViT', arch=arch, img_size=64, patch_size=16)
    head = dict(in_channels=width, stride=stride) | (dict(token_stride=16) if task == 'revdet' else {})
    model = build(task, backbone=backbone, head=head, tokenizer=dict(model=ColorTokenizer(8), scale=0.5),
                  generator=dict(backbone=trunk)).train()  # fmt: skip
    losses = model.loss([batch(size=64)])
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
