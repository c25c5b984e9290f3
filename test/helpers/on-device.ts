// Preloaded (`node --import tsx --import ./test/helpers/on-device.ts TEST`): what follows runs on the device of
// ZEROSHARD_TEST_DEVICE. Exit status 77 with the reason where there is none.
import { binding } from '../../lib/binding/native.js'
import { readEnvironment } from '../../lib/launch/env.js'

const { serial } = readEnvironment()
const device = process.env.ZEROSHARD_TEST_DEVICE === 'cpu' ? 'cpu' : 'cuda'
const { devices, reason } = binding().native.devices()
if (device === 'cuda' && devices.length === 0) {
  console.error(`no device: ${reason}`)
  process.exit(77)
}
binding().native.configure({ threads: 0, serial, device })
