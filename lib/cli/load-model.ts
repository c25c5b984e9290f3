// A trained model from a checkpoint, whole, on this process: for sampling and export.

import { availableParallelism } from 'node:os'
import { ZeroshardError } from '../binding/errors.js'
import { binding } from '../binding/native.js'
import { type FoundCheckpoint, openCheckpoint } from '../checkpoint/folder.js'
import { SliceReader } from '../checkpoint/slices.js'
import { loadTokenizer, type Tokenizer } from '../data/index.js'
import { createModel, type LanguageModel } from '../nn/models/index.js'
import type { Parameter } from '../nn/parameter.js'
import { runOp } from '../tensor/tensor.js'

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
  const { count, tensor } = parameter
  await reader.read(parameter, 'weight', 0, count, (at, values) => {
    const view = tensor.view([values.count], at)
    runOp('cast', [view], [values])
    view.dispose()
  })
}
