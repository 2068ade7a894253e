package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// load produces numbered records to each of the six partitions of the topic "chaos", with idempotence, until SIGTERM.
// It prints `VALUE PARTITION OFFSET` for each acknowledged record; a refused record is a failure.
func load(s *scenario) {
	const partitions = 6
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	client := s.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
	var print sync.Mutex
	tick := time.NewTicker(20 * time.Millisecond)
	for number := 0; ; number++ {
		select {
		case <-stop:
			check(client.Flush(context.Background()), "flush")
			return
		case <-tick.C:
		}
		partition := int32(number % partitions)
		value := fmt.Sprintf("franz%d-%d", partition, number/partitions)
		record := &kgo.Record{Topic: "chaos", Partition: partition, Value: []byte(value)}
		client.Produce(context.Background(), record, func(record *kgo.Record, err error) {
			check(err, "produce "+value)
			print.Lock()
			fmt.Printf("%s %d %d\n", value, record.Partition, record.Offset)
			print.Unlock()
		})
	}
}
