"""Every file of a run is written here: atomic, on the disk before it has its name, hashed, one writer at a time.

Refusals: exit 6 when the disk cannot take it, 4 when something is damaged, 7 when somebody else holds the run.
Nothing is ever unpickled: weights are safetensors, everything else is JSON or CSV. `faults` makes the n-th call fail.
"""

from semiseg.storage.files import (
    growing,
    make_folder,
    read_json,
    remove,
    require_space,
    write_bytes,
    write_csv,
    write_json,
    write_text,
    writing,
)
from semiseg.storage.folders import is_sealed, leftover, newest_checkpoint, save_folder, seal, sweep, verify
from semiseg.storage.locking import held, lock
from semiseg.storage.records import CsvLog, finished, run_state
from semiseg.storage.tensors import hash_tensors, read_tensors, tensors_from_bytes, tensors_to_bytes

__all__ = [
    "CsvLog",
    "finished",
    "growing",
    "hash_tensors",
    "held",
    "is_sealed",
    "leftover",
    "lock",
    "make_folder",
    "newest_checkpoint",
    "read_json",
    "read_tensors",
    "remove",
    "require_space",
    "run_state",
    "save_folder",
    "seal",
    "sweep",
    "tensors_from_bytes",
    "tensors_to_bytes",
    "verify",
    "write_bytes",
    "write_csv",
    "write_json",
    "write_text",
    "writing",
]
