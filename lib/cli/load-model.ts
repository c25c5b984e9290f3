// A trained model, whole, on this process: from a checkpoint, or from a Hugging Face folder. For sampling and export.

import { access, readFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { ZeroshardError } from '../binding/errors.js'
import { binding } from '../binding/native.js'
import { openCheckpoint, resolveCheckpoint } from '../checkpoint/folder.js'
import { PretrainedWeights } from '../checkpoint/pretrained.js'
import { SliceReader } from '../checkpoint/slices.js'
import { parseConfigText } from '../config/index.js'
import { loadTokenizer, type Tokenizer } from '../data/index.js'
import { createModel, type LanguageModel } from '../nn/models/index.js'
import type { Parameter } from '../nn/parameter.js'
import { MemoryFlat } from '../parallel/zero/flat.js'
import { runOp } from '../tensor/tensor.js'

export interface LoadedModel {
  model: LanguageModel
  tokenizer: Tokenizer
  /** What it was loaded from, for people. */
  source: string
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  )

export async function loadModel(path: string): Promise<LoadedModel> {
  binding().native.configure({ threads: availableParallelism(), serial: false })
  const folder = await resolveCheckpoint(path)
  const isHuggingFace = !(await exists(join(folder, 'manifest.json'))) && (await exists(join(folder, 'config.json')))
  return isHuggingFace ? fromHuggingFace(folder) : fromCheckpoint(path)
}

async function fromHuggingFace(folder: string): Promise<LoadedModel> {
  const path = join(folder, 'config.json')
  const model = createModel(parseConfigText(await readFile(path, 'utf8'), path) as Record<string, unknown>)
  const weights = await PretrainedWeights.open(folder, model)
  try {
    model.materialize({ values: false })
    for (const parameter of model.parameters())
      await weights.copy(parameter, 0, parameter.count, new MemoryFlat(parameter.tensor), 0)
  } finally {
    await weights.close()
  }
  return { model, tokenizer: await loadTokenizer(join(folder, 'tokenizer.json')), source: folder }
}

async function fromCheckpoint(path: string): Promise<LoadedModel> {
  const { folder, manifest } = await openCheckpoint(path)
  if (!manifest.model || !manifest.tokenizer) {
    throw new ZeroshardError(
      'CHECKPOINT',
      `${folder}: was saved from a user's own model; only models of \`zeroshard train\` can be rebuilt from a checkpoint`,
    )
  }
  const tokenizer = await loadTokenizer(manifest.tokenizer)
  const model = createModel(manifest.model).materialize({ values: false })
  const reader = new SliceReader(folder, manifest)
  try {
    for (const parameter of model.parameters()) await fillParameter(parameter, reader)
  } finally {
    await reader.close()
  }
  return { model, tokenizer, source: `step ${manifest.state.step}` }
}

async function fillParameter(parameter: Parameter, reader: SliceReader): Promise<void> {
  const { count, tensor } = parameter
  await reader.read(parameter, 'weight', 0, count, (at, values) => {
    const view = tensor.view([values.count], at)
    runOp('cast', [view], [values])
    view.dispose()
  })
}
