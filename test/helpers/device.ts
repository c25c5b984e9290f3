// The device that tests run on: ZEROSHARD_TEST_DEVICE, the CPU where it says none. A test file that needs a device which is
// not there ends with 77 and the reason.

import { binding, type Device } from '../../lib/binding/native.js'

export const device: Device = process.env.ZEROSHARD_TEST_DEVICE === 'cuda' ? 'cuda' : 'cpu'
const { devices, reason, libraries } = binding().native.devices(device === 'cuda')

if (device === 'cuda' && devices.length === 0) {
  console.error(`no device: ${reason}`)
  process.exit(77)
}

/** For `skip`: why there are not so many devices of their own for ranks; false where there are. On the CPU ranks share one. */
export function fewerThan(count: number): string | false {
  if (device === 'cpu') return count > 4 ? `${count} processes are many for one CPU` : false
  const there = devices.length === 1 ? 'is 1' : `are ${devices.length}`
  return devices.length < count ? `needs ${count} devices, there ${there}` : false
}

/** For `skip`: why several ranks of one device cannot use NCCL; false where they can. */
export function noSharedNccl(): string | false {
  if (device === 'cpu') return 'NCCL is between GPUs'
  const nccl = libraries.find(({ name }) => name === 'nccl')
  if (!nccl?.path) return `NCCL is not there: ${nccl?.note}`
  const [major = 0, minor = 0] = nccl.version.split('.').map(Number)
  return major > 2 || (major === 2 && minor >= 30)
    ? false
    : `NCCL ${nccl.version} refuses ranks of one device; 2.30 does not`
}
