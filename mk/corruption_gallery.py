"""Draws docs/images/corruptions.png: an image of the embedded data set under each corruption.

python mk/corruption_gallery.py
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mmebm.corruptions import CorruptedPair, Downsample, GaussianNoise, Grayscale, PatchMask, PatchShuffle
from mmebm.datasets import Shapes

SHOWN = {
    'PatchMask(ratio=0.6)': PatchMask(patch_size=16, ratio=0.6),
    "PatchMask(layout='block')": PatchMask(patch_size=16, ratio=0.4, layout='block'),
    'PatchShuffle(share=0.3)': PatchShuffle(patch_size=16, share=0.3),
    'Downsample(factor=4)': Downsample(factor=4),
    'GaussianNoise(sigma=50)': GaussianNoise(sigma=50.0),
    'Grayscale()': Grayscale(),
}


def main(out: Path = Path(__file__).parents[1] / 'docs' / 'images' / 'corruptions.png') -> None:
    """Write the picture."""
    clean = Shapes(size=1, split='val', image_size=160, pipeline=[])[0]['img']
    np.random.seed(0)
    pictures = {'clean': clean} | {
        name: CorruptedPair(corruption)(dict(img=clean.copy()))['img'][0] for name, corruption in SHOWN.items()
    }
    figure = Figure(figsize=(11, 2), layout='constrained')
    for axes, (name, picture) in zip(figure.subplots(1, len(pictures)), pictures.items(), strict=True):
        axes.imshow(np.clip(np.rint(picture), 0, 255).astype(np.uint8)[..., ::-1])
        axes.set_title(name, fontsize=7)
        axes.set_axis_off()
    figure.savefig(out, dpi=110)


if __name__ == '__main__':
    main()
