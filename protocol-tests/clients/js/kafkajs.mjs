// Tests unmodified kafkajs against a broker: kafkajs.mjs BOOTSTRAP SCENARIO.
// Each scenario checks its results; the first difference ends the program with a non-zero status.
import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import * as zstd from '@bokuweb/zstd-wasm'
import kafkajs from 'kafkajs'
import SnappyCodec from 'kafkajs-snappy'
import lz4 from 'lz4js'

const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, Partitioners, logLevel } = kafkajs
const LIMIT_MS = 60_000

CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec
// lz4js marks the blocks of a frame as dependent, which Kafka refuses (Apache's Lz4BlockInputStream). A frame with a single
// block of up to 4 MiB may be marked as independent: this changes a flag and the checksum of the frame descriptor.
function independent(frame) {
  assert.equal(frame.readUInt8(5), 0x70, 'blocks of 4 MiB')
  frame.writeUInt8(0x60, 4)
  frame.writeUInt8(0x73, 6)
  return frame
}

CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async encoder => independent(Buffer.from(lz4.compress(encoder.buffer))),
  decompress: async buffer => Buffer.from(lz4.decompress(buffer)),
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => Buffer.from(zstd.compress(encoder.buffer)),
  decompress: async buffer => Buffer.from(zstd.decompress(buffer)),
})

const [bootstrap, scenario] = process.argv.slice(2)
const kafka = new Kafka({ clientId: 'kafkajs', brokers: [bootstrap], logLevel: logLevel.NOTHING })

const bytes = text => Buffer.from(text)
const AWKWARD = [
  { key: bytes('key'), value: bytes('value') },
  { key: null, value: bytes('no key') },
  { key: bytes('tombstone'), value: null },
  { key: bytes(''), value: bytes('') },
  { key: Buffer.from([0, 255, 0, 128]), value: Buffer.alloc(300_000, 7) },
  { key: bytes('k'), value: bytes('headers'), headers: { a: [bytes('1'), bytes('2')], b: bytes('3') } },
]

async function eventually(what, ask) {
  for (const deadline = Date.now() + LIMIT_MS; !(await ask()); await sleep(20)) {
    assert.ok(Date.now() < deadline, `not in time: ${what}`)
  }
}

async function connected(client, use) {
  await client.connect()
  try {
    return await use(client)
  } finally {
    await client.disconnect()
  }
}

const withAdmin = use => connected(kafka.admin(), use)
const createTopic = (topic, numPartitions = 1) =>
  withAdmin(admin => admin.createTopics({ topics: [{ topic, numPartitions, replicationFactor: 1 }], waitForLeaders: true }))

const produce = (topic, messages, { compression, acks, ...options } = {}) =>
  connected(kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner, ...options }), producer =>
    producer.send({ topic, messages, compression, acks }))

async function read(topic, count) {
  const messages = []
  await connected(kafka.consumer({ groupId: `reader-${topic}` }), async consumer => {
    await consumer.subscribe({ topic, fromBeginning: true })
    await consumer.run({ eachMessage: async ({ message }) => { messages.push(message) } })
    await eventually(`${count} records of ${topic}`, () => messages.length >= count)
  })
  return messages
}

function same(topic, sent, read) {
  assert.equal(read.length, sent.length, topic)
  sent.forEach((message, offset) => {
    assert.equal(read[offset].offset, String(offset), topic)
    assert.deepEqual(read[offset].key, message.key ?? null, `${topic} ${offset} key`)
    assert.deepEqual(read[offset].value, message.value, `${topic} ${offset} value`)
    assert.deepEqual({ ...read[offset].headers }, message.headers ?? {}, `${topic} ${offset} headers`)
  })
}

async function roundtrip() {
  const variants = { idempotent: { idempotent: true }, 'acks-all': { acks: -1 }, 'acks-1': { acks: 1 }, 'acks-0': { acks: 0 } }
  for (const [topic, options] of Object.entries(variants)) {
    await createTopic(topic)
    await produce(topic, AWKWARD, options)
    same(topic, AWKWARD, await read(topic, AWKWARD.length))
  }
}

async function codecs() {
  await zstd.init()
  for (const name of ['None', 'GZIP', 'Snappy', 'LZ4', 'ZSTD']) {
    const topic = `codec-${name}`
    await createTopic(topic)
    const sent = [...AWKWARD]
    for (let i = 0; i < 2000; i++) sent.push({ key: bytes(`key-${i % 10}`), value: bytes(`value ${i} ${'x'.repeat(100)}`) })
    await produce(topic, sent, { compression: CompressionTypes[name] })
    same(topic, sent, await read(topic, sent.length))
  }
}

