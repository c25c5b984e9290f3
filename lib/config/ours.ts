// The sections that are zeroshard's own: model, data, mesh, train.

import { section, served } from './schema.js'
import { anything, boolean, integer, list, nullable, number, path, string } from './values.js'

const atLeastOne = integer({ min: 1 })
const count = integer()
const ranks = integer({ min: 1, max: 2 ** 20 })

export const model = section('The model: a Hugging Face configuration, inline or in a folder.', {
  config: served(nullable(anything), null, 'a Hugging Face config.json, inline (`model_type`: gpt2, llama)'),
  path: served(nullable(path), null, 'a folder with config.json instead'),
  weights: served(boolean, false, 'start from the *.safetensors of `path`'),
})

export const data = section('Training text.', {
  train: served(list(path), [], 'files: text, .jsonl, or ready token files'),
  validation: served(list(path), [], 'files for evaluation'),
  validation_fraction: served(number({ min: 0, below: 1 }), 0, 'part of `train`, from its end, for evaluation'),
  tokenizer: served(path, 'byte', '"byte", "gpt2", or the path of a tokenizer.json'),
  sequence_length: served(nullable(atLeastOne), null, 'tokens of a sample; default: what the model can hold'),
  text_key: served(string, 'text', 'the key of the text in .jsonl files'),
})

export const mesh = section('Ranks along each axis; data parallelism is what is left.', {
  pipeline: served(ranks, 1, 'pipeline stages'),
  tensor: served(ranks, 1, 'tensor-parallel ranks'),
  context: served(ranks, 1, 'context-parallel (sequence-parallel) ranks'),
  expert: served(ranks, 1, 'expert-parallel ranks; they divide the data-parallel ones'),
})

export const train = section('The run.', {
  steps: served(count, 1000, 'updates, counted from the very first'),
  eval_interval: served(count, 0, 'steps between evaluations; 0: none'),
  eval_batches: served(atLeastOne, 20, 'batches of an evaluation'),
  save_interval: served(count, 0, 'steps between checkpoints; 0: only at the end'),
  keep_checkpoints: served(count, 0, 'newest checkpoints to keep; 0: all'),
  seed: served(integer({ min: 0, max: 2 ** 32 - 1 }), 1337, 'of initial values, data order and dropout'),
  output: served(path, 'out', 'folder of checkpoints'),
})
