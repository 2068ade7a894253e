package main

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// awkward returns records with unusual keys, values and headers.
func awkward() []*kgo.Record {
	return []*kgo.Record{
		{Key: []byte("key"), Value: []byte("value")},
		{Key: nil, Value: []byte("no key")},
		{Key: []byte("tombstone"), Value: nil},
		{Key: []byte{}, Value: []byte{}},
		{Key: []byte{0, 255, 0, 128}, Value: bytes.Repeat([]byte{1, 2, 3}, 100_000)},
		{Value: []byte("headers"), Headers: []kgo.RecordHeader{
			{Key: "a", Value: []byte("1")}, {Key: "b", Value: nil}, {Key: "a", Value: []byte("2")}, {Key: "", Value: []byte{}},
		}},
		{Value: []byte("a time of its own"), Timestamp: time.UnixMilli(1_700_000_000_123)},
	}
}

// same compares sent records with read ones; nil and empty values are different.
func same(topic string, sent, read []*kgo.Record) {
	expect(len(read), len(sent), "records of "+topic)
	for i, want := range sent {
		got, what := read[i], fmt.Sprintf("%s record %d ", topic, i)
		expect(got.Offset, int64(i), what+"offset")
		expect(got.Key == nil, want.Key == nil, what+"null key")
		expect(got.Value == nil, want.Value == nil, what+"null value")
		expect(bytes.Equal(got.Key, want.Key), true, what+"key")
		expect(bytes.Equal(got.Value, want.Value), true, what+"value")
		expect(got.Timestamp.UnixMilli(), want.Timestamp.UnixMilli(), what+"timestamp")
		expect(len(got.Headers), len(want.Headers), what+"headers")
		for j, header := range want.Headers {
			expect(got.Headers[j].Key, header.Key, what+"header key")
			expect(string(got.Headers[j].Value), string(header.Value), what+"header value")
			expect(got.Headers[j].Value == nil, header.Value == nil, what+"null header")
		}
	}
}

// roundtrip: records are read back as they were produced, idempotently and with acks=all (franz-go's default).
func roundtrip(s *scenario) {
	s.createTopic("roundtrip", 1)
	producer := s.client(kgo.DefaultProduceTopic("roundtrip"))
	defer producer.Close()
	sent := awkward()
	check(producer.ProduceSync(s.ctx, sent...).FirstErr(), "produce")
	same("roundtrip", sent, s.readAll("roundtrip", len(sent)))

	// Without idempotence, with each value of acks.
	for name, acks := range map[string]kgo.Acks{"none": kgo.NoAck(), "leader": kgo.LeaderAck(), "all": kgo.AllISRAcks()} {
		topic := "acks-" + name
		s.createTopic(topic, 1)
		producer := s.client(kgo.DefaultProduceTopic(topic), kgo.RequiredAcks(acks), kgo.DisableIdempotentWrite())
		sent := awkward()
		check(producer.ProduceSync(s.ctx, sent...).FirstErr(), "produce "+topic)
		same(topic, sent, s.readAll(topic, len(sent)))
		producer.Close()
	}
}

// codecs: each codec, with batches large enough to be compressed.
func codecs(s *scenario) {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	for name, codec := range codecs {
		topic := "codec-" + name
		s.createTopic(topic, 1)
		producer := s.client(kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(20*time.Millisecond))
		sent := awkward()
		for i := range 5_000 {
			value := fmt.Sprintf("value %d %s", i, strings.Repeat("x", 100))
			sent = append(sent, &kgo.Record{Key: fmt.Appendf(nil, "key-%d", i%10), Value: []byte(value)})
		}
		check(producer.ProduceSync(s.ctx, sent...).FirstErr(), "produce "+topic)
		producer.Close()
		same(topic, sent, s.readAll(topic, len(sent)))
	}
}

// transactions: they are not supported yet, and a transactional producer fails at once instead of retrying.
func transactions(s *scenario) {
	s.createTopic("transactions", 1)
	producer := s.client(kgo.DefaultProduceTopic("transactions"), kgo.TransactionalID("t"))
	defer producer.Close()
	start := time.Now()
	err := producer.BeginTransaction()
	expect(err != nil, true, "an error")
	expect(strings.Contains(err.Error(), "transactional"), true, "the error names transactions: "+err.Error())
	expect(time.Since(start) < 20*time.Second, true, "an answer at once")
}
