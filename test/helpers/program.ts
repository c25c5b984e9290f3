// Runs the command line as a user does: processes, files, exit statuses.

import { type ChildProcess, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import { device } from './device.js'
import { startNode } from './node.js'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
export const main = join(root, 'dist/cli/main.js')

export interface Row {
  step: number
  loss: number
  gradNorm: number
  validationLoss?: number
  memory: Record<string, number>
  memoryPeak: Record<string, number>
}

export interface Outcome {
  status: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
  steps: Row[]
}

export class Workspace {
  readonly folder = mkdtempSync(join(tmpdir(), 'zeroshard-test-'))
  #runs = 0

  /** Removed with the test. */
  constructor(t: Test) {
    t.teardown(() => rmSync(this.folder, { recursive: true, force: true }))
  }

  path(name: string): string {
    return join(this.folder, name)
  }

  write(name: string, content: unknown): string {
    writeFileSync(this.path(name), typeof content === 'string' ? content : JSON.stringify(content))
    return this.path(name)
  }

  /** A text with structure: sentences of a small grammar. */
  text(sentences = 1500): string {
    const nouns = ['whale', 'captain', 'lantern', 'river', 'engine', 'winter']
    const verbs = ['carries', 'forgets', 'follows', 'answers', 'opens']
    const lines = Array.from({ length: sentences }, (_, i) => {
      const pick = (list: string[], by: number): string => list[Math.floor(i * by) % list.length] as string
      return `the ${pick(nouns, 1.7)} ${pick(verbs, 2.3)} a ${pick(nouns, 3.1)}.`
    })
    return this.write('text.txt', lines.join('\n'))
  }

  /** A small GPT-2 on `text()`. */
  config(more: Record<string, unknown> = {}): Record<string, unknown> {
    if (!existsSync(this.path('text.txt'))) this.text()
    return {
      model: { config: { model_type: 'gpt2', n_layer: 2, n_head: 2, n_embd: 32, n_positions: 16, vocab_size: 256 } },
      data: { train: [this.path('text.txt')], validation_fraction: 0.1 },
      train: { steps: 8, seed: 3 },
      train_batch_size: 8,
      optimizer: { type: 'AdamW', params: { lr: 3e-3, weight_decay: 0.1 } },
      ...more,
    }
  }

  start(args: string[], env: NodeJS.ProcessEnv = {}): { child: ChildProcess; done: Promise<Omit<Outcome, 'steps'>> } {
    const child = startNode([main, ...args], {
      cwd: this.folder,
      env: { ...process.env, ...(device !== 'cpu' && { ZEROSHARD_DEVICE: device }), ...env },
    })
    let [stdout, stderr] = ['', '']
    child.stdout.on('data', (chunk) => (stdout += chunk))
    child.stderr.on('data', (chunk) => (stderr += chunk))
    const done = new Promise<Omit<Outcome, 'steps'>>((resolve) =>
      child.on('close', (status, signal) => resolve({ status, signal, stdout, stderr })),
    )
    return { child, done }
  }

  /** `zeroshard train`; metrics and output lie in `run-N`. */
  async train(
    config: unknown,
    options: { ranks?: number; args?: string[]; env?: NodeJS.ProcessEnv; output?: string } = {},
  ): Promise<Outcome> {
    const name = `run-${++this.#runs}`
    const file = this.write(`${name}.json`, config)
    const { ranks = 1, args = [], env, output = this.path(name) } = options
    const { done } = this.start(
      [
        'train',
        file,
        '--nproc',
        String(ranks),
        '--output',
        output,
        '--quiet',
        '--metrics',
        this.path(`${name}.jsonl`),
        ...args,
      ],
      env,
    )
    return { ...(await done), steps: this.steps(`${name}.jsonl`) }
  }

  /** `zeroshard launch` of a script in test/ranks/scripts. */
  launch(script: string, args: string[], ranks: number, env?: NodeJS.ProcessEnv): Promise<Omit<Outcome, 'steps'>> {
    return this.start(['launch', '--nproc', String(ranks), join(root, 'test/ranks/scripts', script), ...args], env).done
  }

  /** What failed runs of `train()` left: processes, and files that were not there before them. */
  remains(): string[] {
    const files = readdirSync(this.folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && entry.parentPath !== this.folder)
      .map((entry) => join(entry.parentPath, entry.name))
    return [...processesOf(this.folder).map((pid) => `process ${pid}`), ...files]
  }

  /** The rows so far: of a run that goes on, or was killed, the last line may be half written. */
  steps(metrics: string): Row[] {
    if (!existsSync(this.path(metrics))) return []
    return readFileSync(this.path(metrics), 'utf8')
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as Row)
      .filter((row) => 'loss' in row)
  }
}

export const losses = (outcome: { steps: Row[] }): number[] => outcome.steps.map(({ loss }) => loss)

/** A run that ended well. */
export function whole(t: Test, outcome: Outcome): Outcome {
  t.equal(outcome.status, 0, outcome.stderr || 'done')
  return outcome
}

/** Sums in another order: f32 rounding, no more (the law's tolerance grows with the steps of so small a model). */
export function closeCurves(t: Test, actual: number[], expected: number[], name: string): void {
  t.equal(actual.length, expected.length, `${name}: as many steps`)
  actual.forEach((loss, index) => {
    const gap = Math.abs(loss - (expected[index] as number))
    if (!(gap <= 2e-5 * (index + 1))) t.fail(`${name}: step ${index + 1}: ${loss} against ${expected[index]}`)
  })
}

/** Processes whose command line names `text`, but this one. */
export function processesOf(text: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map(Number)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(text)
      } catch {
        return false
      }
    })
}

/** RANK in a process's environment. */
export function rankOf(pid: number): number | undefined {
  const found = /(?:^|\0)RANK=(\d+)/.exec(readFileSync(`/proc/${pid}/environ`, 'utf8'))
  return found ? Number(found[1]) : undefined
}

/** Whether a test may mount small file systems. */
export function mayMount(): boolean {
  const folder = mkdtempSync(join(tmpdir(), 'zeroshard-mount-'))
  try {
    if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', folder]).status !== 0) return false
    return spawnSync('umount', [folder]).status === 0
  } finally {
    rmSync(folder, { recursive: true })
  }
}
