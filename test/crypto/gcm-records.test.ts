import t from 'tap'
import { soughtRecords } from '../../lib/crypto/gcm-records.ts'
import { EvpCtrl, type Libcrypto, libcrypto } from '../../lib/crypto/libcrypto.ts'

const library = libcrypto()
const skip = library === undefined && 'no libcrypto in this process'

/** This OpenSSL, with some calls that answer otherwise. */
function otherwise(
  evp: Partial<Libcrypto['evp']>,
  copies: Partial<Libcrypto['copies']>,
): Libcrypto {
  if (library?.copies === undefined) throw new Error('not asked when there is none')
  return {
    ...library,
    evp: { ...library.evp, ...evp },
    copies: { ...library.copies, ...copies },
  }
}

t.test('the place of the associated data is found in this OpenSSL', { skip }, async t => {
  t.ok(library !== undefined && soughtRecords(library))
})

t.test('an OpenSSL that answers otherwise is left alone', { skip }, async t => {
  if (library === undefined) return
  t.equal(soughtRecords({ ...library, copies: undefined }), undefined, 'nothing to copy methods')
  t.equal(soughtRecords(otherwise({}, { copyMethod: () => 0 })), undefined, 'no copy')
  t.equal(soughtRecords(otherwise({}, { dataOf: () => 0 })), undefined, 'no data')
  t.equal(soughtRecords(otherwise({}, { bufferOf: () => 0 })), undefined, 'no buffer')
  t.equal(soughtRecords(otherwise({}, { dataBytes: () => 0 })), undefined, 'data of no size')
  t.equal(soughtRecords(otherwise({ control: () => 0 }, {})), undefined, 'refuses the command')
  t.equal(soughtRecords(otherwise({ control: () => 16 }, {})), undefined, 'does nothing')
  const buffer = otherwise({}, { bufferOf: context => library.copies?.dataOf(context) ?? 0 })
  t.equal(soughtRecords(buffer), undefined, 'the bytes are not in the buffer')
})

t.test('more than one change is not trusted', { skip }, async t => {
  if (library?.copies === undefined) return
  const { copies, evp } = library
  const twice = otherwise(
    {
      control: (context, command, value, address) => {
        const result = evp.control(context, command, value, address)
        // The first integer of the data is that of the key; it is put back when the context goes.
        const first = new Int32Array(copies.memoryAt(copies.dataOf(context), 4))
        if (command === EvpCtrl.setTlsAssociated) first[0] = (first[0] ?? 0) ^ 1
        return result
      },
    },
    {},
  )
  t.equal(soughtRecords(twice), undefined)
})
