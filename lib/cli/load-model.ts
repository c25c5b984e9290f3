// A trained model from a checkpoint, whole, on this process: for sampling and export.

import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { ZeroshardError } from '../binding/errors.js'
import { binding } from '../binding/native.js'
import { type FoundCheckpoint, openCheckpoint } from '../checkpoint/folder.js'
import { SafetensorsFile } from '../checkpoint/safetensors.js'
import { loadTokenizer, type Tokenizer } from '../data/index.js'
import { createModel, type LanguageModel } from '../nn/models/index.js'
import { unscoped } from '../tensor/scope.js'
import { runOp, tensor } from '../tensor/tensor.js'

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
  const files = new Map<string, SafetensorsFile>()
  const parameters = model.namedParameters()
  try {
    for (const slice of manifest.slices) {
      if (slice.kind !== 'weight') continue
      const target = parameters.get(slice.parameter)
      if (!target)
        throw new ZeroshardError('CHECKPOINT', `${folder}: has a parameter '${slice.parameter}' that the model lacks`)
      let file = files.get(slice.file)
      if (!file) files.set(slice.file, (file = await SafetensorsFile.open(join(folder, slice.file))))
      const bytes = await file.read(slice.key, 0, slice.count)
      unscoped(() => {
        const source = tensor(new Float32Array(bytes.buffer), [slice.count])
        const view = target.tensor.view([slice.count], slice.start)
        runOp('cast', [view], [source])
        view.dispose()
        source.dispose()
      })
    }
  } finally {
    for (const file of files.values()) await file.close()
  }
  return { ...found, model, tokenizer }
}
