"""The page: Gradio's components, and what happens when they are moved."""

import os
import tempfile
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from mmebm.app.explorer import MAPS, Descent, Explorer, Picture, energy_curve, enlarged, shown

os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'  # before it is imported
os.environ.setdefault('HF_HUB_OFFLINE', '1')

try:
    import gradio as gr
except ImportError as error:
    raise ImportError(f'mmebm-app needs Gradio ({error}); run: pip install "mmebm[app]"') from error

MAX_UPLOAD = '20 MB'
FONTS = dict(font=['system-ui', 'sans-serif'], font_mono=['monospace'])  # the default ones come from another server
MAX_STEPS = 30
PICTURE = dict(interactive=False, buttons=['fullscreen', 'download'])  # not the one that shares it elsewhere


def launch(explorer: Explorer, examples: list, title: str, port: int | None) -> None:
    """Serve the page on this machine alone, until interrupted."""
    page = make_page(explorer, examples, title)
    _, address, _ = page.launch(prevent_thread_lock=True, **launch_options(port))
    print(f'{address} shows the model; interrupt to end', flush=True)
    page.block_thread()


def launch_options(port: int | None) -> dict[str, Any]:
    """How it is served: on loopback, shared with nobody."""
    return dict(
        server_name='127.0.0.1',
        server_port=port,
        share=False,
        max_file_size=MAX_UPLOAD.replace(' ', '').lower(),
        show_error=True,
        quiet=True,
        footer_links=[],
        theme=gr.themes.Default(**FONTS),
    )


def make_page(explorer: Explorer, examples: list, title: str) -> Any:
    """The page of a model.

    Args:
        explorer: Answers it.
        examples: To pick from: paths, or pictures (H, W, 3).
        title: A line of text.
    """
    files = [str(example) if isinstance(example, (str, Path)) else _as_file(example) for example in examples]
    is_free = explorer.is_free
    with gr.Blocks(title='mmebm', analytics_enabled=False) as page:
        gr.Markdown(f'### {title}')
        chosen, descent = gr.State(files[0] if files else None), gr.State(None)
        with gr.Row():
            with gr.Column(scale=1):
                upload = gr.UploadButton(f'Upload an image (at most {MAX_UPLOAD})', type='filepath', elem_id='upload')
                gallery = gr.Gallery(
                    [_thumbnail(file) for file in files], visible=bool(files), label='Pick an image', columns=4,
                    height=220, allow_preview=False, buttons=[], interactive=False, elem_id='examples',
                )  # fmt: skip
                corruption = gr.Dropdown(
                    explorer.corruptions, value=explorer.corruptions[0], label='Corruption', interactive=is_free
                )
                strength = gr.Slider(0, 1, 1.0, step=0.05, label='Strength', interactive=is_free, elem_id='strength')
                number = gr.Slider(
                    1, MAX_STEPS, explorer.num_steps or 1, step=1, label='Steps to take', interactive=is_free
                )
                if not is_free:
                    gr.Markdown(
                        'This method corrupts images itself, restores in one step, and has no energy of images.'
                    )
            with gr.Column(scale=2):
                said = gr.Markdown(elem_id='said')
                with gr.Row():
                    clean = gr.Image(label='Before the corruption', elem_id='clean', **PICTURE)
                    picture = gr.Image(label='On the way down', elem_id='picture', **PICTURE)
                step = gr.Slider(0, explorer.num_steps or 1, 0, step=1, label='Step', elem_id='step')
                with gr.Row():
                    kind = gr.Radio(MAPS if is_free else MAPS[-1:], value=MAPS[0] if is_free else MAPS[-1], label='Map')
                    opacity = gr.Slider(0, 1, 0.0, step=0.05, label='Opacity of the map', elem_id='opacity')
                curve = gr.Plot(label='Energy', visible=is_free, elem_id='curve')

        def restore(file: str | None, *settings: Any) -> tuple:
            found, words = attempt(explorer, file, *settings)
            last = found.num_steps if found else 1
            return found, words, gr.Slider(maximum=last, value=last), found and _clean(found)

        def draw(found: Descent | None, *settings: Any) -> tuple[Picture | None, Figure | None]:
            return view(found, *settings)

        def pick(event: gr.SelectData) -> str:
            return files[event.index]

        settings = [chosen, corruption, strength, number]
        viewing = [descent, step, kind, opacity]
        upload.upload(lambda file: file, upload, chosen)
        gallery.select(pick, None, chosen)
        gr.on(
            [page.load, chosen.change, corruption.change, strength.release, number.release],
            restore, settings, [descent, said, step, clean],
        ).then(draw, viewing, [picture, curve])  # fmt: skip
        gr.on([step.change, kind.change, opacity.change], draw, viewing, [picture, curve], show_progress='hidden')
    return page


def attempt(
    explorer: Explorer, file: str | None, corruption: str, strength: float, number: int
) -> tuple[Descent | None, str]:
    """The descent of an image, and a sentence on it; without the descent, on what is wrong."""
    if file is None:
        return None, 'Upload an image.'
    try:
        found = explorer.descend(file, corruption, strength, number)
    except (OSError, ValueError) as error:
        return None, f'**This image cannot be shown.** {str(error).replace(str(Path(file).parent) + os.sep, "")}'
    if not found.energies:
        return found, ''
    return found, f'Energy {found.energies[0]:.4g} → {found.energies[-1]:.4g}; higher = less like the training images'


def view(found: Descent | None, step: int, kind: str, opacity: float) -> tuple[Picture | None, Figure | None]:
    """The picture at a step, and the energies up to the end."""
    if found is None:
        return None, None
    curve = energy_curve(found.energies, int(step)) if found.energies else None
    return shown(found, int(step), kind, opacity), curve


def _clean(found: Descent) -> Picture:
    return enlarged(found.pictures[0] if found.clean is None else found.clean)


def _as_file(picture: Picture) -> str:
    folder = Path(tempfile.mkdtemp(prefix='mmebm-'))
    Image.fromarray(picture.astype('uint8')).save(folder / 'example.png')
    return str(folder / 'example.png')


def _thumbnail(file: str) -> Picture | str:
    try:
        with Image.open(file) as picture:
            small = picture.convert('RGB')
            small.thumbnail((96, 96))
            return small.resize((96, round(96 * small.height / small.width)), Image.Resampling.NEAREST)
    except (OSError, SyntaxError, ValueError):
        return Image.new('RGB', (96, 96), 'gray')
