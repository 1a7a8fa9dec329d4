"""A trained generator as a corruption of EBMAlgorithm, on whole batches."""

import copy
import hashlib

import cv2
import pytest
import torch
from mmengine.config import Config
from tiny import ROOT, build_ebm, save_cim, save_ebm, tiny_vit
from torch.nn.functional import interpolate

from mmebm.apis.loading import load_model
from mmebm.datasets import Shapes
from mmebm.datasets.corrupted_files import write_corrupted
from mmebm.engine.hooks.restoration_progress_hook import steps_between
from mmebm.planning.plan import notes_on
from mmebm.planning.step_cost import build_model

PREPROCESSOR = dict(mean=[127.5] * 3, std=[64.0] * 3)


@pytest.fixture(scope='module')
def cim(tmp_path_factory):
    """The file of a saved CIM, and the model in it."""
    path = tmp_path_factory.mktemp('cim') / 'cim.pth'
    return str(path), save_cim(path)


def build(cim, corruption=None, **options):
    """An EBM that a saved CIM corrupts the images of."""
    torch.manual_seed(0)
    corruption = dict(type='mmebm.GeneratorCorruption', checkpoint=cim[0]) | (corruption or {})
    options = dict(step_size=0.1, data_preprocessor=PREPROCESSOR, backbone=tiny_vit(img_size=16)) | options
    model = build_ebm(corruption=corruption, **options)
    model.init_weights()
    return model.train()


