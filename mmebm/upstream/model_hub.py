"""Puts mmebm's models into mmpretrain's list: ``mmpretrain.list_models('ebm*')``, ``get_model('ebm_vit-t_shapes')``."""

from types import ModuleType

from mmebm.config_files import config_folder
from mmebm.upstream.after_import import after_import


def install() -> None:
    """Registers the model index as soon as mmpretrain has a list to put it into."""
    after_import('mmpretrain.apis.model', _register)


def _register(apis: ModuleType) -> None:
    root = config_folder().parent
    known = (model.filepath or '' for model in apis.ModelHub._models_dict.values())
    if not any(path.startswith(str(root)) for path in known):  # once, however often mmebm is imported anew
        apis.ModelHub.register_model_index(root / 'model-index.yml', config_prefix=root)