// A member of a group that counts the values it read.
async function join(group) {
  const consumer = kafka.consumer({ groupId: group, sessionTimeout: 6000, heartbeatInterval: 200, rebalanceTimeout: 10_000 })
  const member = { consumer, values: new Set(), partitions: 0 }
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => { member.partitions = payload.memberAssignment[group]?.length ?? 0 })
  await consumer.connect()
  await consumer.subscribe({ topic: group, fromBeginning: true })
  await consumer.run({ eachMessage: async ({ message }) => { member.values.add(String(message.value)) } })
  return member
}

async function group() {
  const [name, count, partitions] = ['group', 600, 6]
  await createTopic(name, partitions)
  const send = from =>
    produce(name, Array.from({ length: count }, (_, i) => ({ value: String(from + i), partition: (from + i) % partitions })))
  const committed = () => withAdmin(async admin => {
    const [{ partitions: places }] = await admin.fetchOffsets({ groupId: name, topics: [name] })
    return places.map(({ offset }) => Number(offset))
  })

  await send(0)
  const first = await join(name)
  await eventually('the first member reads everything', () => first.values.size === count)
  const second = await join(name)
  await eventually('three partitions each', () => first.partitions === 3 && second.partitions === 3)
  await send(count)
  await eventually('both read on', () => new Set([...first.values, ...second.values]).size === 2 * count)
  await first.consumer.disconnect()
  await eventually('the one that stays has all partitions', () => second.partitions === partitions)
  await send(2 * count)
  await eventually('it reads everything and commits it', async () =>
    (await committed()).every(offset => offset === (3 * count) / partitions))
  await second.consumer.disconnect()
}

async function admin() {
  await withAdmin(async admin => {
    assert.equal((await admin.describeCluster()).brokers.length, 1)
    const topic = { topic: 'admin', numPartitions: 2, replicationFactor: 1, configEntries: [{ name: 'retention.ms', value: '3600000' }] }
    assert.equal(await admin.createTopics({ topics: [topic], waitForLeaders: true }), true)
    assert.equal(await admin.createTopics({ topics: [topic] }), false, 'a topic is created once')
    await admin.createPartitions({ topicPartitions: [{ topic: 'admin', count: 3 }] })
    await eventually('three partitions', async () =>
      (await admin.fetchTopicMetadata({ topics: ['admin'] })).topics[0].partitions.length === 3)

    const setting = async name => {
      const described = await admin.describeConfigs({ includeSynonyms: true, resources: [{ type: ConfigResourceTypes.TOPIC, name: 'admin' }] })
      return described.resources[0].configEntries.find(({ configName }) => configName === name).configValue
    }
    assert.equal(await setting('retention.ms'), '3600000')
    // kafkajs uses the older AlterConfigs: settings that are not named return to their defaults.
    const configEntries = [{ name: 'retention.bytes', value: '1000000' }]
    await admin.alterConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name: 'admin', configEntries }] })
    assert.equal(await setting('retention.bytes'), '1000000')
    assert.equal(await setting('retention.ms'), '604800000')

    await produce('admin', Array.from({ length: 10 }, (_, i) => ({ value: String(i), partition: 0 })))
    const first = places => places.find(({ partition }) => partition === 0)
    const { low, high } = first(await admin.fetchTopicOffsets('admin'))
    assert.deepEqual([low, high], ['0', '10'])
    assert.equal(first(await admin.fetchTopicOffsetsByTimestamp('admin', 1)).offset, '0')
    await admin.setOffsets({ groupId: 'admin-group', topic: 'admin', partitions: [{ partition: 0, offset: '7' }] })
    const [{ partitions }] = await admin.fetchOffsets({ groupId: 'admin-group', topics: ['admin'] })
    assert.equal(first(partitions).offset, '7')
    assert.ok((await admin.listGroups()).groups.some(({ groupId }) => groupId === 'admin-group'))
    await admin.deleteGroups(['admin-group'])
    assert.equal((await admin.listGroups()).groups.length, 0)
    await admin.deleteTopicRecords({ topic: 'admin', partitions: [{ partition: 0, offset: '4' }] })
    assert.equal(first(await admin.fetchTopicOffsets('admin')).low, '4')
    await admin.deleteTopics({ topics: ['admin'] })
    await eventually('the deleted topic is gone', async () => !(await admin.listTopics()).includes('admin'))
  })
}

await { roundtrip, codecs, group, admin }[scenario]()
process.exit(0)