def shapes(number=8):
    """Images as a pipeline gives them, uint8 (N, 3, H, W), of smooth colours."""
    coarse = torch.rand(number, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    return (interpolate(coarse, (16, 16), mode='bilinear') * 255).round().to(torch.uint8)


def normalised(images):
    return (images.float() - 127.5) / 64


@pytest.mark.parametrize('target', ['clean', 'decoded'])
def test_images_are_those_that_make_corrupted_writes(target, cim, tmp_path):
    pipeline = [dict(type='PackInputs', meta_keys=('sample_idx',))]
    dataset = Shapes(size=4, image_size=16, pipeline=pipeline)
    write_corrupted(cim[1], dataset, tmp_path / 'out', target=target, seed=3)
    written = {
        part: torch.stack(
            [
                torch.from_numpy(cv2.imread(str(tmp_path / f'out/{part}/{i:06d}.png')).transpose(2, 0, 1))
                for i in range(4)
            ]
        )
        for part in ('clean', 'corrupted')
    }
    model = build(cim, dict(target=target))
    model._is_first_batch = False  # squares of one colour do not pass the check of the tokenizer
    images = torch.stack([dataset[i]['inputs'] for i in range(4)])
    corrupted, clean, replaced = model.corruption(normalised(images), model, torch.Generator().manual_seed(3))
    assert corrupted.equal(normalised(written['corrupted']))
    assert clean.equal(normalised(written['clean']))
    assert clean.equal(normalised(images)) == (target == 'clean')
    # The tokenizer's squares have one colour each: where the decoded images differ, a token was replaced.
    differ = (corrupted != model.from_pixels(cim[1].tokenizer.decode(tokens(cim, images)).round())).any(dim=1)
    assert replaced.equal(differ) and 0.1 < replaced.float().mean() <= 9 / 16


def tokens(cim, images):
    return cim[1].tokenizer.tokens(images.float())


def test_the_loss_is_that_of_the_pair_that_a_pipeline_delivers(cim):
    model = build(cim, num_steps=2)
    other = build_ebm(backbone=tiny_vit(img_size=16), step_size=0.1, num_steps=2, data_preprocessor=PREPROCESSOR)
    other.load_state_dict(model.state_dict())
    torch.manual_seed(5)
    rng = torch.Generator().manual_seed(int(torch.randint(2**63 - 1, ())))
    corrupted, clean, _ = model.corruption(normalised(shapes()), model, rng)
    results = []
    for ebm, inputs in ((model, normalised(shapes())), (other.train(), [corrupted, clean])):
        torch.manual_seed(5)
        losses = ebm.loss(inputs)
        losses['loss'].backward()
        results.append((losses, [p.grad for p in ebm.parameters()]))
    (ours, our_gradients), (theirs, their_gradients) = results
    assert ours.keys() - theirs.keys() == {'replaced_share'}
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    for a, b in zip(our_gradients, their_gradients, strict=True):
        assert (a is None) == (b is None) and (a is None or a.equal(b))


def test_the_corruption_is_the_same_in_any_number_of_parts(cim):
    losses = []
    for options in (dict(), dict(micro_batch=3), dict(micro_batch=1), dict(low_memory=True)):
        model = build(cim, **options)
        torch.manual_seed(7)
        losses.append(model.loss([normalised(shapes())]))
    for other in losses[1:]:
        for name, value in losses[0].items():
            torch.testing.assert_close(other[name], value)
    assert losses[0]['replaced_share'] > 0.1


def test_draws_follow_the_seed_of_the_step_and_not_the_model(cim):
    model, drawn = build(cim), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(model.corruption(normalised(shapes()), model)[0])
    assert drawn[0].equal(drawn[1]) and not drawn[0].equal(drawn[2])
    with torch.autocast('cpu', dtype=torch.bfloat16):  # it has its own precision
        torch.manual_seed(1)
        assert model.corruption(normalised(shapes()), model)[0].equal(drawn[0])


def test_the_generator_is_no_part_of_the_model(cim):
    model, plain = build(cim), build_ebm(backbone=tiny_vit(img_size=16), step_size=0.1)
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert len([*model.modules()]) == len([*plain.modules()])
    before = {name: value.clone() for name, value in model.corruption.cim.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(3):
        model.loss([normalised(shapes())])['loss'].backward()
        optimizer.step()
    assert all(value.equal(before[name]) for name, value in model.corruption.cim.state_dict().items())
    assert not any(p.requires_grad or p.grad is not None for p in model.corruption.cim.parameters())
    assert not any(module.training for module in model.corruption.cim.modules())
    assert copy.deepcopy(model).corruption is model.corruption


def test_a_trained_model_does_without_the_generator(cim, tmp_path):
    """It is neither built, restored by nor exported with it."""
    model = build(cim)
    config = dict(
        type='mmebm.EBMAlgorithm',
        backbone=tiny_vit(img_size=16),
        head=dict(type='mmebm.EnergyHead', in_channels=16),
        corruption=dict(type='mmebm.GeneratorCorruption', checkpoint='gone.pth'),
        data_preprocessor=PREPROCESSOR,
    )
    meta = dict(cfg=Config(dict(model=config)).pretty_text)
    torch.save(dict(state_dict=model.state_dict(), meta=meta), tmp_path / 'ebm.pth')
    loaded = load_model(tmp_path / 'ebm.pth', None).model.eval()
    pair = [normalised(shapes(2).flip(3)), normalised(shapes(2))]
    assert loaded.predict(pair)[0].restored.equal(model.eval().predict(pair)[0].restored)
    with pytest.raises(FileNotFoundError, match='No file "gone.pth". Set model.corruption.checkpoint'):
        loaded.loss(pair[1])


def test_tokens_are_contrasted_by_what_was_replaced(cim):
    """Not by what differs: with clean targets, all of the decoded image does."""
    model = build(cim, token_nce_weight=1.0, restored_share=0.5)
    torch.manual_seed(3)
    pair = model.patch_choice(*model.corruption(normalised(shapes()), model))
    assert (pair.corrupted != pair.clean).any(dim=1).float().mean() > 0.9
    changed = model.patch_choice.changed(pair, 17)
    assert changed.equal(pair.replaced[:, ::4, ::4].flatten(1))
    assert 0.1 < changed.float().mean() <= 9 / 16
    torch.manual_seed(3)
    losses = model.loss([normalised(shapes())])
    energies = model.head.token_energies(model.backbone(pair.corrupted))[:, 1:]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(energies, changed.float())
    torch.testing.assert_close(losses['loss_token_nce'], expected)


def test_images_without_a_replaced_token_are_not_restored(cim):
    model = build(cim, dict(mask_ratio=0.0625), token_nce_weight=1.0, restored_share=0.25)
    pair = model.patch_choice(*model.corruption(normalised(shapes(64)), model, torch.Generator().manual_seed(0)))
    told = pair.replaced.flatten(1).any(dim=1)
    assert 32 < told.sum() < 64  # one token of each image is masked; some draws hit the golden one
    to_restore, others = model._split(pair)
    assert to_restore.changed_pixels().flatten(1).any(dim=1).all()
    assert (~others.changed_pixels().flatten(1).any(dim=1)).sum() == 64 - told.sum()


def test_dropped_tokens_and_contents(cim):
    """Patches of 8 pixels hold four tokens; one is corrupted if a token of it is."""
    model = build(
        cim,
        backbone=tiny_vit(img_size=16, patch_size=8),
        token_nce_weight=1.0,
        token_dropping=dict(patch_size=8, visible=0.25, corrupted=0.5),
        content_dropping=dict(ratio=0.25),
        position_dropping=dict(ratio=0.25),
    )
    pair = model.patch_choice(*model.corruption(normalised(shapes()), model))
    whole = pair.replaced.unflatten(2, (2, 8)).unflatten(1, (2, 8)).any(dim=4).any(dim=2).flatten(1)
    assert pair.changed.equal(whole.gather(1, pair.kept)) and pair.kept.shape == (8, 3)
    losses = model.loss([normalised(shapes())])
    assert {'loss_restoration', 'loss_token_nce', 'loss_position', 'loss_content'} <= losses.keys()
    assert all(value.isfinite().all() for value in losses.values())


def test_steps_between_begin_with_the_corrupted_image(cim):
    model = build(cim, step_size=1e-6, num_steps=3).eval()
    batch = dict(inputs=[shapes(2)], data_samples=None)
    samples = model.val_step(batch)
    for sample, (first, _) in zip(samples, steps_between(model, batch, 2), strict=True):  # which hardly moves
        torch.testing.assert_close(first, sample.corrupted, rtol=0, atol=0.01)
        assert (sample.corrupted - sample.clean).abs().max() > 1


def test_predictions(cim):
    """Pairs and images are restored as they are; a list of one view is corrupted, alike for every batch."""
    model = build(cim, token_nce_weight=1.0).eval()
    images = normalised(shapes(2))
    (plain, _), (pair, _) = model.predict(images), model.predict([images.flip(3), images])
    assert 'clean' not in plain and pair.corrupted.equal(model.to_pixels(images.flip(3))[0])
    state = torch.get_rng_state()
    (sample, _), (again, _) = model.predict([images]), model.predict([images])
    assert torch.get_rng_state().equal(state)
    assert sample.corrupted.equal(again.corrupted) and not sample.corrupted.equal(pair.corrupted)
    assert sample.clean.equal(model.to_pixels(images)[0])
    assert sample.replaced_pixels.shape == (16, 16) and sample.replaced_pixels.dtype == torch.bool
    torch.testing.assert_close(model([images]), model(images))


@pytest.mark.parametrize(
    ('corruption', 'images', 'message'),
    [
        (dict(), [shapes(), shapes()], 'gives 2 views, where this reads clean images.*leave mmebm.CorruptedPair out'),
        (dict(), torch.zeros(2, 3, 32, 32), r'reads images of 16 x 16 pixels and 3 channels, not of 32 x 32 pixels'),
        (dict(), torch.zeros(2, 1, 16, 16), r'not of 16 x 16 pixels and 1 channels'),
        (dict(mask_ratio=1.0), None, 'mask_ratio=1.0 masks 16 of 16 patches'),
        (dict(mask_ratio='half'), None, "mask_ratio must be a number, not 'half'"),
        (dict(temperature=0), None, 'temperature must be a positive number, not 0'),
        (dict(choice='best'), None, 'choice must be one of'),
        (dict(target='golden'), None, r"target must be one of \['clean', 'decoded'\], not 'golden'"),
        (dict(target='decoded', painting='pasted'), None, "painting='pasted' leaves original pixels"),
        (dict(painting='blurred'), None, "painting must be one of .*, not 'blurred'"),
        (dict(sha256='0' * 64), None, f'has the SHA-256 .*, not {"0" * 64}: download it again'),
    ],
)
def test_bad_input(corruption, images, message, cim):
    with pytest.raises(ValueError, match=message):
        build(cim, corruption).loss(images if isinstance(images, list) else normalised(images))


def test_options_that_do_not_exist(cim):
    with pytest.raises(TypeError, match="GeneratorCorruption has no option 'ratio'"):
        build(cim, dict(ratio=0.5))


@pytest.mark.parametrize('kind', ['mmebm.GaussianNoise', 'mmebm.CIM'])
def test_other_corruptions(kind):
    with pytest.raises(TypeError, match=f"must be a GeneratorCorruption, .* not '{kind}'; corruptions of"):
        build_ebm(corruption=dict(type=kind))


def test_a_plan_says_what_it_leaves_out():
    """And needs no generator."""
    cfg = Config.fromfile(ROOT / 'configs' / 'ebm-generator_vit-t_shapes.py')
    assert build_model(cfg).corruption is None
    plan = dict(images_per_second=1.0, speed_is_guess=False, speed_source='as given', images=1, learning_rate=None)
    assert any('without the forward passes of model.corruption' in note for note in notes_on(cfg, plan))


def test_the_right_hash(cim):
    digest = hashlib.sha256(open(cim[0], 'rb').read()).hexdigest()  # noqa: PTH123, SIM115
    assert build(cim, dict(sha256=digest.upper())).corruption.cim is not None


def test_files_that_hold_no_generator(cim, tmp_path):
    torch.save(build(cim).state_dict(), tmp_path / 'bare.pth')
    with pytest.raises(ValueError, match='bare.pth does not say with which config it was trained'):
        build([str(tmp_path / 'bare.pth')])
    save_ebm(tmp_path / 'ebm.pth')
    with pytest.raises(ValueError, match='ebm.pth is of EBMAlgorithm, which has no generator'):
        build([str(tmp_path / 'ebm.pth')])
    save_cim(tmp_path / 'rgb.pth', data_preprocessor=PREPROCESSOR | dict(to_rgb=True))
    with pytest.raises(ValueError, match='trained with data_preprocessor.to_rgb=True, and this model has False'):
        build([str(tmp_path / 'rgb.pth')])


def test_a_tokenizer_of_other_units_is_refused(cim):
    model = build(cim)
    model.corruption.cim.tokenizer.std.fill_(1.0)
    try:
        with pytest.raises(ValueError, match='in other units than mean and std make'):
            model.loss([normalised(shapes())])
    finally:
        model.corruption.cim.tokenizer.std.fill_(255.0)
