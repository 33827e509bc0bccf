# SPDX-License-Identifier: Apache-2.0
"""Writes preference_*.npz: answers of TRL to random pairs, and the gradients.

`trl_ppo` asks TRL 0.11.4 (DPO, KTO, ORPO and SimPO as methods on tensors) and `trl` TRL
1.16.0 (DPO through `_compute_loss` with a model that returns fixed log-probabilities,
one pair at a time, as it returns means; ORPO and SimPO). The tests that read the files
need neither. A file holds the inputs, `library` and per loss the numbers `[B]` and the
gradient by the log-probabilities of the policy.

The last pair is masked: its log-probabilities are -inf and it is not shown to TRL.

Run: <environment>/bin/python tests/goldens/make_preference.py trl_ppo | trl
"""

import importlib.metadata
import inspect
import pathlib
import sys
import types
from unittest import mock

import numpy as np
import torch

HERE = pathlib.Path(__file__).parent
PAIRS, TOKENS = 9, 11
BETAS = (0.1, 0.5)


def token_inputs():
    """Log-probabilities of tokens of ragged answers; -inf after their end."""
    rng = np.random.default_rng(5)
    shape = (4, PAIRS, TOKENS)  # chosen, rejected, and the two of the reference
    logs = -rng.gamma(1.0, 1.0, shape).astype(np.float32)
    lengths = rng.integers(1, TOKENS + 1, (2, PAIRS))
    lengths[:, 0] = TOKENS
    lengths[:, 1] = 1, 3
    lengths[:, 2] = 4, 0  # An answer without a token.
    where = np.arange(TOKENS) < lengths[..., None]
    logs = np.where(np.concatenate([where, where]), logs, -np.inf)
    logs[:, -1] = -np.inf
    return logs.astype(np.float32), where


def sums(logs, where):
    """Sums over tokens; the masked pair stays -inf."""
    total = np.where(np.concatenate([where, where]), logs, 0.0).sum(-1)
    total[:, -1] = -np.inf
    return total.astype(np.float32)


def means(total, where):
    """Means over tokens of the two answers of the policy, at most -1e-3."""
    mean = total[:2] / np.maximum(where.sum(-1), 1)
    return np.minimum(mean, -1e-3).astype(np.float32)


def answer(loss, *arrays):
    """The losses and the gradients of their sum by the arrays of the policy."""
    tensors = [torch.tensor(a[..., :-1], requires_grad=True) for a in arrays]
    found = loss(*tensors)
    gradients = torch.autograd.grad(found.sum(), tensors)
    return found.detach().numpy(), np.stack([g.numpy() for g in gradients])


def trainer(**settings):
    """What a method of a trainer reads of it."""
    accelerator = types.SimpleNamespace(
        device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x
    )
    return types.SimpleNamespace(accelerator=accelerator, **settings)


def with_reference(found, total, loss_of, cases):
    """Adds the answers of a paired loss with a reference, by name."""
    reference = [torch.tensor(x[:-1]) for x in total[2:]]
    for name, settings in cases:
        loss, gradient = answer(loss_of(settings, reference), *total[:2])
        found[name], found[f"{name}_gradient"] = loss, gradient


def trl_011(found, total, average):
    """TRL 0.11.4."""
    from trl.trainer import cpo_trainer, dpo_trainer, kto_trainer, orpo_trainer

    cases = []
    for beta in BETAS:
        for kind in ("sigmoid", "robust", "hinge", "ipo", "sppo_hard", "apo_zero"):
            smooth = 0.2 if kind == "robust" else 0.0
            given = {"loss_type": kind, "beta": beta, "label_smoothing": smooth}
            cases.append((f"{kind}_{beta}", given))
        given = {"loss_type": "sigmoid", "beta": beta, "label_smoothing": 0.2}
        cases.append((f"smooth_{beta}", given))

    def dpo(settings, reference):
        owner = trainer(
            reference_free=False, f_divergence_type="reverse_kl", **settings
        )
        owner.f_divergence_params = None
        return lambda c, r: dpo_trainer.DPOTrainer.dpo_loss(owner, c, r, *reference)[0]

    with_reference(found, total, dpo, cases)

    # The log-ratios of mismatched answers: one batch with a mean above 0, one below.
    for sign in (1.0, -1.0):
        moved = np.float32(sign) * np.linspace(-0.5, 2.0, PAIRS - 1, dtype=np.float32)
        owner = trainer(
            calculate_KL=True, loss_type="kto", beta=0.3, desirable_weight=1.2
        )
        owner.undesirable_weight = 0.7

        def kto(settings, reference, owner=owner, moved=moved):
            kl = torch.tensor(moved), torch.zeros(PAIRS - 1)
            return lambda c, r: kto_trainer.KTOTrainer.kto_loss(
                owner, c, r, kl[0], reference[0], reference[1], kl[1]
            )[0]

        name = "kto_above" if sign > 0 else "kto_below"
        found[f"{name}_mismatched"] = moved
        with_reference(found, total, kto, [(name, {})])

    owner = trainer(beta=0.25)
    loss = lambda c, r: -orpo_trainer.ORPOTrainer.odds_ratio_loss(owner, c, r)[0]
    # Its log1p(-exp(x)) loses three digits in float32 at x = -1e-3.
    found["odds"], found["odds_gradient"] = answer(loss, *average.astype(np.float64))
    simpo(found, average, cpo_trainer.CPOTrainer, {})


