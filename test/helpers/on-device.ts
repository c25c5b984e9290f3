// Preloaded (`node --import tsx --import ./test/helpers/on-device.ts TEST`): what follows runs on the device of
// ZEROSHARD_TEST_DEVICE, on one stream with ZEROSHARD_SERIAL=1, whatever the test asks for.

import { binding } from '../../lib/binding/native.js'
import { readEnvironment } from '../../lib/launch/env.js'
import { device } from './device.js'

const { native } = binding()
const { serial } = readEnvironment()
const configure = native.configure.bind(native)
native.configure = (options) => configure({ ...options, serial: options.serial || serial, device })
native.configure({ threads: 0, serial })
