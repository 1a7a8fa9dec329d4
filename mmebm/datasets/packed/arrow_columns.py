"""Which columns of Arrow and Parquet files hold images and labels, by their types and by what HuggingFace notes."""

import json
from pathlib import Path
from typing import Any

from mmebm.datasets.packed.arrow_files import pyarrow
from mmebm.error_text import first_few


def image_column_of(schema: Any, wanted: str, path: Path) -> str:
    """The name of the column of images.

    Args:
        schema: Of a file.
        wanted: What the config names; may be empty.
        path: Of the file, for messages.

    Raises:
        ValueError: There is none, several, or not the wanted one.
    """
    structs = [field.name for field in schema if _is_struct_of_bytes(field.type)]
    found = structs or [field.name for field in schema if _is_binary(field.type)]
    if wanted:
        if wanted in schema.names and _is_image(schema.field(wanted).type):
            return wanted
        raise ValueError(f'HFImages: {path} has no column of images image_column={wanted!r}, but {columns(schema)}')
    if not found:
        raise ValueError(
            f"HFImages: {path} has no column of images, which are files' bytes, or a struct of `bytes` and `path`: it "
            f'has {columns(schema)}'
        )
    if len(found) > 1:
        raise ValueError(
            f'HFImages: {path} has several columns of images; set `image_column` to one of {first_few(found)}'
        )
    return found[0]


def label_column_of(schema: Any, wanted: str, path: Path) -> str:
    """The name of the column of labels: as wanted, or that of class labels, or ``label``.

    Raises:
        ValueError: There is none, several, or it holds no whole numbers.
    """
    class_labels = [name for name in schema.names if class_names_of(schema, name, path)]
    if not wanted and len(class_labels) > 1:
        raise ValueError(
            f'HFImages: {path} has several columns of labels; set `label_column` to one of {first_few(class_labels)}'
        )
    name = wanted or next(iter(class_labels), 'label')
    if name not in schema.names:
        raise ValueError(
            f'HFImages: with_label=True, but {path} has no column {name!r}; set `label_column`: it has '
            f'{columns(schema)}'
        )
    if not pyarrow('pyarrow.types').is_integer(schema.field(name).type):
        raise ValueError(
            f'HFImages: {path}: labels must be whole numbers, but column {name!r} has {schema.field(name).type}; '
            "`class_encode_column` of HuggingFace's datasets numbers them"
        )
    return name


def class_names_of(schema: Any, column: str, path: Path) -> list[str] | None:
    """Names of the classes in the order of their numbers; None if the file does not tell."""
    noted = (schema.metadata or {}).get(b'huggingface')
    beside = path.with_name('dataset_info.json')
    try:
        about = json.loads(noted)['info'] if noted else json.loads(beside.read_text()) if beside.is_file() else {}
        feature = (about.get('features') or {}).get(column)
        return list(feature['names']) if isinstance(feature, dict) and feature.get('_type') == 'ClassLabel' else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        place = f'metadata of {path}' if noted else beside
        raise ValueError(f'HFImages: {place}: not the notes of HuggingFace on columns ({error!r})') from error


def columns(schema: Any) -> str:
    """Names and types of all columns."""
    return first_few(f'{field.name} ({field.type})' for field in schema)


def _is_image(kind: Any) -> bool:
    return _is_binary(kind) or _is_struct_of_bytes(kind)


def _is_struct_of_bytes(kind: Any) -> bool:
    if not pyarrow('pyarrow.types').is_struct(kind):
        return False
    place = kind.get_field_index('bytes')
    return place >= 0 and _is_binary(kind.field(place).type)


def _is_binary(kind: Any) -> bool:
    types = pyarrow('pyarrow.types')
    return types.is_binary(kind) or types.is_large_binary(kind)
