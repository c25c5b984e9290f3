// Builds and runs the native tests (no Node-API, no JavaScript): cmake, then ctest. They are made of the objects of the
// addon's build, which is made first where there is none.
// `--sanitize address` (with UBSan) or `--sanitize thread`: the same under a sanitizer, in a build of its own, but for
// matmul_test under `thread` (two minutes; its only threads are the pool's, which core_test has) and the kernels' cases on
// fibers (one thread at a time, changed in a way that the thread sanitizer does not follow).
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { root, run } from './run.mjs'

const { sanitize } = parseArgs({ options: { sanitize: { type: 'string', default: 'none' } } }).values
const plain = sanitize === 'none'
const folder = plain ? 'cmake-build' : `cmake-build/tests-${sanitize}`
if (plain && !existsSync(join(root, 'cmake-build/CMakeCache.txt'))) run(process.execPath, ['scripts/native-build.mjs'])
const own = plain ? [] : ['-DZS_CUDA=OFF', `-DZS_SANITIZE=${sanitize}`, '-DCMAKE_BUILD_TYPE=Release']
run('cmake', ['-S', '.', '-B', folder, '-DZS_TESTS=ON', ...own])
run('cmake', ['--build', folder, '-j', '2', '--target', 'native_tests'])
const left = sanitize === 'thread' ? ['-E', '^matmul_test$|cuda_ops|gpu_runner'] : []
run('ctest', ['--test-dir', folder, '--output-on-failure', ...left])
