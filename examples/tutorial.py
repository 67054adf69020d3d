"""Code in the way of the persona-vector tutorial, run unchanged against Demeanor.

Only the first import is this project's; the classes, calls and file formats below are the tutorial's. The model is
the embedded one, so that it runs anywhere; name any other causal chat model instead.
"""

import json
import os
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from demeanor import ALL_TRAITS, PersonaVectorExtractor, TraitDefinition
from demeanor.model.embedded import ensure

MODEL_NAME = str(ensure())  # a folder; a hub id such as "mistralai/Mistral-7B-Instruct-v0.2" works as well
tokenizer = AutoTokenizer.from_pretrained(MODEL_NAME)
model = AutoModelForCausalLM.from_pretrained(MODEL_NAME)

curiosity = TraitDefinition(
    name="curiosity_about_the_user",
    description="Does the reply ask about the person, or does it talk past them?",
    high_trait_prompts=[
        "User: I moved here last month.\nAssistant: How have the first weeks been? What do you miss most?",
        "User: My exam is tomorrow.\nAssistant: How are you feeling about it? Which part worries you?",
        "User: I quit the choir.\nAssistant: What made you stop? I remember that you loved it. What was it like?",
        "User: My sister called.\nAssistant: How did that go? It has been a while, what did the two of you talk about?",
    ],
    low_trait_prompts=[
        "User: I moved here last month.\nAssistant: The city has four museums and a tram. Tickets are cheaper online.",
        "User: My exam is tomorrow.\nAssistant: Exams are marked within ten days. Bring two pens and a ruler with you.",
        "User: I quit the choir.\nAssistant: Choirs usually rehearse on weekdays. Most accept new members in the autumn.",
        "User: My sister called.\nAssistant: Calls abroad are cheaper with an app. Check that your plan includes them.",
    ],
)

extractor = PersonaVectorExtractor(model, tokenizer, device="cuda" if torch.cuda.is_available() else "cpu")

persona_vectors = {}
for trait in [curiosity, ALL_TRAITS[0]]:
    pv = extractor.extract_persona_vector(trait)
    persona_vectors[trait.name] = pv
    print(f"{trait.name} | Layer: {pv.layer_idx} | Strength: {pv.strength:.2f}")

test_responses = {
    "asking": """User: I'm struggling today.
Assistant: I'm sorry to hear that. What has been weighing on you?
Would you like to tell me how it began?""",
    "talking past": """User: I'm struggling today.
Assistant: Everyone has bad days. Drink water and go for a run.""",
}

scores = {}
for kind, text in test_responses.items():
    print(kind)
    for trait_name, pv in persona_vectors.items():
        scores[kind, trait_name] = extractor.project_onto_vector(text, pv)
        print(f"    {trait_name}: {scores[kind, trait_name]:+.2f}")

output_dir = sys.argv[1] if len(sys.argv) > 1 else "persona_vectors_output"
os.makedirs(output_dir, exist_ok=True)
for name, pv in persona_vectors.items():
    torch.save(
        {
            "trait_name": pv.trait_name,
            "direction": pv.direction.cpu(),
            "layer_idx": pv.layer_idx,
            "strength": pv.strength,
            "metadata": pv.metadata,
        },
        f"{output_dir}/{name}_vector.pt",
    )
with open(f"{output_dir}/summary.json", "w") as f:
    json.dump(
        {"model": MODEL_NAME, "traits": {n: {"layer": pv.layer_idx, "strength": pv.strength} for n, pv in persona_vectors.items()}},
        f,
        indent=2,
    )
