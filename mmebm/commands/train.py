"""``mmebm-train``: mmpretrain's training script, for mmebm's configs by name or any config by path."""

from collections.abc import Sequence

from mmebm.launch.scripts import load_script, run_script


def main(argv: Sequence[str] | None = None) -> None:
    """Trains; ``--help`` lists the flags, which are those of mmpretrain's ``tools/train.py``."""
    run_script(load_script('train'), argv, ('train_dataloader', 'val_dataloader', 'custom_hooks'))


if __name__ == '__main__':
    main()
