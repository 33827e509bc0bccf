# SPDX-License-Identifier: Apache-2.0
"""Writes policy_<name>.npz: what other libraries answer on small random batches.

    .venv-references/trl011/bin/python tests/goldens/make_policy.py trl_ppo
    .venv-references/trl116/bin/python tests/goldens/make_policy.py trl
    .venv-references/verl/bin/python tests/goldens/make_policy.py verl
    .venv-references/rlax/bin/python tests/goldens/make_policy.py rlax

Every file holds its own inputs. Rows are ragged: full, short, one token, and none
where the library bears it; masked places hold numbers, and NaN where the library
selects instead of multiplying. Run again, the files are the same to the byte.
"""

import collections
import importlib.metadata
import pathlib
import sys
import types
import warnings

import numpy as np

HERE = pathlib.Path(__file__).parent
B, T, W, G, V = 6, 7, 5, 3, 4
COEFFICIENT, DISCOUNT, DECAY = 0.3, 0.97, 0.9
LENGTHS = (7, 4, 1, 7, 5, 2)


def batch(seed, *, empty):
    """The inputs: log-probabilities near each other, rewards, values, masks."""
    rng = np.random.default_rng(seed)
    lengths = np.array(LENGTHS)
    if empty:
        lengths[2] = 0
    x = {
        "where": np.arange(T)[None] < lengths[:, None],
        "log_prob": -rng.exponential(1.0, (B, T)),
        "score": rng.normal(size=B),
        "values": rng.normal(size=(B, T)),
        "rewards": rng.normal(size=(B, T)),
        "advantages": rng.normal(size=(B, T)),
        "returns": rng.normal(size=(B, T)),
        "logits": 2.0 * rng.normal(size=(B, T, W)),
    }
    x["old_log_prob"] = x["log_prob"] + 0.3 * rng.normal(size=(B, T))
    x["reference_log_prob"] = x["log_prob"] + 0.5 * rng.normal(size=(B, T))
    x["old_values"] = x["values"] + 0.3 * rng.normal(size=(B, T))
    x = {k: v if v.dtype == bool else v.astype(np.float32) for k, v in x.items()}
    return x | {"tokens": rng.integers(0, W, (B, T))}


def trl_ppo():
    """TRL 0.11.4: rewards, advantages, losses and the KL controller of PPOTrainer."""
    import torch
    from trl import PPOTrainer, core
    from trl.trainer.utils import AdaptiveKLController

    x = batch(1, empty=False)
    t = {k: torch.tensor(v) for k, v in x.items()}
    mask = t["where"].float()
    me = types.SimpleNamespace(
        config=types.SimpleNamespace(
            gamma=DISCOUNT,
            lam=DECAY,
            whiten_rewards=False,
            cliprange=0.2,
            cliprange_value=0.2,
            vf_coef=1.0,
            ratio_threshold=10.0,
        ),
        kl_ctl=types.SimpleNamespace(value=COEFFICIENT),
    )
    me._kl_penalty = lambda p, q: PPOTrainer._kl_penalty(me, p, q)
    out = {}
    pair = t["log_prob"], t["reference_log_prob"]
    for kind in ("abs", "mse", "full", "kl"):  # The last one is left in force.
        me.config.kl_penalty = kind
        logs = (
            torch.log_softmax(t["logits"], -1),
            torch.log_softmax(t["logits"].flip(-1), -1),
        )
        out[f"kl_{kind}"] = PPOTrainer._kl_penalty(
            me, *(logs if kind == "full" else pair)
        )
    out["token_rewards"], _, _ = PPOTrainer.compute_rewards(
        me, t["score"], *pair, t["where"].long()
    )
    _, out["whitened_advantages"], out["gae_returns"] = PPOTrainer.compute_advantages(
        me, t["values"], t["rewards"], mask
    )
    out["whitened"] = core.masked_whiten(t["rewards"], mask)
    out["scaled"] = core.masked_whiten(t["rewards"], mask, shift_mean=False)
    out["token_log_probs"] = core.logprobs_from_logits(t["logits"], t["tokens"])
    out["entropy"] = core.entropy_from_logits(t["logits"])
    leaves = [
        t[k].clone().requires_grad_() for k in ("log_prob", "values", "old_log_prob")
    ]
    args = (t["old_values"], t["logits"], leaves[1], leaves[0], mask)
    rest = t["advantages"], t["returns"]
    policy, value, stats = PPOTrainer.loss(me, t["old_log_prob"], *args, *rest)
    out["policy_loss"], out["value_loss"] = policy, value
    for name in ("clipfrac", "approxkl"):
        out[name] = stats[f"policy/{name}"]
    (out["policy_grad"],) = torch.autograd.grad(policy, leaves[:1], retain_graph=True)
    (out["value_grad"],) = torch.autograd.grad(value, leaves[1:2])
    for threshold in (0.5, 1.1):
        me.config.ratio_threshold = threshold
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            skipped, _, _ = PPOTrainer.loss(me, t["old_log_prob"], *args, *rest)
        out[f"policy_loss_{threshold}"] = skipped
    controller = AdaptiveKLController(0.1, target=6, horizon=10_000)
    x["kls"] = np.array([60.0, 6.5, 6.0, -3.0, 5.4, 7.3], np.float32)
    coefficients = []
    for kl in x["kls"]:
        controller.update(kl, 32)
        coefficients.append(controller.value)
    out["coefficients"] = torch.tensor(np.array(coefficients, np.float32))
    return "trl", x, {k: v.detach().numpy() for k, v in out.items()}


