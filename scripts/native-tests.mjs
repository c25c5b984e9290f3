// Builds and runs the native tests (no Node-API, no JavaScript): cmake, then ctest.
// `--sanitize address` (with UBSan) or `--sanitize thread`: the same under a sanitizer, but for matmul_test under
// `thread` (two minutes; its only threads are the pool's, which core_test has) and cuda_ops_test (fibers, no threads).
import { parseArgs } from 'node:util'
import { run } from './run.mjs'

const { sanitize } = parseArgs({ options: { sanitize: { type: 'string', default: 'none' } } }).values
const folder = sanitize === 'none' ? 'cmake-build/tests' : `cmake-build/tests-${sanitize}`
run('cmake', [
  '-S',
  '.',
  '-B',
  folder,
  '-DZS_TESTS=ON',
  '-DZS_CUDA=OFF',
  `-DZS_SANITIZE=${sanitize}`,
  '-DCMAKE_BUILD_TYPE=Release',
])
run('cmake', ['--build', folder, '-j', '2'])
run('ctest', ['--test-dir', folder, '--output-on-failure', ...(sanitize === 'thread' ? ['-E', 'matmul|cuda_ops'] : [])])
