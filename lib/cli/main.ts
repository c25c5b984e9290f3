#!/usr/bin/env node
// The command line. Each command is a file; exit status 0 done, 1 failed, 2 bad arguments or configuration,
// 130 interrupted after saving.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Command, CommanderError, Option } from 'commander'
import { ZeroshardError } from '../binding/errors.js'
import { packageRoot } from '../binding/loader.js'
import { doctor } from './doctor.js'
import { exportModel } from './export.js'
import { generateText } from './generate.js'
import { inspect } from './inspect.js'
import { launch } from './launch.js'
import { train } from './train.js'

const version = (JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as { version: string }).version

function program(): Command {
  const main = new Command('zeroshard')
    .description('Trains large models from Node.js')
    .version(version)
    .showSuggestionAfterError()
    .exitOverride()
    .enablePositionalOptions()
  const collect = (value: string, all: string[]): string[] => [...all, value]
  main
    .command('train')
    .argument('<config>', 'configuration file (JSON with comments)')
    .description('train a model on your text')
    .option('--nproc <n>', 'local ranks', whole)
    .addOption(
      new Option('--device <name>', 'cpu (default) or cuda; ZEROSHARD_DEVICE says the same').choices(['cpu', 'cuda']),
    )
    .option('--steps <n>', 'steps, counted from the very first', whole)
    .option('--seed <n>', 'seed', whole)
    .option('--set <path=json>', 'override a configuration value (repeatable)', collect, [])
    .option('--output <dir>', 'where checkpoints go')
    .option('--resume [auto|dir]', 'continue from a checkpoint')
    .option('--metrics <file>', 'one JSON object per step; {rank} in the name: one file per rank')
    .option('--trace <file>', 'what every stream did, for ui.perfetto.dev; {rank} in the name: one file per rank')
    .option('--quiet', 'no progress')
    .option('--serial', 'one stream for everything')
    .option('--verbose', 'stack traces')
    .action(async (config: string, options) => {
      process.exitCode = await train(config, options, version)
    })
  main
    .command('launch')
    .argument('<script>')
    .argument('[args...]')
    .description("run a script on every rank, with torchrun's environment variables")
    .option('--nproc <n>', 'local ranks', whole, 1)
    .option('--verbose', 'stack traces')
    .passThroughOptions()
    .action(async (script: string, args: string[], options) => {
      process.exitCode = await launch(script, args, options)
    })
  main
    .command('generate')
    .argument('<dir>', 'checkpoint, or output folder of a run')
    .requiredOption('--prompt <text>')
    .description('stream text from a trained model')
    .option('--tokens <n>', 'how many', whole, 200)
    .option('--temperature <x>', '0: the likeliest', decimal, 0.8)
    .option('--top-k <n>', '0: all', whole, 0)
    .option('--top-p <x>', '1: all', decimal, 1)
    .option('--seed <n>', 'seed', whole, 0)
    .option('--verbose', 'stack traces')
    .action(generateText)
  main
    .command('export')
    .argument('<dir>', 'checkpoint, or output folder of a run')
    .argument('<out>', 'new folder')
    .description('write a Hugging Face folder: config.json, safetensors, tokenizer')
    .option('--verbose', 'stack traces')
    .action(exportModel)
  main
    .command('inspect')
    .argument('<checkpoint>')
    .description('what is in a checkpoint')
    .option('--verify', 'check every byte')
    .option('--verbose', 'stack traces')
    .action(inspect)
  main
    .command('doctor')
    .description('what this machine and this build can do')
    .action(() => doctor(version))
  return main
}

function whole(text: string): number {
  if (!/^\d+$/.test(text)) throw new ZeroshardError('ARGUMENT', `'${text}' is not a whole number`)
  return Number(text)
}

function decimal(text: string): number {
  const value = Number(text)
  if (text.trim() === '' || !Number.isFinite(value)) throw new ZeroshardError('ARGUMENT', `'${text}' is not a number`)
  return value
}

/** Status and message of a failure. */
export function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
  const known = error instanceof ZeroshardError
  const verbose = process.argv.includes('--verbose')
  const message = error instanceof Error ? error.message : String(error)
  process.stderr.write(`zeroshard: ${known ? '' : 'unexpected error: '}${message}\n`)
  if (verbose && error instanceof Error) process.stderr.write(`${error.stack}\n`)
  return known && badUse.has(error.code) ? 2 : 1
}

const badUse = new Set<string>(['CONFIG', 'ARGUMENT', 'DATA', 'TOKEN', 'DEVICE'])

try {
  await program().parseAsync()
} catch (error) {
  process.exitCode = report(error)
}
