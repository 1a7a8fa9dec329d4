"""What a pretraining is for, by what was measured of each kind (docs/results.md)."""

from mmengine.config import ConfigDict

from mmebm.model_building import type_name

FEATURES = 'features; its energies tell which patches are wrong, and hardly compare images'
ENERGY = 'an energy that separates clean images from corrupted ones; nce_weight=0.05 is what was measured'
FEATURES_ALONE = 'features; its energies were not measured'
RESTORATION = 'restoring whole images; for features of a ViT take ebm_vit-*, for an energy of images set nce_weight'
OTHERS = {
    'PatchEBM': 'features; it scores missing patches, not images',
    'CIM': 'features; it has no energy',
}


def purpose(model: ConfigDict) -> str:
    """In a few words; of a subclass, that nothing was measured."""
    name = type_name(model)
    if name != 'EBMAlgorithm':
        return OTHERS.get(name, f'not measured of a {name}')
    if model.get('nce_weight'):
        return ENERGY
    if model.get('token_nce_weight'):
        return FEATURES
    return FEATURES_ALONE if model.get('position_dropping') or model.get('content_dropping') else RESTORATION
