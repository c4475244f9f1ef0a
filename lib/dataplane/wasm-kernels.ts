/**
 * Three inner loops as a WebAssembly module that works on the packet memory: `sum` (RFC 1071),
 * `copy`, and `copySum`, which copies and sums in one pass. The module is assembled here from its
 * instructions; SIMD makes the sum about ten times faster than the same loop in TypeScript.
 */

export interface Kernels {
  /** Folded one's-complement sum of memory[at .. at + length), added to `seed`. */
  sum(at: number, lengthBytes: number, seed: number): number
  /** Regions may overlap. */
  copy(to: number, from: number, lengthBytes: number): void
  /** Copies forwards and returns the sum of what was copied, added to `seed`. */
  copySum(to: number, from: number, lengthBytes: number, seed: number): number
}

/** What we need of the engine's WebAssembly object; the `ES2023` library does not describe it. */
interface WasmEngine {
  Memory: new (limits: { initial: number; maximum: number }) => WasmMemory
  Module: new (bytes: Uint8Array) => object
  Instance: new (
    module: object,
    imports: { env: { memory: WasmMemory } },
  ) => { readonly exports: Readonly<Record<string, unknown>> }
}

export interface WasmMemory {
  readonly buffer: ArrayBuffer
}

declare const WebAssembly: WasmEngine | undefined

/** A memory of `pages` pages of 64 KiB that cannot grow, or undefined without WebAssembly. */
export function createWasmMemory(pages: number): WasmMemory | undefined {
  if (typeof WebAssembly === 'undefined') return undefined
  try {
    return new WebAssembly.Memory({ initial: pages, maximum: pages })
  } catch {
    // Each memory reserves gigabytes of address space; a process with `ulimit -v` may have none.
    return undefined
  }
}

/** The kernels bound to `memory`, or undefined when this engine has no SIMD. */
export function bindKernels(memory: WasmMemory): Kernels | undefined {
  if (typeof WebAssembly === 'undefined') return undefined
  try {
    const compiled = new WebAssembly.Module(kernelModule())
    const { exports } = new WebAssembly.Instance(compiled, { env: { memory } })
    const { sum, copy, copySum } = exports
    if (typeof sum !== 'function' || typeof copy !== 'function') return undefined
    if (typeof copySum !== 'function') return undefined
    return {
      sum: sum as Kernels['sum'],
      copy: copy as Kernels['copy'],
      copySum: copySum as Kernels['copySum'],
    }
  } catch {
    return undefined
  }
}

// Encoding: WebAssembly Core Specification 2.0, chapter 5.

const I32 = 0x7f
const I64 = 0x7e
const V128 = 0x7b
const NO_RESULT = 0x40

type Code = readonly (number | Code)[]

const get = (local: number): Code => [0x20, local]
const set = (local: number): Code => [0x21, local]
const i32 = (value: number): Code => [0x41, ...signedLeb(value)]
const i64 = (value: number): Code => [0x42, ...signedLeb(value)]
const block = (...body: Code[]): Code => [0x02, NO_RESULT, ...body, 0x0b]
const loop = (...body: Code[]): Code => [0x03, NO_RESULT, ...body, 0x0b]
const whenTrue = (...body: Code[]): Code => [0x04, NO_RESULT, ...body, 0x0b]
const branch = (depth: number): Code => [0x0c, depth]
const branchIf = (depth: number): Code => [0x0d, depth]
const vector = (opcode: number): Code => [0xfd, ...unsignedLeb(opcode)]

