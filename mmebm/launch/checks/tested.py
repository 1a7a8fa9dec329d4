"""Checks that a test has all weights that it uses; mmengine would leave the others at random."""

import re

from mmengine.config import Config

from mmebm.checkpoint import read_loadable
from mmebm.launch.checks.pretrained import BACKBONE, FROM_BACKBONE, but_for_ends
from mmebm.misfit import COMPUTED, load
from mmebm.model_building import build, complete_model_config

# Read by training alone.
AUXILIARY = re.compile(r'auxiliary_head\..*')

# Parts that are of another network if there are weights for more than they have.
WHOLE = (BACKBONE, 'neck.', 'head.')


def check_tested(cfg: Config) -> None:
    """Check that the checkpoint to be tested is one of the config's model.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: No checkpoint is named, it cannot be read, or its weights are not those of the model.
    """
    path = cfg.get('load_from')
    if not path:
        raise ValueError('There is no checkpoint to test: load_from is empty. Name one behind the config')
    checkpoint = read_loadable(path)
    if cfg.get('model') is None:
        return
    state = {re.sub(r'^module\.', '', key): value for key, value in checkpoint.state.items()}
    misfit = load(build(complete_model_config(cfg), cfg.get('default_scope')), state, path)
    misfit = misfit.without(COMPUTED).without(AUXILIARY)
    more = [key for key in but_for_ends(misfit, BACKBONE).unexpected if key.startswith(WHOLE)]
    if not (misfit.missing or misfit.reshaped or more):
        return
    advice = 'Give the config, with the options, that it was trained with'
    if any(key.startswith(BACKBONE) for key in state) and not any(but_for_ends(misfit, BACKBONE).within(BACKBONE)):
        advice += (
            f'; or, since its backbone fits, train the rest first: tools/train.py CONFIG {FROM_BACKBONE.format(path)}'
        )
    raise ValueError(f'{path} holds other weights than those of the model to be tested: {misfit}. {advice}')
