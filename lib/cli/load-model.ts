// A trained model from a checkpoint, whole, on this process: for sampling and export.

import { availableParallelism } from 'node:os'
import { ZeroshardError } from '../binding/errors.js'
import { binding } from '../binding/native.js'
import { type FoundCheckpoint, openCheckpoint } from '../checkpoint/folder.js'
import { SliceReader, writeValues } from '../checkpoint/load.js'
import { loadTokenizer, type Tokenizer } from '../data/index.js'
import { createModel, type LanguageModel } from '../nn/models/index.js'
import type { Parameter } from '../nn/parameter.js'
import { MemoryFlat } from '../parallel/zero/flat.js'

export interface LoadedModel extends FoundCheckpoint {
  model: LanguageModel
  tokenizer: Tokenizer
}

export async function loadModel(path: string): Promise<LoadedModel> {
  binding().native.configure({ threads: availableParallelism(), serial: false })
  const found = await openCheckpoint(path)
  const { folder, manifest } = found
  if (!manifest.model || !manifest.tokenizer) {
    throw new ZeroshardError(
      'CHECKPOINT',
      `${folder}: was saved from a user's own model; only models of \`zeroshard train\` can be rebuilt from a checkpoint`,
    )
  }
  const tokenizer = await loadTokenizer(manifest.tokenizer)
  const model = createModel(manifest.model).materialize()
  const reader = new SliceReader(folder, manifest)
  try {
    for (const parameter of model.parameters()) await fillParameter(parameter, reader)
  } finally {
    await reader.close()
  }
  return { ...found, model, tokenizer }
}

async function fillParameter(parameter: Parameter, reader: SliceReader): Promise<void> {
  const flat = parameter.tensor.view([parameter.count])
  writeValues(new MemoryFlat(flat), 0, await reader.read(parameter, 'weight'))
  flat.dispose()
}
