// `zeroshard inspect`: what a checkpoint holds, and with --verify whether every byte is as written.

import { resolveCheckpoint } from '../checkpoint/folder.js'
import { readManifest, verifyFiles } from '../checkpoint/manifest.js'
import { megabytes } from './progress.js'

export async function inspect(path: string, flags: { verify?: boolean }): Promise<void> {
  const folder = await resolveCheckpoint(path)
  const manifest = await readManifest(folder)
  const { state, layout, files, parameters } = manifest
  const shapes = Object.entries(parameters)
  const count = shapes.reduce((sum, [, { shape }]) => sum + shape.reduce((product, size) => product * size, 1), 0)
  const lines = [
    `checkpoint  ${folder}`,
    `step        ${state.step} (${state.updates} updates, ${state.skippedSteps} skipped, ${state.samples} samples, seed ${state.seed})`,
    `written on  ${layout.world} rank${layout.world > 1 ? 's' : ''}, ZeRO stage ${layout.stage}`,
    `parameters  ${count.toLocaleString('en')} in ${shapes.length} tensors`,
    ...files.map(({ name, bytes }) => `file        ${name}, ${megabytes(bytes)}`),
    ...shapes.map(([name, { shape }]) => `  ${name} [${shape.join(', ')}]`),
  ]
  if (flags.verify) {
    await verifyFiles(folder, manifest)
    lines.push('verified    every file is as written')
  }
  process.stdout.write(`${lines.join('\n')}\n`)
}
