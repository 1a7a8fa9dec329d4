"""A plan as a table on the screen."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from mmebm.error_text import counted
from mmebm.planning.memory import GIB

MEMORY_PARTS = ('weights', 'gradients', 'optimizer_states', 'ddp_buckets', 'step')


def print_plan(plan: dict, notes: Sequence[str]) -> None:
    """Print a plan of ``make_plan`` as a table, with the notes below it."""
    table = Table(title=f'{plan["config"]} on {plan["devices"]} x {plan["device"]}', show_header=False)
    for name, value in (figures(plan) | memory_figures(plan['memory_bytes']) | speed_figures(plan)).items():
        table.add_row(name, value)
    console = Console(markup=False)
    console.print(table)
    for note in notes:
        console.print(note, soft_wrap=True, highlight=False)


def figures(plan: dict) -> dict[str, str]:
    """Purpose, parameters, step and arithmetic, by the table's first column."""
    height, width = plan['image_size']
    return {
        'for': plan['purpose'],
        'parameters': f'{plan["parameters"] / 1e6:.2f} M, {plan["trained_parameters"] / 1e6:.2f} M of them trained',
        'step': f'{plan["variant"]}, {plan["precision"]}, {height} x {width} pixels',
        'arithmetic': f'{plan["gflops_per_image"]:.2f} GFLOP per image',
    }


def memory_figures(memory_bytes: dict[str, int]) -> dict[str, str]:
    """Peak and parts of the memory in GiB, by the table's first column."""
    memory = {name: size / GIB for name, size in memory_bytes.items()}
    return {
        'memory per device': f'{memory["peak"]:.2f} of {memory["available"]:.0f} GiB',
        **{f'  {part.replace("_", " ")}': f'{memory[part]:.2f}' for part in MEMORY_PARTS if memory[part]},
    }


def speed_figures(plan: dict) -> dict[str, str]:
    """Batch, learning rate, images, speed and hours, by the table's first column."""
    devices, batch, steps = (plan[key] for key in ('devices', 'batch_size', 'accumulative_counts'))
    lr, speed, images, time = (plan[key] for key in ('learning_rate', 'images_per_second', 'images', 'hours'))
    factors = [counted(devices, 'device'), counted(batch, 'image'), *([f'{steps} accumulated'] if steps > 1 else [])]
    share = f'{plan["efficiency"]:.0%} of the matrix rate, ' if plan['efficiency'] else ''
    guess = ', a guess' if plan['speed_is_guess'] else ''
    return {
        'total batch': f'{" x ".join(factors)} = {plan["total_batch"]}',
        'learning rate': ('' if lr is None else f'{lr:g}: ') + plan['learning_rate_source'],
        'images per epoch': 'not known' if images is None else f'{images:,} ({plan["images_source"]})',
        'images/s': 'not measured' if speed is None else f'{speed:g} ({share}{plan["speed_source"]})',
        'hours': 'not known' if time is None else f'{f"{time:g}" if time else "less than 0.01"}{guess}',
    }
