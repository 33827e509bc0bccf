# SPDX-License-Identifier: Apache-2.0
# pyright: reportMissingImports=false
"""The same encoder in transformers and in flashdeberta, with the same parameters.

Imported where torch and transformers are installed only. In bfloat16, a forward pass
has all its weights in bfloat16; a training step keeps them float32 under autocast.
"""

import contextlib
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import transformers

from experiments.benchmarks.encoder_ours import Inputs, Mode, Way
from fulcra_jax.configs import DebertaConfig
from fulcra_jax.convert import tables

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# XLA multiplies float32 in TF32 on such a device: so may torch.
torch.set_float32_matmul_precision("high")


class Unavailable(Exception):
    """A reference that cannot be measured here, and why."""


def about() -> dict[str, Any]:
    """Versions and threads."""
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "torch threads": torch.get_num_threads(),
    }


def way_of(
    name: str,
    config: DebertaConfig,
    params: Any,
    mode: Mode,
    inputs: Inputs,
    *,
    bfloat16: bool,
    compile_limit: float,
) -> Way:
    """A reference, ready to be timed.

    Args:
      name: "eager", "compiled" or "flash".
      config: the encoder.
      params: our parameter tree.
      mode: "forward" or "training".
      inputs: the batch.
      bfloat16: compute in bfloat16, else in float32.
      compile_limit: most seconds for the first call of a compiled model.

    Returns:
      The way; its memory is that of one call on a GPU, None on a CPU.

    Raises:
      Unavailable: if it cannot be had; the message says why.
    """
    model = _model(name, config)
    _copy(params, config, model)
    model = model.to(DEVICE)
    if bfloat16 and mode == "forward":
        model = model.to(torch.bfloat16)
    for weight in model.parameters():
        weight.requires_grad_(mode == "training")
    kernel = model.encoder.layer[0].attention.self.query_proj.weight
    run = model
    if name == "compiled":
        torch.compiler.reset()
        run = torch.compile(model, dynamic=False)
    call = _call(run, model, mode, inputs, bfloat16)

    def result() -> np.ndarray:
        found = call()
        if mode == "training":
            found = kernel.grad.T
        return found.detach().float().cpu().numpy()

    try:
        with warnings.catch_warnings(), _limit(compile_limit):
            warnings.simplefilter("ignore")
            call()
    except Exception as error:  # a compiler and kernels raise whatever they raise
        raise Unavailable(_reason(error)) from error
    return Way(call, result, _peak(call))


def _model(name: str, config: DebertaConfig) -> Any:
    theirs = transformers.DebertaV2Config(**config.to_hf())
    if name != "flash":
        theirs._attn_implementation = "eager"
        return transformers.DebertaV2Model(theirs).float().eval()
    if DEVICE == "cpu":
        raise Unavailable("flashdeberta needs a GPU")
    try:
        import flashdeberta
    except ImportError as error:
        raise Unavailable(f"flashdeberta cannot be imported ({error})") from error
    try:
        return flashdeberta.FlashDebertaV2Model(theirs).float().eval()
    except Exception as error:  # written for one version of transformers
        raise Unavailable(_reason(error)) from error


def _copy(params: Any, config: DebertaConfig, model: Any) -> None:
    """Our parameters into their model, all of them."""
    state = {}
    for row in tables.rows(config):
        leaf = params
        for part in row.path:
            leaf = leaf[part]
        state[row.name] = torch.tensor(np.array(row.swap(np.asarray(leaf))))
    missing, surplus = model.load_state_dict(state, strict=False)
    if missing or surplus:
        raise Unavailable(f"parameters differ: {[*missing, *surplus]}")


def _call(
    run: Any, model: Any, mode: Mode, inputs: Inputs, bfloat16: bool
) -> Callable[[], Any]:
    ids = torch.tensor(inputs.input_ids, dtype=torch.long, device=DEVICE)
    mask = torch.tensor(inputs.mask, dtype=torch.long, device=DEVICE)
    weights = torch.tensor(inputs.weights, device=DEVICE)

    def forward() -> Any:
        with torch.no_grad():
            hidden = run(input_ids=ids, attention_mask=mask).last_hidden_state
        return _waited(hidden)

    def training() -> Any:
        model.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=bfloat16):
            hidden = run(input_ids=ids, attention_mask=mask).last_hidden_state
        loss = (hidden.float() * weights).sum()
        loss.backward()
        return _waited(loss)

    return forward if mode == "forward" else training


def _waited(found: Any) -> Any:
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return found


def _peak(call: Callable[[], Any]) -> int | None:
    """Most memory of a call beyond what was there before."""
    if DEVICE == "cpu":
        return None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return torch.cuda.max_memory_allocated() - before


@contextlib.contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """TimeoutError after so many seconds; only the main thread can be interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError(f"the first call took over {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def _reason(error: Exception) -> str:
    words = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {words[:200]}"
