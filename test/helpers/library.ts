// Shared objects that tests build for themselves of test/native/libraries: stand-ins for libraries of a GPU's driver.

import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const sources = fileURLToPath(new URL('../native/libraries/', import.meta.url))

/** Compiles `<name>.cpp`; the path of the library, which is there until this process ends. */
export function buildLibrary(name: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'zeroshard-library-'))
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
  const path = join(folder, `${name}.so`)
  execFileSync('c++', ['-std=c++20', '-O1', '-shared', '-fPIC', '-Wall', '-o', path, join(sources, `${name}.cpp`)])
  return path
}