def trl():
    """TRL 1.16: the losses of GRPOTrainer with their gradients, and RLOOTrainer's."""
    import torch
    from trl import GRPOTrainer, RLOOTrainer

    x = batch(2, empty=True)
    x["log_prob"][0, 0] = x["old_log_prob"][0, 0] + 2.0  # above the limit of cispo
    advantages = torch.tensor(x["score"])
    where = torch.tensor(x["where"])
    alone = types.SimpleNamespace(
        gather=lambda a: a, reduce=lambda a, reduction: a, num_processes=1
    )
    out = {}

    def trainer(log_prob, loss_type, beta, corrected):
        me = types.SimpleNamespace(
            _get_per_token_logps_and_entropies=lambda *a, **k: (
                log_prob,
                torch.zeros(B, T),
                None,
            ),
            aux_loss_enabled=False,
            top_entropy_quantile=1.0,
            off_policy_mask_threshold=None,
            importance_sampling_level="sequence" if loss_type == "gspo" else "token",
            beta=beta,
            loss_type="grpo" if loss_type == "gspo" else loss_type,
            epsilon_low=0.2,
            epsilon_high=3.0 if loss_type == "cispo" else 0.28,
            max_completion_length=9,
            use_vllm=False,
            model=types.SimpleNamespace(training=True),
            current_gradient_accumulation_steps=1,
            accelerator=alone,
            _entropy_bonus_enabled=False,
            _metrics=collections.defaultdict(lambda: collections.defaultdict(list)),
        )
        me.args = types.SimpleNamespace(
            use_bias_correction_kl=corrected, delta=None, steps_per_generation=1
        )
        return me

    inputs = {
        "prompt_ids": torch.zeros(B, 1, dtype=torch.long),
        "prompt_mask": torch.ones(B, 1, dtype=torch.long),
        "completion_ids": torch.zeros(B, T, dtype=torch.long),
        "completion_mask": where.long(),
        "advantages": advantages,
        "old_per_token_logps": torch.tensor(x["old_log_prob"]),
        "ref_per_token_logps": torch.tensor(x["reference_log_prob"]),
        "num_items_in_batch": torch.tensor(40.0),
    }
    for kind in ("grpo", "bnpo", "dapo", "dr_grpo", "gspo", "cispo"):
        for name, beta, corrected in (
            ("", 0.0, True),
            ("_kl", 0.5, False),
            ("_corrected", 0.5, True),
        ):
            log_prob = torch.tensor(x["log_prob"], requires_grad=True)
            me = trainer(log_prob, kind, beta, corrected)
            loss = GRPOTrainer._compute_loss(me, None, inputs)
            out[f"{kind}{name}"] = loss
            (out[f"{kind}{name}_grad"],) = torch.autograd.grad(loss, log_prob)
    old = (inputs["old_per_token_logps"] * where).sum(1)
    log_prob = torch.tensor(x["log_prob"], requires_grad=True)
    loss = RLOOTrainer._compute_loss(
        trainer(log_prob, "rloo", 0.0, True), None, inputs | {"old_logps": old}
    )
    out["rloo"] = loss
    (out["rloo_grad"],) = torch.autograd.grad(loss, log_prob)
    return "trl", x, {k: v.detach().numpy() for k, v in out.items()}


