"""Loss curves of the same training in float32, TF32, bfloat16 and float16.

    python -m benchmarks.precision --steps 200

Trains the model of ``configs/ebm_vit-t_shapes.py`` on the same batches of Shapes from the same weights, once in each
precision; TF32 on a GPU only. Half precision is torch's autocast, float16 with torch's gradient scaler, as mmengine's
``AmpOptimWrapper`` has them. Writes ``results/precision_{cpu,gpu}.json``: a row for each precision, with the mean loss
of every tenth of the run and the largest relative distance of those means from float32's.
"""

import argparse
import logging
import sys
from itertools import chain, repeat

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed
from mmpretrain.registry import MODELS

from benchmarks.output import REPOSITORY, RESULTS
from mmebm.experiments.results import hardware, markdown_table, stamp, write_rows

AUTOCAST = {'fp32': None, 'tf32': None, 'bf16': torch.bfloat16, 'fp16': torch.float16}


def losses(precision: str, steps: int, batch_size: int, device: str) -> list[float]:
    """The loss of each step."""
    torch.set_float32_matmul_precision('high' if precision == 'tf32' else 'highest')
    torch.backends.cudnn.allow_tf32 = precision == 'tf32'
    set_random_seed(0)  # the corruptions are drawn by NumPy
    cfg = Config.fromfile(REPOSITORY / 'configs' / 'ebm_vit-t_shapes.py')
    model = MODELS.build(cfg.model).to(device).train()
    model.init_weights()
    cfg.train_dataloader.update(batch_size=batch_size, num_workers=0)
    batches = chain.from_iterable(repeat(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05)
    dtype = AUTOCAST[precision]
    scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)
    values = []
    for step in range(steps):
        torch.manual_seed(step)
        batch = model.data_preprocessor(next(batches), True)
        with torch.autocast(device, dtype=dtype, enabled=dtype is not None):
            loss = model(**batch, mode='loss')['loss']
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        values.append(loss.item())
    return values


def tenths(values: list[float]) -> list[float]:
    """Means over each tenth of a curve."""
    return torch.tensor(values).view(10, -1).mean(dim=1).tolist()


def main() -> None:
    """Train, compare and write."""
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--steps', type=int, default=200, help='a multiple of ten')
    parser.add_argument('--batch', type=int, default=32)
    args = parser.parse_args()
    MMLogger.get_instance('precision', log_level=logging.ERROR)
    init_default_scope('mmpretrain')
    rows, reference = [], None
    for precision in AUTOCAST:
        if precision == 'tf32' and device == 'cpu':
            continue
        print(precision, file=sys.stderr, flush=True)
        curve = tenths(losses(precision, args.steps, args.batch, device))
        reference = reference or curve
        distance = max(abs(value / expected - 1) for value, expected in zip(curve, reference, strict=True))
        rows.append(
            dict(
                device=hardware(device),
                precision=precision,
                steps=args.steps,
                batch=args.batch,
                loss_of_tenths=[round(value, 5) for value in curve],
                largest_distance=round(distance, 5),
                **stamp(),
            )
        )
    write_rows(RESULTS / f'precision_{"gpu" if device == "cuda" else "cpu"}.json', rows)
    figures = [
        [row['precision'], *(f'{row["loss_of_tenths"][i]:.4f}' for i in (0, 4, 9)), f'{row["largest_distance"]:.2%}']
        for row in rows
    ]
    print(markdown_table(['precision', 'first tenth', 'middle', 'last tenth', 'largest distance'], figures))


if __name__ == '__main__':
    main()