def simpo(found, average, cpo, settings):
    """SimPO by the trainer of CPO."""
    owner = trainer(
        loss_type="simpo", beta=2.0, simpo_gamma=0.5, label_smoothing=0.0, **settings
    )
    loss = lambda c, r: cpo.cpo_loss(owner, c, r)[0]
    found["simpo"], found["simpo_gradient"] = answer(loss, *average)


def trl_116(found, logs, where, average):
    """TRL 1.16.0."""
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer
    from trl.trainer import dpo_trainer

    owner = trainer(beta=0.25)
    loss = lambda c, r: -ORPOTrainer.odds_ratio_loss(owner, c, r)[0]
    found["odds"], found["odds_gradient"] = answer(loss, *average)
    simpo(found, average, CPOTrainer, {"alpha": 0.0})
    for beta in BETAS:
        for kind in ("sigmoid", "robust", "hinge", "ipo", "sppo_hard", "apo_zero"):
            rows = [
                one_pair(dpo_trainer, kind, beta, logs[:, i], where[:, i])
                for i in range(PAIRS - 1)
            ]
            name = f"{kind}_{beta}"
            found[name] = np.array([loss for loss, _ in rows], np.float32)
            found[f"{name}_gradient"] = np.stack([g for _, g in rows], 1)


def one_pair(module, kind, beta, logs, where):
    """Loss of one pair, and its gradient by the summed log-probabilities."""
    logs = np.where(np.concatenate([where, where]), logs, 0.0).astype(np.float32)
    policy = torch.tensor(logs[:2], requires_grad=True)
    reference = torch.tensor(logs[2:])
    # The mask of the completion has one token more in front: the prompt.
    mask = torch.tensor(np.pad(where, [(0, 0), (1, 0)]).astype(np.int64))
    owner = trainer(
        model=torch.nn.Identity(),
        ref_model=stub(reference, mask),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=False,
        f_divergence_type="reverse_kl",
        loss_types=[kind],
        loss_weights=[1.0],
        label_smoothing=0.2,
        use_weighting=False,
        beta=beta,
        _metrics=mock.MagicMock(),
        _total_train_tokens=0,
        _tp_size=1,
        args=types.SimpleNamespace(gradient_checkpointing_kwargs=None),
    )
    inputs = {
        "input_ids": torch.ones_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
    }
    with (
        mock.patch.object(module, "disable_gradient_checkpointing", mock.MagicMock()),
        mock.patch.object(module, "is_peft_model", return_value=False),
    ):
        loss = module.DPOTrainer._compute_loss(
            owner, stub(policy, mask), inputs, return_outputs=False
        )
    (gradient,) = torch.autograd.grad(loss, policy)
    return loss.item(), gradient[:, 0].numpy()


def stub(log_probs, mask):
    """A model with fixed log-probabilities."""
    zeros = torch.zeros(log_probs.shape)
    return lambda **given: types.SimpleNamespace(
        log_probs=log_probs,
        entropy=zeros,
        mean_logits=zeros,
        is_top1=zeros > 0,
        aux_loss=None,
    )


def main(which):
    """Writes one file."""
    torch.manual_seed(0)
    logs, where = token_inputs()
    total = sums(logs, where)
    average = means(total, where)
    found = {
        "library": f"trl {importlib.metadata.version('trl')}, torch "
        f"{importlib.metadata.version('torch')}",
        "token_log_prob": logs,
        "token_where": where,
        "total": total,
        "average": average,
    }
    if which == "trl_ppo":
        trl_011(found, total, average)
    else:
        trl_116(found, logs, where, average)
    np.savez_compressed(HERE / f"preference_{which}.npz", **found)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in ("trl_ppo", "trl"):
        sys.exit(inspect.cleandoc(__doc__))
    main(sys.argv[1])