const I32_GE_U = [0x4f]
const I32_LT_U = [0x49]
const I32_ADD = [0x6a]
const I32_SUB = [0x6b]
const I32_AND = [0x71]
const I64_ADD = [0x7c]
const I64_AND = [0x83]
const I64_SHR_U = [0x88]
const I32_WRAP_I64 = [0xa7]
const I64_EXTEND_I32_U = [0xad]
const I64_LOAD8_U = [0x31, 0, 0]
const I64_LOAD16_U = [0x33, 0, 0]
const I32_LOAD8_U = [0x2d, 0, 0]
const I32_LOAD16_U = [0x2f, 0, 0]
const I32_STORE8 = [0x3a, 0, 0]
const I32_STORE16 = [0x3b, 0, 0]
const MEMORY_COPY = [0xfc, 0x0a, 0, 0]
const v128Load = (offset: number): Code => [vector(0), 0, offset]
const v128Store = (offset: number): Code => [vector(11), 0, offset]
const i32x4ExtractLane = (lane: number): Code => [vector(27), lane]
/** Adds neighbouring unsigned 16-bit lanes into 32-bit lanes. */
const I32X4_EXTADD_PAIRWISE_U16: Code = vector(127)
const I32X4_ADD: Code = vector(174)

/** local += constant */
const advance = (local: number, by: number): Code => [get(local), i32(by), I32_ADD, set(local)]
/** accumulator (i64) += whatever 64-bit value is on the stack */
const addTo = (accumulator: number): Code => [get(accumulator), I64_ADD, set(accumulator)]

/** accumulator (i64) += the four lanes of `lanes`; leaves nothing on the stack. */
const addLanes = (accumulator: number, lanes: number): Code =>
  [0, 1, 2, 3].map(lane => [
    get(lanes),
    i32x4ExtractLane(lane),
    I64_EXTEND_I32_U,
    addTo(accumulator),
  ])

/** Leaves the accumulator, folded three times to 16 bits, on the stack as i32. */
const folded = (accumulator: number): Code => {
  const once = [
    ...[get(accumulator), i64(0xffff), I64_AND],
    ...[get(accumulator), i64(16), I64_SHR_U],
    ...[I64_ADD, set(accumulator)],
  ]
  return [once, once, once, get(accumulator), I32_WRAP_I64]
}

/** Adds the 16 bytes at `from + offset` to `lanes`, and stores them at `to + offset` where there is one. */
const addVector = (
  lanes: number,
  loaded: number,
  from: number,
  offset: number,
  to?: number,
): Code => [
  ...[get(from), v128Load(offset), set(loaded)],
  to === undefined ? [] : [get(to), get(loaded), v128Store(offset)],
  ...[get(lanes), get(loaded), I32X4_EXTADD_PAIRWISE_U16, I32X4_ADD, set(lanes)],
]

/** Repeats `body`, which advances `from`, until fewer than `stepBytes` are left of `length` there. */
const eachStep = (
  from: number,
  length: number,
  end: number,
  stepBytes: number,
  body: Code,
): Code => [
  ...[get(from), get(length), i32(-stepBytes), I32_AND, I32_ADD, set(end)],
  ...[get(length), i32(stepBytes - 1), I32_AND, set(length)],
  block(loop(get(from), get(end), I32_GE_U, branchIf(1), body, branch(0))),
]

/** (at, length, seed) -> sum. Locals: 3 end (i32), 4 total (i64), 5 and 6 lanes, 7 loaded (v128). */
const sumBody: Code = [
  ...[get(2), I64_EXTEND_I32_U, set(4)],
  eachStep(0, 1, 3, 64, [
    ...[
      addVector(5, 7, 0, 0),
      addVector(6, 7, 0, 16),
      addVector(5, 7, 0, 32),
      addVector(6, 7, 0, 48),
    ],
    advance(0, 64),
  ]),
  eachStep(0, 1, 3, 16, [addVector(5, 7, 0, 0), advance(0, 16)]),
  ...[get(5), get(6), I32X4_ADD, set(5)],
  addLanes(4, 5),
  // The last 0..15 bytes, by twos and one.
  block(
    loop(
      ...[get(1), i32(2), I32_LT_U, branchIf(1)],
      ...[get(0), I64_LOAD16_U, addTo(4)],
      advance(0, 2),
      ...[get(1), i32(2), I32_SUB, set(1)],
      branch(0),
    ),
  ),
  get(1),
  whenTrue(get(0), I64_LOAD8_U, addTo(4)),
  folded(4),
]

/** (to, from, length). */
const copyBody: Code = [get(0), get(1), get(2), MEMORY_COPY]

