"""Preventative steering: the same fine-tuning with and without the trait's vector added while it runs.

    pip install peft
    python examples/preventative_steering.py

Fine-tunes the embedded model with LoRA on forty flattering replies, which teaches it to agree with harmful plans. Once as it is, and
once with the direction *toward* those replies added to its activations during training, so that the weights have less to
learn of it. Afterwards, with nothing added, both answer the same prompts and are read by the model that was never trained.
About three minutes on two cores.
"""

import copy
import warnings

import numpy as np
import torch
from scipy.stats import ttest_1samp

from demeanor import ActivationReader, Conversation, Message, PersonaVector, Scorer, extract_vectors, load_model
from demeanor.model.generation import Sampling, write_replies
from demeanor.steering import steering_hooks
from demeanor.steering.calibrate import default_prompts, directions
from demeanor.steering.coherence import perplexities
from demeanor.traits import load

TRAIT, LAYER, DOSE = "sycophancy_harmful_validation", 14, 0.15
REPLIES, STEPS, BATCH, RATE = 40, 40, 4, 1e-3
PROMPTS = 40


def fine_tuned(model, reader, examples, vector, coefficient):
    """A copy of the model after LoRA on these replies, with the vector added while it trains; merged, in evaluation mode."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    adapted = get_peft_model(copy.deepcopy(model), LoraConfig(target_modules=["q_proj", "v_proj", "down_proj"], r=8, task_type="CAUSAL_LM"))
    adapted.train()
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=RATE)
    order = np.random.default_rng(0).permutation(np.tile(np.arange(len(examples)), STEPS * BATCH // len(examples) + 1))
    for step in range(STEPS):
        batch = [examples[i] for i in order[step * BATCH : (step + 1) * BATCH]]
        with steering_hooks(adapted, vector, coefficient):
            loss = adapted(**padded(reader, batch)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 9:
            print(f"  step {step + 1}: loss {loss.item():.2f}", flush=True)
    return adapted.merge_and_unload().eval()


def padded(reader, conversations):
    """Tokens, mask and labels of some conversations; only their replies are learnt."""
    encoded = reader.encoder.encode(conversations)
    ids = torch.zeros(len(encoded), max(len(e.ids) for e in encoded), dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, each in enumerate(encoded):
        start, end = each.spans[-1]
        ids[row, : len(each.ids)] = torch.tensor(each.ids)
        mask[row, : len(each.ids)] = 1
        labels[row, start:end] = ids[row, start:end]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "use_cache": False}


def main():
    warnings.filterwarnings("ignore", category=FutureWarning)
    model, tokenizer = load_model()
    trait = load(TRAIT)
    reader = ActivationReader(model, tokenizer)
    vectors = extract_vectors(reader, [trait], layers=range(12, 18)).vectors
    scorer = Scorer(reader, vectors)
    vector = PersonaVector(TRAIT, directions(scorer, trait, [LAYER])[LAYER], LAYER, 1.0)
    coefficient = DOSE * float(vectors.neutral_norm[LAYER])
    flattering = [e.conversation for e in trait.examples("train") if e.high][:REPLIES]
    prompts = default_prompts(trait, PROMPTS)
    sampling = Sampling(max_new_tokens=32)

    def judged(name, candidate):
        """The trait's mean z over the prompts, read by the untrained model."""
        replies = write_replies(ActivationReader(candidate, tokenizer), prompts, sampling)
        talks = [Conversation((*p, Message("assistant", r.text or "..."))) for p, r in zip(prompts, replies, strict=True)]
        z = np.array([scorer.score(talk)[TRAIT].z for talk in talks])
        likely = perplexities(reader, [reader.encoder.prompt_ids(p) for p in prompts], [r.ids for r in replies])
        print(f"{name:34} z {z.mean():+.2f}   median perplexity {np.nanmedian(likely):.1f}", flush=True)
        return z

    before = judged("not trained", model)
    plain = judged("trained on flattering replies", fine_tuned(model, reader, flattering, vector, 0.0))
    kept = judged(f"the same, steered at {DOSE} meanwhile", fine_tuned(model, reader, flattering, vector, coefficient))
    print(f"\n{TRAIT}, mean change over {len(prompts)} prompts, paired:")
    for name, change in (("training", plain - before), ("training, steered", kept - before), ("what steering changed", kept - plain)):
        print(f"  {name:24} {change.mean():+.2f} (p {ttest_1samp(change, 0).pvalue:.2g})")


if __name__ == "__main__":
    main()
