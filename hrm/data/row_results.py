"""What a model does with each row of a split, as a file: the rows behind the sums of `hrm.evaluate`, in their order.

Arrow, one line per row: `loss` (nats summed over the scored positions), `tokens` (how many those are), `correct`
(how many of them are right), `exact` (all of them). Two models on one split have the same rows on the same lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

SCHEMA = pa.schema([("loss", pa.float32()), ("tokens", pa.int32()), ("correct", pa.int32()), ("exact", pa.bool_())])
TEST_ROWS = "rows.test.arrow"
"""In the directory of a trial that was measured on the test split."""


def write_rows(columns: Mapping[str, np.ndarray], path: Path) -> None:
    """Write the columns of `SCHEMA`, the whole file or none of it."""
    arrays = [pa.array(np.asarray(columns[field.name]).astype(field.type.to_pandas_dtype())) for field in SCHEMA]
    temporary = path.with_suffix(".tmp")
    with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, SCHEMA) as sink:
        sink.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA))
    temporary.replace(path)


def read_rows(path: Path) -> dict[str, np.ndarray] | None:
    """The columns; None where there is no such file, or none that can be read."""
    try:
        with pa.OSFile(str(path), "rb") as file:
            table = pa.ipc.open_file(file).read_all()
    except (OSError, pa.ArrowInvalid):
        return None
    return {name: table[name].to_numpy() for name in SCHEMA.names} if table.schema.equals(SCHEMA) else None
