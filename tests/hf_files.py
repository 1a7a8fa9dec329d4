"""Data sets as HuggingFace's library leaves them on disk, written by pyarrow."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

IMAGE = pa.struct([('bytes', pa.binary()), ('path', pa.string())])
FEATURES = dict(image=dict(_type='Image'), label=dict(names=['cat', 'ant'], _type='ClassLabel'))


def png(number):
    """A file of noise of 9 x 7 pixels."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(buffer, 'png')
    return buffer.getvalue()


def table(numbers, labels=None, features=FEATURES, **columns):
    """Rows of images and labels, with the notes of HuggingFace on columns; images may be bytes."""
    rows = [dict(bytes=n if isinstance(n, bytes) else png(n), path=f'{i}.png') for i, n in enumerate(numbers)]
    columns = dict(image=pa.array(rows, IMAGE), label=pa.array(labels or [n % 2 for n in numbers])) | columns
    notes = {'huggingface': json.dumps(dict(info=dict(features=features)))} if features else None
    return pa.table(columns).replace_schema_metadata(notes)


def write_stream(path, content, rows=2, **options):
    """An Arrow file with batches of some rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.ipc.new_stream(path, content.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(content, max_chunksize=rows)


def save_to_disk(folder, tables, split=None):
    """Arrow files and ``state.json``, whose order differs from that of the names."""
    names = [f'data-{len(tables) - 1 - i:05d}-of-{len(tables):05d}.arrow' for i in range(len(tables))]
    for name, content in zip(names, tables, strict=True):
        write_stream(folder / name, content)
    files = [dict(filename=name) for name in names]
    (folder / 'state.json').write_text(json.dumps(dict(_data_files=files, _split=split)))
    return folder


def save_splits(folder, **tables):
    """Folders of splits, and ``dataset_dict.json``."""
    for split, content in tables.items():
        save_to_disk(folder / split, [content], split)
    (folder / 'dataset_dict.json').write_text(json.dumps(dict(splits=[*tables])))
    return folder


def write_parquet(path, content, rows=2):
    """A Parquet file with groups of some rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path, row_group_size=rows)
    return path
