# SPDX-License-Identifier: Apache-2.0
"""Writes torch_zip.bin and torch_legacy.bin, one state dict in torch's two layouts.

Needs torch 2.13.0; the tests that read the files do not. torch_files.npz holds the
numbers that should be read from them: bfloat16 as float32, all else in its own dtype.

Run: python tests/goldens/make_torch_files.py
"""

import collections
import pathlib

import numpy as np
import torch

HERE = pathlib.Path(__file__).parent


def state_dict() -> "collections.OrderedDict[str, torch.Tensor]":
    """A tensor of every kind that a state dict may hold."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    flat = normal(30)
    found: collections.OrderedDict[str, torch.Tensor] = collections.OrderedDict()
    found["float32"] = normal(3, 4)
    found["float16"] = normal(5, 2).half()
    found["bfloat16"] = torch.cat(
        [normal(6), torch.tensor([0.0, -0.0, 3e38, 1e-40, float("inf"), float("nan")])]
    ).bfloat16()
    found["float64"] = normal(2, 1, 3).double()
    found["int64"] = torch.arange(7)[None].expand(1, -1)  # as position_ids are
    found["int32"] = torch.tensor([-(2**31), 2**31 - 1], dtype=torch.int32)
    found["int16"] = torch.tensor([[-5], [300]], dtype=torch.int16)
    found["int8"] = torch.tensor([-128, 127], dtype=torch.int8)
    found["uint8"] = torch.tensor([0, 255], dtype=torch.uint8)
    found["bool"] = torch.tensor([True, False, True])
    found["scalar"] = torch.tensor(2.5)
    found["empty"] = torch.zeros(0, 3)
    found["transposed"] = normal(4, 3).t()
    found["permuted"] = normal(2, 3, 4).half().permute(2, 0, 1)
    found["every second"] = flat[1::2]
    found["window"] = flat[10:22].view(3, 4)[:, 1:3]
    found["tied"] = found["float32"]
    found["tied, transposed"] = found["float32"].t()
    found["parameter"] = torch.nn.Parameter(normal(2, 2))
    found["parameter.frozen"] = torch.nn.Parameter(normal(2).bfloat16(), False)
    found["no ASCII: \u00e4\u4e2d"] = normal(1)
    metadata = {"": {"version": 1}, "layer": {"version": 2, "tail": (None, [1.5, -7])}}
    found._metadata = metadata  # type: ignore[attr-defined]  # as Module.state_dict()
    return found


def main() -> None:
    """Writes all files beside this one."""
    found = state_dict()
    torch.save(found, HERE / "torch_zip.bin")
    legacy = HERE / "torch_legacy.bin"
    torch.save(found, legacy, _use_new_zipfile_serialization=False)
    expected = {
        name: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor)
        for name, tensor in found.items()
    }
    np.savez_compressed(
        HERE / "torch_files.npz",
        **{name: tensor.detach().numpy() for name, tensor in expected.items()},
    )


if __name__ == "__main__":
    main()