def verl():
    """verl 0.9.1: advantages, KL penalties, aggregation and losses of core_algos."""
    import torch
    from verl.trainer.ppo import core_algos as algos

    x = batch(3, empty=True)
    rng = np.random.default_rng(4)
    x["reward_per_value"] = rng.normal(size=(B, V)).astype(np.float32)
    x["reward_per_value"][:3, 1] = 0.7  # constant in the first group
    x["weights"] = np.array([1.0, 0.5, 2.0, 0.25], np.float32)
    # A hole, which verl carries advantages over.
    x["holes"] = x["where"] & ~((np.arange(T) == 2) & (np.arange(B)[:, None] % 3 == 0))
    x["log_prob"][3, 1] = x["old_log_prob"][3, 1] + 2.0  # where the dual clip acts
    x["advantages"][3, 1] = -1.5
    x["spoiled"] = np.where(x["where"], x["rewards"], np.nan).astype(np.float32)
    t = {k: torch.tensor(v) for k, v in x.items()}
    mask, holes = t["where"].float(), t["holes"].float()
    group = np.repeat(np.arange(B // G), G)
    out = {}
    pair = t["log_prob"], t["reference_log_prob"]
    for kind in ("k1", "abs", "k2", "k3"):
        out[f"kl_{kind}"] = algos.kl_penalty(*pair, kind)
    out["gae_advantages"], out["gae_returns"] = algos.compute_gae_advantage_return(
        t["rewards"], t["values"], holes, DISCOUNT, DECAY
    )
    out["reinforce_plus_plus"], _ = algos.compute_reinforce_plus_plus_outcome_advantage(
        t["rewards"], holes, config=types.SimpleNamespace(gamma=DISCOUNT)
    )
    # One reward an answer, at its first token: verl takes the sum over tokens.
    outcome = torch.zeros(B, T)
    outcome[:, 0] = t["score"]
    full = torch.ones(B, T)
    for name, fn, more in (
        ("grpo", algos.compute_grpo_outcome_advantage, {}),
        (
            "dr_grpo",
            algos.compute_grpo_outcome_advantage,
            {"norm_adv_by_std_in_grpo": False},
        ),
        ("rloo", algos.compute_rloo_outcome_advantage, {}),
        ("opo", algos.compute_opo_outcome_advantage, {}),
    ):
        kept = mask if name == "opo" else full
        out[name], _ = fn(outcome.clone(), kept, index=group, **more)
    out["remax"], _ = algos.compute_remax_outcome_advantage(
        outcome, t["values"][:, 0], mask
    )
    plus_plus = algos.compute_reinforce_plus_plus_baseline_outcome_advantage
    # Groups without an empty answer, whose reward verl counts in the mean.
    out["reinforce_plus_plus_baseline"], _ = plus_plus(
        outcome.clone(), torch.tensor(batch(3, empty=False)["where"]).float(), group
    )
    keys = [f"value {k}" for k in range(V)]
    # verl puts a reward at the last token: of an empty answer, at the last place.
    out["gdpo"], _ = algos.compute_gdpo_outcome_advantage(
        t["rewards"],
        mask,
        group,
        config={
            "gdpo_reward_keys": keys,
            "gdpo_reward_weights": x["weights"].tolist(),
        },
        non_tensor_batch={k: x["reward_per_value"][:, i] for i, k in enumerate(keys)},
        batch={
            "prompts": torch.zeros(B, 1),
            "attention_mask": torch.cat([torch.ones(B, 1), mask], 1).long(),
        },
    )
    # The one place that bears anything where masked: NaN. Others multiply by the mask.
    out["token_mean"] = algos.agg_loss(t["spoiled"], mask, "token-mean")
    out["token_mean_40"] = algos.agg_loss(
        t["spoiled"], mask, "token-mean", batch_num_tokens=40
    )
    out["sequence_mean"] = algos.agg_loss(
        t["rewards"], mask, "seq-mean-token-mean", global_batch_size=B
    )
    out["constant"] = algos.agg_loss(
        t["rewards"],
        mask,
        "seq-mean-token-sum-norm",
        global_batch_size=B,
        loss_scale_factor=9,
    )
    log_prob = t["log_prob"].clone().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss, fraction, _, _ = algos.compute_policy_loss(
            t["old_log_prob"],
            log_prob,
            t["advantages"],
            mask,
            cliprange_low=0.2,
            cliprange_high=0.28,
            clip_ratio_c=3.0,
        )
    out["dual_clip"], out["clip_fraction"] = loss, fraction
    (out["dual_clip_grad"],) = torch.autograd.grad(loss, log_prob)
    values = t["values"].clone().requires_grad_()
    loss, _ = algos.compute_value_loss(values, t["returns"], t["old_values"], mask, 0.2)
    out["value_loss"] = loss
    (out["value_loss_grad"],) = torch.autograd.grad(loss, values)
    return "verl", x, {k: v.detach().numpy() for k, v in out.items()}


def rlax():
    """rlax 0.1.9: truncated GAE row by row, and the clipped surrogate of all tokens."""
    import jax
    import jax.numpy as jnp
    import rlax

    x = batch(5, empty=True)
    advantages = np.zeros((B, T), np.float32)
    for b, length in enumerate(x["where"].sum(1)):
        if length:
            follows = np.arange(length) < length - 1
            advantages[b, :length] = rlax.truncated_generalized_advantage_estimation(
                jnp.asarray(x["rewards"][b, :length]),
                jnp.asarray(DISCOUNT * follows, jnp.float32),
                DECAY,
                jnp.asarray(np.append(x["values"][b, :length], 0.0), jnp.float32),
            )
    kept = x["where"]

    def surrogate(log_prob):
        ratio = jnp.exp(log_prob[kept] - x["old_log_prob"][kept])
        return rlax.clipped_surrogate_pg_loss(ratio, x["advantages"][kept], 0.2)

    loss, grad = jax.value_and_grad(surrogate)(jnp.asarray(x["log_prob"]))
    return "rlax", x, {"gae": advantages, "policy_loss": loss, "policy_grad": grad}


def main(name):
    """Writes one file."""
    library, inputs, answers = {
        "trl_ppo": trl_ppo,
        "trl": trl,
        "verl": verl,
        "rlax": rlax,
    }[name]()
    versions = [
        f"{package} {importlib.metadata.version(package)}"
        for package in (library, "jax" if library == "rlax" else "torch", "numpy")
    ]
    np.savez(
        HERE / f"policy_{name}.npz",
        versions=np.array(versions),
        **{f"in_{k}": v for k, v in inputs.items()},
        **{k: np.asarray(v) for k, v in answers.items()},
    )


if __name__ == "__main__":
    main(sys.argv[1])
