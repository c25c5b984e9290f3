// `zeroshard doctor`: what this machine and this build can do.

import { availableParallelism, cpus, totalmem } from 'node:os'
import { binding } from '../binding/native.js'
import { megabytes } from './progress.js'

export function doctor(version: string): void {
  const { native } = binding()
  const rows = [
    ['zeroshard', `${version}, Node ${process.version}, ${process.platform}-${process.arch}`],
    ['addon', `${native.version}, ${native.ops().length} operations`],
    ['cpu', `${cpus()[0]?.model ?? 'unknown'}, ${availableParallelism()} threads, kernels for ${native.simd}`],
    ['memory', megabytes(totalmem())],
    ['cuda', 'no backend in this build'],
  ]
  process.stdout.write(`${rows.map(([name, value]) => `${(name as string).padEnd(10)} ${value}`).join('\n')}\n`)
}
