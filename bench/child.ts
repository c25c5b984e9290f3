// One process of a measurement: runs the `work` of a benchmark's file; rank 0 writes what it returns.
// Usage: child.ts FILE OUTPUT OPTIONS

import { writeFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import type { Work } from './harness.js'

const [file, output, options] = process.argv.slice(2) as [string, string, string]
const { work } = (await import(pathToFileURL(file).href)) as { work: Work<unknown, unknown> }
const result = await work(JSON.parse(options))
if ((process.env.RANK ?? '0') === '0') writeFileSync(output, JSON.stringify(result))
