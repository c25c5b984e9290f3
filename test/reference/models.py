# Writes models.json: loss, logits and gradients of tiny models by Hugging Face transformers, in float32 on the CPU.
# The weights are a formula of name and index (see `weight`), which test/op/models.test.ts computes again.
#   python3 -m venv venv && venv/bin/pip install torch==2.13.0 transformers && venv/bin/python test/reference/models.py
import json
import math
import pathlib

import torch
import transformers


def weight(name, count):
    phase = sum(ord(c) for c in name) % 97
    base = 1.0 if ('ln_' in name or 'norm' in name) and name.endswith('weight') else 0.0
    return torch.tensor([base + 0.15 * math.sin(0.37 * i + phase) + 0.05 * math.cos(1.13 * i * i % 6.283) for i in range(count)],
                        dtype=torch.float64).float()


def run(model, config):
    model.eval()
    for name, parameter in model.named_parameters():
        parameter.data = weight(name, parameter.numel()).reshape(parameter.shape)
    model.tie_weights()
    vocab = config['vocab_size']
    ids = torch.tensor([[(5 * i + 3 * b) % vocab for i in range(9)] for b in range(2)])
    targets = torch.tensor([[(7 * i + b) % vocab for i in range(9)] for b in range(2)])
    logits = model(ids).logits
    loss = torch.nn.functional.cross_entropy(logits.reshape(-1, vocab), targets.reshape(-1))
    loss.backward()
    gradients = {name: {'norm': p.grad.double().norm().item(), 'first': p.grad.flatten()[:5].tolist()}
                 for name, p in model.named_parameters()}
    return {'config': config, 'loss': loss.item(), 'lastLogits': logits[0, -1].tolist(), 'gradients': gradients}


gpt2 = {'model_type': 'gpt2', 'vocab_size': 23, 'n_positions': 16, 'n_embd': 24, 'n_layer': 2, 'n_head': 3,
        'resid_pdrop': 0.0, 'embd_pdrop': 0.0, 'attn_pdrop': 0.0}
llama = {'model_type': 'llama', 'vocab_size': 23, 'hidden_size': 32, 'intermediate_size': 48, 'num_hidden_layers': 2,
         'num_attention_heads': 4, 'num_key_value_heads': 2, 'max_position_embeddings': 16, 'rms_norm_eps': 1e-5,
         'rope_theta': 10000.0, 'tie_word_embeddings': False}
result = {
    'versions': {'torch': torch.__version__, 'transformers': transformers.__version__},
    'gpt2': run(transformers.GPT2LMHeadModel(transformers.GPT2Config(**gpt2)), gpt2),
    'llama': run(transformers.LlamaForCausalLM(transformers.LlamaConfig(**llama)), llama),
}
pathlib.Path(__file__).with_suffix('.json').write_text(json.dumps(result, indent=1) + '\n')
