// Builds and runs the native tests (no Node-API, no JavaScript): cmake, then ctest.
import { spawnSync } from 'node:child_process'

const run = (command, ...args) => {
  const { status } = spawnSync(command, args, { stdio: 'inherit' })
  if (status !== 0) process.exit(status ?? 1)
}
run('cmake', '-S', '.', '-B', 'build/native', '-DZS_TESTS=ON', '-DCMAKE_BUILD_TYPE=Release')
run('cmake', '--build', 'build/native', '-j', '2')
run('ctest', '--test-dir', 'build/native', '--output-on-failure')