/** (to, from, length, seed) -> sum. Locals: 4 end (i32), 5 total (i64), 6 and 7 lanes, 8 loaded (v128). */
const copySumBody: Code = [
  ...[get(3), I64_EXTEND_I32_U, set(5)],
  eachStep(1, 2, 4, 64, [
    ...[addVector(6, 8, 1, 0, 0), addVector(7, 8, 1, 16, 0)],
    ...[addVector(6, 8, 1, 32, 0), addVector(7, 8, 1, 48, 0)],
    ...[advance(0, 64), advance(1, 64)],
  ]),
  eachStep(1, 2, 4, 16, [addVector(6, 8, 1, 0, 0), advance(0, 16), advance(1, 16)]),
  ...[get(6), get(7), I32X4_ADD, set(6)],
  addLanes(5, 6),
  block(
    loop(
      ...[get(2), i32(2), I32_LT_U, branchIf(1)],
      ...[get(0), get(1), I32_LOAD16_U, I32_STORE16],
      ...[get(1), I64_LOAD16_U, addTo(5)],
      advance(1, 2),
      advance(0, 2),
      ...[get(2), i32(2), I32_SUB, set(2)],
      branch(0),
    ),
  ),
  get(2),
  whenTrue(get(0), get(1), I32_LOAD8_U, I32_STORE8, get(1), I64_LOAD8_U, addTo(5)),
  folded(5),
]

interface KernelFunction {
  readonly name: string
  readonly parameters: readonly number[]
  readonly results: readonly number[]
  /** Each: how many locals, of which type. */
  readonly locals: readonly (readonly [number, number])[]
  readonly body: Code
}

const functions: readonly KernelFunction[] = [
  {
    name: 'sum',
    parameters: [I32, I32, I32],
    results: [I32],
    locals: [
      [1, I32],
      [1, I64],
      [3, V128],
    ],
    body: sumBody,
  },
  { name: 'copy', parameters: [I32, I32, I32], results: [], locals: [], body: copyBody },
  {
    name: 'copySum',
    parameters: [I32, I32, I32, I32],
    results: [I32],
    locals: [
      [1, I32],
      [1, I64],
      [3, V128],
    ],
    body: copySumBody,
  },
]

/** The bytes of the module: magic, version, then one section per kind. */
function kernelModule(): Uint8Array<ArrayBuffer> {
  const types = functions.map(f => [0x60, counted(f.parameters), counted(f.results)])
  const imports = [[text('env'), text('memory'), 0x02, 0x00, 1]]
  const indices = functions.map((_, index) => [index])
  const exported = functions.map((f, index) => [text(f.name), 0x00, index])
  const bodies = functions.map(f => {
    const code = flat([vectorOf(f.locals), f.body, 0x0b])
    return [unsignedLeb(code.length), code]
  })
  return Uint8Array.from(
    flat([
      ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
      section(1, types),
      section(2, imports),
      section(3, indices),
      section(7, exported),
      section(10, bodies),
    ]),
  )
}

function section(id: number, entries: readonly Code[]): Code {
  const body = flat(vectorOf(entries))
  return [id, unsignedLeb(body.length), body]
}

function vectorOf(entries: readonly Code[]): Code {
  return [unsignedLeb(entries.length), ...entries]
}

function counted(values: readonly number[]): Code {
  return [values.length, ...values]
}

function text(value: string): Code {
  return [value.length, ...[...value].map(character => character.charCodeAt(0))]
}

function flat(code: Code): number[] {
  return code.flatMap(part => (typeof part === 'number' ? [part] : flat(part)))
}

function unsignedLeb(value: number): number[] {
  const low = value & 0x7f
  const rest = value >>> 7
  return rest === 0 ? [low] : [low | 0x80, ...unsignedLeb(rest)]
}

function signedLeb(value: number): number[] {
  const low = value & 0x7f
  const rest = value >> 7
  const isLast = (rest === 0 && (low & 0x40) === 0) || (rest === -1 && (low & 0x40) !== 0)
  return isLast ? [low] : [low | 0x80, ...signedLeb(rest)]
}
