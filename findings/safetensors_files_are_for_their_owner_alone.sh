#!/usr/bin/env bash
# A file that safetensors writes can be read by its owner alone, whatever the umask says; one of torch.save by all.
#
# A model saved into a shared folder cannot be loaded by anybody else there.
#
# Packages: safetensors==0.8.0, torch==2.13.0, numpy==2.4.6
# Seen: with umask 022, save_file gives mode 0600, torch.save and the bytes of safetensors.torch.save written by Python
# 0644.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 safetensors==0.8.0 numpy==2.4.6
cd "$folder"
umask 022
venv/bin/python -W error - <<'PYTHON'
import pathlib
import stat

import safetensors.torch
import torch

tensors = {"weight": torch.ones(2)}
safetensors.torch.save_file(tensors, "file.safetensors")
pathlib.Path("bytes.safetensors").write_bytes(safetensors.torch.save(tensors))
torch.save(tensors, "file.pt")
modes = {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in sorted(pathlib.Path().iterdir()) if path.is_file()}
print(modes)
assert modes == {"bytes.safetensors": "0o644", "file.pt": "0o644", "file.safetensors": "0o600"}
PYTHON
